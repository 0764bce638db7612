//! Events for tests.

use std::sync::Arc;

use lately_features::event::{FeatureValues, Forget};
use lately_features::{
    Action, Event, EventId, FeatureValue, Impression, ImpressionItem, Item, ItemId, RequestId, Schema, User,
    UserId,
};

/// Start of the tests' time, ms since 1970 UTC.
pub(crate) const T0: i64 = 1_650_000_000_000;

pub(crate) fn schema() -> Arc<Schema> {
    let text = r#"
        item_embedding = "vector"
        surfaces = ["home"]
        actions = [
            { name = "seen", polarity = "neutral" },
            { name = "click", polarity = "positive", priority = 1, attribution_seconds = 60 },
            { name = "save", polarity = "positive", priority = 2, attribution_seconds = 600 },
            { name = "hide", polarity = "negative", priority = 3 },
            { name = "share", polarity = "positive", sequence = false },
        ]
        heads = [
            { name = "click", actions = ["click"] },
            { name = "save", actions = ["save", "share"] },
            { name = "hide", actions = ["hide"] },
        ]
        sequence = { length = 8, stored = 8 }
        core_users = { feature = "level", values = ["high"] }
        user_features = [{ kind = "categorical", name = "level", buckets = 1000, dim = 2 }]
        item_features = [
            { kind = "embedding", name = "vector", dim = 4 },
            { kind = "numeric", name = "views" },
        ]
    "#;
    Arc::new(Schema::from_toml(text).unwrap())
}

/// `request` empty: the action names none. Its event id is made of all its parts.
pub(crate) fn action(user: &str, item: &str, action: &str, seconds: i64, request: &str) -> Event {
    Event::Action(Action {
        event_id: EventId::new(format!("{user}/{item}/{action}/{seconds}/{request}")).unwrap(),
        user: UserId::new(user).unwrap(),
        item: ItemId::new(item).unwrap(),
        action: action.into(),
        time_ms: T0 + seconds * 1000,
        request: (!request.is_empty()).then(|| RequestId::new(request).unwrap()),
        surface: None,
    })
}

pub(crate) fn impression(request: &str, user: &str, items: &[&str], seconds: i64) -> Impression {
    let item =
        |(position, id): (usize, &&str)| ImpressionItem::unscored(ItemId::new(*id).unwrap(), position as u16);
    let (request, user) = (RequestId::new(request).unwrap(), UserId::new(user).unwrap());
    let items = items.iter().enumerate().map(item).collect();
    Impression::outside(request, user, Some("home".into()), T0 + seconds * 1000, items)
}

pub(crate) fn item(id: &str, vector: [f32; 4], views: f64) -> Event {
    let features = FeatureValues::from([
        ("vector".to_owned(), FeatureValue::Vector(vector.to_vec())),
        ("views".to_owned(), FeatureValue::Number(views)),
    ]);
    Event::Item(Item { item: ItemId::new(id).unwrap(), time_ms: T0, features, active: true })
}

pub(crate) fn user(id: &str, level: &str) -> Event {
    let features = FeatureValues::from([("level".to_owned(), FeatureValue::Text(level.into()))]);
    Event::User(User { user: UserId::new(id).unwrap(), time_ms: T0, features })
}

pub(crate) fn forget(id: &str) -> Event {
    Event::Forget(Forget { user: UserId::new(id).unwrap(), time_ms: T0 })
}
