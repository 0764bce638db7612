//! The lake over a real store: no row holds what was not known when its request was ranked.
#![allow(clippy::unwrap_used)] // a failure is the test's

use std::sync::Arc;

use lately_features::event::FeatureValues;
use lately_features::{
    Action, Event, EventId, FeatureValue, Impression, ImpressionItem, Item, ItemId, RequestId, Schema, User,
    UserId,
};
use lately_store::objects::Directory;
use lately_store::{Store, StoreLimits};
use lately_train::{Dataset, DateRange, JoinOptions, Lake, LakeConfig, join_store};

const T0: i64 = 1_650_000_000_000;
const ITEMS: usize = 40;
const REQUESTS: usize = 400;

fn schema() -> Arc<Schema> {
    let text = r#"
        item_embedding = "vector"
        actions = [{ name = "save", polarity = "positive" }]
        heads = [{ name = "save", actions = ["save"] }]
        user_features = [{ kind = "numeric", name = "canary" }]
        item_features = [
            { kind = "embedding", name = "vector", dim = 2 },
            { kind = "numeric", name = "canary" },
        ]
    "#;
    Arc::new(Schema::from_toml(text).unwrap())
}

fn canary(label: bool) -> FeatureValues {
    FeatureValues::from([("canary".to_owned(), FeatureValue::Number(f64::from(u8::from(label))))])
}

fn item(n: usize, time_ms: i64, label: bool) -> Event {
    let item = ItemId::new(format!("i{n}")).unwrap();
    Event::Item(Item { item, time_ms, features: canary(label), active: true })
}

fn user(id: &UserId, time_ms: i64, label: bool) -> Event {
    Event::User(User { user: id.clone(), time_ms, features: canary(label) })
}

/// Requests of one user each, of four items, of which any is saved by a draw. A millisecond after each was ranked, the
/// items and the user get their label as a feature; then the impression is logged, by the watermark of its ranking or,
/// for `leak`, as if it had been ranked when it was logged.
fn log(store: &Store, leak: bool) {
    store.append((0..ITEMS).map(|n| item(n, T0, false)).collect()).unwrap();
    let mut state = 7u64;
    let mut draw = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 40
    };
    for n in 0..REQUESTS {
        let who = UserId::new(format!("u{}", n % 20)).unwrap();
        let time_ms = T0 + 60_000 * n as i64;
        let watermark = store.next_offset();
        let shown: Vec<usize> = (0..4).map(|k| (4 * n + k) % ITEMS).collect();
        let saved: Vec<bool> = shown.iter().map(|_| draw() % 3 == 0).collect();
        let any = saved.iter().any(|s| *s);
        let labels = shown.iter().zip(&saved).map(|(n, label)| item(*n, time_ms + 1, *label));
        store.append(labels.chain([user(&who, time_ms + 1, any)]).collect()).unwrap();
        let request = RequestId::new(format!("r{n}")).unwrap();
        let id = |n: &usize| ItemId::new(format!("i{n}")).unwrap();
        let items = (0..).zip(&shown).map(|(at, n)| ImpressionItem::unscored(id(n), at)).collect();
        let shown_now = Impression::outside(request.clone(), who.clone(), None, time_ms, items);
        let watermark = (!leak).then_some(watermark);
        store.append(vec![Event::Impression(Impression { watermark, ..shown_now })]).unwrap();
        let action = |(k, n): (usize, &usize)| {
            Event::Action(Action {
                event_id: EventId::new(format!("e{time_ms}-{k}")).unwrap(),
                user: who.clone(),
                item: id(n),
                action: "save".into(),
                time_ms: time_ms + 1_000,
                request: Some(request.clone()),
                surface: None,
            })
        };
        let saves = shown.iter().enumerate().filter(|(k, _)| saved[*k]).map(action).collect::<Vec<_>>();
        if !saves.is_empty() {
            store.append(saves).unwrap();
        }
    }
}

/// AUC of a feature of the candidate, and of one of the user against whether anything was saved.
fn aucs(d: &Dataset) -> [f64; 2] {
    let number = |f: &Option<Arc<lately_features::Features>>| {
        f.as_ref().map_or(0.0, |f| if f.numeric[0].is_nan() { 0.0 } else { f.numeric[0] })
    };
    let candidates = d.requests.iter().flat_map(|r| &r.candidates);
    let items: Vec<_> = candidates.map(|c| (number(&c.features), c.observed != 0)).collect();
    let any = |r: &lately_train::dataset::Request| r.candidates.iter().any(|c| c.observed != 0);
    let users: Vec<_> = d.requests.iter().map(|r| (number(&r.features), any(r))).collect();
    [auc(&items), auc(&users)]
}

/// Share of the pairs that the feature orders as the labels do, ties counting half.
fn auc(rows: &[(f32, bool)]) -> f64 {
    let of = |label: bool| rows.iter().filter(move |r| r.1 == label).map(|r| r.0);
    let mut sum = 0.0;
    for positive in of(true) {
        for negative in of(false) {
            sum += if positive > negative {
                1.0
            } else if positive == negative {
                0.5
            } else {
                0.0
            };
        }
    }
    sum / (of(true).count() * of(false).count()) as f64
}

fn lake(dir: &std::path::Path, store: &Store, schema: &Arc<Schema>) -> Dataset {
    let objects = Arc::new(Directory::open(&dir.join("lake")).unwrap());
    let mut lake = Lake::open(objects, schema, &LakeConfig::default()).unwrap();
    lake.advance(&mut |from| store.read(from, 64), T0 + 1_000_000_000).unwrap();
    lake.maintain(T0 + 1_000_000_000).unwrap();
    lake.read(DateRange::ALL, None).unwrap()
}

#[test]
fn a_label_that_becomes_a_feature_after_the_request_says_nothing_in_its_row() {
    let schema = schema();
    for leak in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), schema.clone(), StoreLimits::default()).unwrap();
        log(&store, leak);
        let dataset = lake(dir.path(), &store, &schema);
        let joined = join_store(&store, &schema, JoinOptions::default()).unwrap();
        assert_eq!(dataset.all().fingerprint(), joined.all().fingerprint());
        let aucs = aucs(&dataset);
        // 1,600 rows and 400 requests: two standard errors are 0.03 and 0.07.
        let bounds = [0.03, 0.07];
        for (auc, bound) in aucs.into_iter().zip(bounds) {
            match leak {
                false => assert!((auc - 0.5).abs() < bound, "{aucs:?}"),
                true => assert!(auc > 0.99, "the canary must sing where there is a leak: {aucs:?}"),
            }
        }
    }
}
