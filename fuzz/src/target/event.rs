//! Records of the durable log: [`lately_features::codec`] over every kind of event.

use std::sync::LazyLock;

use lately_features::codec::{decode, encode};
use lately_features::event::{Forget, MIN_TIME_MS};
use lately_features::{
    Action, Event, EventId, FeatureValue, Features, IdError, Impression, ImpressionItem, Item, ItemId,
    RequestId, Schema, User, UserId,
};

use super::schema::EXAMPLE;
use super::{Target, Verdict};

pub(super) const TARGET: Target = Target {
    name: "event",
    about: "log records: codec::decode::<Event>, then Event::validate and Features::encode",
    seeds,
    words: &[b"save", b"home", b"vector", b"topic", &[0xff; 10], &[0, 0, 0xc0, 0x7f]],
    check,
};

/// The schema against which decoded events are validated; the same that the schema target starts from.
static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::from_toml(EXAMPLE).unwrap_or_else(|e| panic!("the example schema: {e}")));

const NOW_MS: i64 = 1_700_000_000_000;

fn check(input: &[u8]) -> Verdict {
    let event: Event = match decode(input) {
        Ok(event) => event,
        Err(e) => return Verdict::refused(e),
    };
    // Bytes instead of values: a NaN does not equal itself. The input itself may hold longer varints than needed.
    let bytes = encode(&event).unwrap_or_else(|e| panic!("a decoded event cannot be encoded: {e}"));
    let again: Event = decode(&bytes).unwrap_or_else(|e| panic!("an encoded event cannot be decoded: {e}"));
    assert_eq!(encode(&again).ok(), Some(bytes), "encoding is not stable");

    if let Err(e) = event.validate(&SCHEMA, NOW_MS) {
        // Names from outside stand in the words; a line end among them would look like the end of an excerpt.
        return Verdict::Refused(format!("invalid: {}", e.to_string().escape_debug()));
    }
    assert!(event.time_ms() >= MIN_TIME_MS, "a valid event has a time");
    let features = match &event {
        Event::Item(e) => Features::encode(&SCHEMA.item_features, &e.features),
        Event::User(e) => Features::encode(&SCHEMA.user_features, &e.features),
        _ => return Verdict::Accepted,
    };
    let features = features.unwrap_or_else(|e| panic!("a valid event has features: {e}"));
    assert!(features.embedding.iter().all(|x| x.is_finite()), "embeddings are finite");
    assert!(features.numeric.iter().all(|x| x.is_nan() || x.is_finite()), "numbers are finite or missing");
    Verdict::Accepted
}

fn seeds() -> Vec<Vec<u8>> {
    let events = events().unwrap_or_else(|e| panic!("seed events: {e}"));
    let bytes = |e| encode(e).unwrap_or_else(|e| panic!("seed events: {e}"));
    events.iter().map(bytes).collect()
}

fn events() -> Result<Vec<Event>, IdError> {
    let user = UserId::new("u-1")?;
    let item = ItemId::new("item ü")?;
    let time_ms = NOW_MS;
    let surface = Some("home".to_owned());
    let action = Action {
        event_id: EventId::new("e1")?,
        user: user.clone(),
        item: item.clone(),
        action: "save".into(),
        time_ms,
        request: Some(RequestId::new("r1")?),
        surface: surface.clone(),
    };
    let shown = |item: &ItemId, position| ImpressionItem {
        item: item.clone(),
        position,
        heads: vec![0.5, f32::MIN_POSITIVE],
        score: -1.0,
    };
    let impression = Impression {
        request: RequestId::new("r1")?,
        user: user.clone(),
        surface,
        time_ms,
        watermark: Some(u64::MAX),
        items: vec![shown(&item, 0), shown(&ItemId::new("b")?, 1)],
        model: Some("v1".into()),
        degraded: vec!["no_sequence".into()],
        variant: Some("challenger".into()),
        embedding_version: Some(String::new()),
        propensities: vec![1.0, 0.5],
    };
    let features = [
        ("vector".into(), FeatureValue::Vector(vec![1.0, -1.0])),
        ("topic".into(), FeatureValue::Texts(vec!["birds".into(), "trees".into()])),
        ("views".into(), FeatureValue::Number(1e9)),
    ];
    let country = [("country".into(), FeatureValue::Text("ch".into()))];
    Ok(vec![
        Event::Action(action),
        Event::Impression(impression),
        Event::Item(Item { item, time_ms, features: features.into(), active: true }),
        Event::User(User { user: user.clone(), time_ms, features: country.into() }),
        Event::Forget(Forget { user, time_ms }),
    ])
}
