//! What comes in: actions, impressions, items, users; and the wish of a user to be forgotten.
//!
//! How they stand in the log, older forms included, is in `record.rs`. The wire forms (JSON) live in the server crate
//! alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::entity::Features;
use crate::id::{EventId, ItemId, RequestId, UserId};
use crate::schema::Schema;

/// How far ahead of the server's clock an event's time may be, ms: clocks of phones drift by minutes.
pub const MAX_FUTURE_MS: i64 = 5 * 60 * 1000;
/// Earliest accepted time: 2000-01-01T00:00:00Z. Anything older is a clock that was never set.
pub const MIN_TIME_MS: i64 = 946_684_800_000;
/// Most items in one impression.
pub const MAX_IMPRESSION_ITEMS: usize = 2_000;

/// One event, as it is read from the log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "crate::record::Record")]
pub enum Event {
    /// A user did something with an item.
    Action(Action),
    /// A list was served to a user.
    Impression(Impression),
    /// An item was created or changed; its features replace the former ones.
    Item(Item),
    /// A user was created or changed; the features replace the former ones.
    User(User),
    /// A user asked to be forgotten: all that came before, of that user, is gone.
    Forget(Forget),
}

/// A user did something with an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The client's id; the same id again counts once.
    pub event_id: EventId,
    /// Who.
    pub user: UserId,
    /// With what.
    pub item: ItemId,
    /// Name of an action type of the schema.
    pub action: String,
    /// When, ms since 1970 UTC, by the client's clock.
    pub time_ms: i64,
    /// The ranking that showed the item, if known: labels join on it.
    pub request: Option<RequestId>,
    /// Name of a surface of the schema.
    pub surface: Option<String>,
}

/// A list was served to a user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Impression {
    /// The ranking's id, unique.
    pub request: RequestId,
    /// To whom.
    pub user: UserId,
    /// Name of a surface of the schema.
    pub surface: Option<String>,
    /// When it was ranked, ms since 1970 UTC, by the server's clock.
    pub time_ms: i64,
    /// What the ranker had seen: all log records with an offset below this. `None` for an impression that came from
    /// outside: then all records before its own.
    pub watermark: Option<u64>,
    /// What was shown, in order.
    pub items: Vec<ImpressionItem>,
    /// Model that ranked, its registry version; `None`: not ranked by Lately.
    pub model: Option<String>,
    /// Names of the rungs of degradation that were in force; such rows stay out of training.
    pub degraded: Vec<String>,
    /// Arm of the experiment or of the canary that the user was in; `None`: of neither.
    pub variant: Option<String>,
    /// Version of the item vectors that the model saw; empty: those that items were sent with. `None`: no model
    /// ranked, or it was logged before versions were.
    pub embedding_version: Option<String>,
    /// For each item the probability that it stood at its place, by the policy that ranked; empty: each stood there
    /// with certainty.
    pub propensities: Vec<f32>,
}

impl Impression {
    /// A list that Lately did not rank: what was known to it is all that stands before it in the log.
    pub fn outside(
        request: RequestId,
        user: UserId,
        surface: Option<String>,
        time_ms: i64,
        items: Vec<ImpressionItem>,
    ) -> Self {
        Self {
            request,
            user,
            surface,
            time_ms,
            watermark: None,
            items,
            model: None,
            degraded: Vec::new(),
            variant: None,
            embedding_version: None,
            propensities: Vec::new(),
        }
    }
}

/// One shown item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImpressionItem {
    /// Which item.
    pub item: ItemId,
    /// Its place in the list, from 0.
    pub position: u16,
    /// The model's probability a head; empty where no model ranked.
    pub heads: Vec<f32>,
    /// The value by which it was ordered.
    pub score: f32,
}

impl ImpressionItem {
    /// An item that no model scored.
    pub fn unscored(item: ItemId, position: u16) -> Self {
        Self { item, position, heads: Vec::new(), score: 0.0 }
    }
}

