//! The store through its public interface: against an oracle, over crashes and damage, and the registry.
#![allow(clippy::unwrap_used)] // clippy's opt-out for tests does not reach the helpers of an integration test

mod crash;
mod damage;
mod hidden;
#[cfg(feature = "s3")]
mod moto;
mod objects;
mod oracle;
mod registry;
mod registry_crash;
mod registry_garbage;
mod schema_change;
mod threads;
mod vectors;

use std::path::Path;
use std::sync::Arc;

use lately_features::event::FeatureValues;
use lately_features::{Action, Event, EventId, FeatureValue, ItemId, RequestId, Schema, UserId};
use lately_store::{Store, StoreLimits};

const SCHEMA: &str = r#"
    item_embedding = "vector"
    surfaces = ["home", "related"]
    actions = [
        { name = "click", polarity = "positive" },
        { name = "save", polarity = "positive" },
        { name = "seen", polarity = "neutral", sequence = false },
    ]
    heads = [{ name = "click", actions = ["click"] }]
    sequence = { length = 4, stored = 6 }
    user_features = [{ kind = "categorical", name = "country", buckets = 16 }]
    item_features = [
        { kind = "embedding", name = "vector", dim = 2 },
        { kind = "numeric", name = "views" },
    ]
"#;

const T0: i64 = 1_700_000_000_000;

fn schema(text: &str) -> Arc<Schema> {
    Arc::new(Schema::from_toml(text).unwrap())
}

fn open(dir: &Path) -> Store {
    Store::open(dir, schema(SCHEMA), StoreLimits::default()).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn item(name: &str) -> ItemId {
    ItemId::new(name).unwrap()
}

fn action(user: &str, event: &str, action: &str, time_ms: i64) -> Event {
    Event::Action(Action {
        event_id: EventId::new(event).unwrap(),
        user: self::user(user),
        item: item(&format!("item of {event}")),
        action: action.into(),
        time_ms,
        request: RequestId::new(format!("request of {event}")).ok(),
        surface: Some("related".into()),
    })
}

fn item_event(name: &str, views: f64, active: bool) -> Event {
    let features = FeatureValues::from([("views".into(), FeatureValue::Number(views))]);
    Event::Item(lately_features::Item { item: item(name), time_ms: T0, features, active })
}

fn user_event(name: &str, country: &str) -> Event {
    let features = FeatureValues::from([("country".into(), FeatureValue::Text(country.into()))]);
    Event::User(lately_features::User { user: user(name), time_ms: T0, features })
}

/// All records of the log.
fn log(store: &Store) -> Vec<(u64, Event)> {
    store.read(0, usize::MAX).unwrap()
}
