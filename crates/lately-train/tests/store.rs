//! The join over a real store: what the store keeps and serves is what the join rebuilds.
#![allow(clippy::unwrap_used)] // a failure is the test's

use std::sync::Arc;

use lately_features::{
    Action, Assembler, Event, EventId, Impression, ImpressionItem, ItemId, RequestId, Schema, UserId, tokens,
};
use lately_store::{Store, StoreLimits};
use lately_train::{JoinOptions, join_store};

const T0: i64 = 1_650_000_000_000;

fn schema() -> Arc<Schema> {
    let text = r#"
        item_embedding = "vector"
        actions = [
            { name = "seen", polarity = "neutral" },
            { name = "save", polarity = "positive", priority = 2 },
            { name = "share", polarity = "positive", sequence = false },
        ]
        heads = [{ name = "save", actions = ["save"] }]
        sequence = { length = 4, stored = 6 }
        item_features = [{ kind = "embedding", name = "vector", dim = 2 }]
    "#;
    Arc::new(Schema::from_toml(text).unwrap())
}

fn action(n: i64, user: &UserId, name: &str, time: i64) -> Event {
    Event::Action(Action {
        event_id: EventId::new(format!("e{n}")).unwrap(),
        user: user.clone(),
        item: ItemId::new(format!("i{}", n % 3)).unwrap(),
        action: name.into(),
        time_ms: T0 + time,
        request: (n % 2 == 0).then(|| RequestId::new(format!("old{}", n / 4)).unwrap()),
        surface: None,
    })
}

#[test]
fn a_row_has_the_tokens_that_the_ranker_had() {
    let (dir, schema) = (tempfile::tempdir().unwrap(), schema());
    let store = Store::open(dir.path(), schema.clone(), StoreLimits::default()).unwrap();
    let user = UserId::new("u").unwrap();
    let assembler = Assembler::new(&schema);
    let mut served = Vec::new();
    for round in 0..40i64 {
        // Times jump back and forth: late events are many.
        let time = |n: i64| 1000 * ((n * 7919) % 50);
        let names = ["seen", "save", "share"];
        let batch =
            (0..3).map(|k| round * 3 + k).map(|n| action(n, &user, names[(n * 5 % 3) as usize], time(n)));
        store.append(batch.collect()).unwrap();
        let watermark = store.next_offset();
        let sequence = store.sequence(&user).unwrap();
        let shown = tokens(&assembler, &sequence, watermark, |id| store.item(id));
        served.push(shown.iter().map(|t| (t.action, t.time_ms)).collect::<Vec<_>>());
        // Two more actions are logged before the impression is.
        let late = (0..2).map(|k| 1000 + round * 2 + k).map(|n| action(n, &user, "save", 60_000 + n));
        store.append(late.collect()).unwrap();
        let items = vec![ImpressionItem::unscored(ItemId::new("i1").unwrap(), 0)];
        let (request, time_ms) = (RequestId::new(format!("r{round}")).unwrap(), T0 + 100_000 + round);
        let shown = Impression::outside(request, user.clone(), None, time_ms, items);
        let shown = Impression { watermark: Some(watermark), ..shown };
        store.append(vec![Event::Impression(shown)]).unwrap();
    }
    let dataset = join_store(&store, &schema, JoinOptions::default()).unwrap();
    let joined: Vec<Vec<_>> =
        dataset.requests.iter().map(|r| r.tokens.iter().map(|t| (t.action, t.time_ms)).collect()).collect();
    assert_eq!(joined, served);

    store.forget(&user, T0 + 200_000).unwrap();
    let dataset = join_store(&store, &schema, JoinOptions::default()).unwrap();
    assert!(dataset.requests.is_empty(), "{:?}", dataset.stats);
}