/// A value of a feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FeatureValue {
    /// One categorical value.
    Text(String),
    /// Several categorical values.
    Texts(Vec<String>),
    /// A numeric value.
    Number(f64),
    /// An embedding.
    Vector(Vec<f32>),
}

/// Values by feature name; a feature that is not named is missing.
pub type FeatureValues = BTreeMap<String, FeatureValue>;

/// An item was created or changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Which.
    pub item: ItemId,
    /// When, ms since 1970 UTC.
    pub time_ms: i64,
    /// All its features.
    pub features: FeatureValues,
    /// False takes the item out of retrieval; its past stays.
    pub active: bool,
}

/// A user was created or changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Who.
    pub user: UserId,
    /// When, ms since 1970 UTC.
    pub time_ms: i64,
    /// All the features.
    pub features: FeatureValues,
}

/// A user asked to be forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forget {
    /// Who.
    pub user: UserId,
    /// When, ms since 1970 UTC.
    pub time_ms: i64,
}

/// Why an event is refused. Nothing of a refused event is kept.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EventError {
    /// The action type is not in the schema.
    #[error("unknown action `{0}`: declare it under [schema] actions or correct the name")]
    UnknownAction(String),
    /// The surface is not in the schema.
    #[error("unknown surface `{0}`: declare it under [schema] surfaces or leave it out")]
    UnknownSurface(String),
    /// The feature is not in the schema.
    #[error("unknown feature `{0}`: declare it under [schema] or leave it out")]
    UnknownFeature(String),
    /// The value is of another kind than the feature.
    #[error("feature `{name}` is {kind} in the schema: send {send}")]
    WrongKind {
        /// Feature.
        name: String,
        /// Its declared kind.
        kind: &'static str,
        /// What to send.
        send: &'static str,
    },
    /// The vector has another length than declared.
    #[error("feature `{name}` has {got} numbers: the schema declares {want}")]
    WrongLength {
        /// Feature.
        name: String,
        /// Declared length.
        want: usize,
        /// Sent length.
        got: usize,
    },
    /// More values than declared.
    #[error("feature `{name}` has {got} values: the schema allows {max}; raise max_values or send fewer")]
    TooManyValues {
        /// Feature.
        name: String,
        /// Most values.
        max: usize,
        /// Sent values.
        got: usize,
    },
    /// NaN or infinite.
    #[error("feature `{0}` is not a finite number: leave it out where it is unknown")]
    NotFinite(String),
    /// The time is impossible.
    #[error("time_ms {0} is before 2000-01-01: send milliseconds since 1970 UTC")]
    TooOld(i64),
    /// The time is ahead of the clock.
    #[error("time_ms {0} is more than 5 minutes ahead of the server's clock: correct the client's clock")]
    Future(i64),
    /// An impression without items, or with too many.
    #[error("an impression has {0} items: send 1 to {MAX_IMPRESSION_ITEMS}")]
    ImpressionSize(usize),
    /// An impression shows one item twice.
    #[error("an impression shows `{0}` twice: send each item once")]
    RepeatedItem(ItemId),
}

impl Event {
    /// Time of the event, ms since 1970 UTC.
    pub fn time_ms(&self) -> i64 {
        match self {
            Self::Action(e) => e.time_ms,
            Self::Impression(e) => e.time_ms,
            Self::Item(e) => e.time_ms,
            Self::User(e) => e.time_ms,
            Self::Forget(e) => e.time_ms,
        }
    }

