//! Events, and small worlds of them, for tests.

use std::convert::Infallible;
use std::sync::Arc;

use lately_features::event::{FeatureValues, Forget};
use lately_features::{
    Action, Event, EventId, FeatureValue, Impression, ImpressionItem, Item, ItemId, RequestId, Schema, User,
    UserId,
};
use lately_model::{Encoder, ModelConfig};

use crate::config::TrainConfig;
use crate::dataset::Dataset;
use crate::join::{JoinOptions, join};
use crate::random::Random;

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

/// Items stand at +1 or -1 in their embedding; each user saved two items of one side, which nothing but the sequence
/// tells, and clicks that side with probability 0.9, the other with 0.1.
pub(crate) fn world(users: usize, seed: u64) -> Dataset {
    let mut random = Random::of(seed, &[]);
    let mut log = Vec::new();
    for i in 0..20 {
        let side = if i % 2 == 0 { 1.0 } else { -1.0 };
        let mut noise = || random.normal() as f32 * 0.3;
        log.push(item(
            &format!("i{i}"),
            [side + noise(), noise(), noise(), side + noise()],
            50.0 + f64::from(i),
        ));
    }
    for u in 0..users {
        let (name, side) = (format!("u{u}"), random.below(2));
        for k in 0..2 {
            let (saved, seen) = (2 * random.below(10) + side, random.below(20));
            log.push(action(&name, &format!("i{saved}"), "save", 10 * k, ""));
            log.push(action(&name, &format!("i{seen}"), "seen", 10 * k + 1, ""));
        }
        let mut items: Vec<String> = (0..20).map(|i| format!("i{i}")).collect();
        random.shuffle(&mut items);
        let shown: Vec<&str> = items[..5].iter().map(String::as_str).collect();
        log.push(Event::Impression(impression(&name, &name, &shown, 100)));
        for id in shown {
            let of_side = id[1..].parse::<usize>().unwrap() % 2 == side;
            if random.uniform() < if of_side { 0.9 } else { 0.1 } {
                log.push(action(&name, id, "click", 110, &name));
            }
        }
    }
    let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    join(&schema(), log, JoinOptions::default()).unwrap()
}

pub(crate) fn small(encoder: Encoder) -> ModelConfig {
    ModelConfig {
        encoder,
        layers: 1,
        ffn: 8,
        first_k: 4,
        action_dim: 4,
        cross_layers: 1,
        cross_width: 16,
        hidden: vec![16],
        ..ModelConfig::default()
    }
}

pub(crate) fn quick() -> TrainConfig {
    TrainConfig {
        epochs: 8,
        batch_rows: 64,
        learning_rate: 1e-2,
        window_hours: 0.01, // 36 s: tokens are 90 to 100 s old, so that it hides none
        ..TrainConfig::default()
    }
}