    /// The user whom the event concerns; `None` for items.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::Action(e) => Some(&e.user),
            Self::Impression(e) => Some(&e.user),
            Self::User(e) => Some(&e.user),
            Self::Forget(e) => Some(&e.user),
            Self::Item(_) => None,
        }
    }

    /// Checks the event against the schema and the server's clock `now_ms`.
    pub fn validate(&self, schema: &Schema, now_ms: i64) -> Result<(), EventError> {
        let time = self.time_ms();
        if time < MIN_TIME_MS {
            return Err(EventError::TooOld(time));
        }
        if time > now_ms.saturating_add(MAX_FUTURE_MS) {
            return Err(EventError::Future(time));
        }
        match self {
            Self::Action(e) => {
                schema.action(&e.action).ok_or_else(|| EventError::UnknownAction(e.action.clone()))?;
                surface(schema, e.surface.as_deref())
            }
            Self::Impression(e) => {
                surface(schema, e.surface.as_deref())?;
                if e.items.is_empty() || e.items.len() > MAX_IMPRESSION_ITEMS {
                    return Err(EventError::ImpressionSize(e.items.len()));
                }
                let mut seen = std::collections::HashSet::new();
                match e.items.iter().find(|i| !seen.insert(&i.item)) {
                    Some(twice) => Err(EventError::RepeatedItem(twice.item.clone())),
                    None => Ok(()),
                }
            }
            Self::Item(e) => Features::encode(&schema.item_features, &e.features).map(drop),
            Self::User(e) => Features::encode(&schema.user_features, &e.features).map(drop),
            Self::Forget(_) => Ok(()),
        }
    }
}

fn surface(schema: &Schema, name: Option<&str>) -> Result<(), EventError> {
    match name {
        Some(name) if schema.surface(name).is_none() => Err(EventError::UnknownSurface(name.to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::SMALL;

    const NOW: i64 = 1_700_000_000_000;

    fn action(name: &str, time_ms: i64, surface: Option<&str>) -> Event {
        Event::Action(Action {
            event_id: EventId::new("e").unwrap(),
            user: UserId::new("u").unwrap(),
            item: ItemId::new("i").unwrap(),
            action: name.into(),
            time_ms,
            request: None,
            surface: surface.map(Into::into),
        })
    }

    fn item(features: &[(&str, FeatureValue)]) -> Event {
        let features = features.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        Event::Item(Item { item: ItemId::new("i").unwrap(), time_ms: NOW, features, active: true })
    }

    #[test]
    fn an_event_of_the_schema_passes_and_the_rest_says_what_is_wrong() {
        let schema = Schema::from_toml(SMALL).unwrap();
        let check = |e: Event| e.validate(&schema, NOW);
        assert_eq!(check(action("save", NOW, Some("home"))), Ok(()));
        assert_eq!(check(action("saved", NOW, None)), Err(EventError::UnknownAction("saved".into())));
        assert_eq!(check(action("save", NOW, Some("x"))), Err(EventError::UnknownSurface("x".into())));
        assert_eq!(check(action("save", 0, None)), Err(EventError::TooOld(0)));
        assert_eq!(check(action("save", i64::MIN, None)), Err(EventError::TooOld(i64::MIN)));
        assert_eq!(check(action("save", NOW + MAX_FUTURE_MS, None)), Ok(()));
        assert_eq!(check(action("save", i64::MAX, None)), Err(EventError::Future(i64::MAX)));
        use FeatureValue::*;
        assert_eq!(check(item(&[("vector", Vector(vec![0.0; 2])), ("views", Number(1.0))])), Ok(()));
        assert!(matches!(check(item(&[("color", Text("x".into()))])), Err(EventError::UnknownFeature(_))));
        assert!(matches!(check(item(&[("views", Text("x".into()))])), Err(EventError::WrongKind { .. })));
        assert!(matches!(check(item(&[("views", Number(f64::NAN))])), Err(EventError::NotFinite(_))));
        assert!(matches!(
            check(item(&[("vector", Vector(vec![0.0; 3]))])),
            Err(EventError::WrongLength { .. })
        ));
        let three = Texts(vec!["a".into(), "b".into(), "c".into()]);
        assert!(matches!(check(item(&[("topic", three)])), Err(EventError::TooManyValues { .. })));
    }
}
