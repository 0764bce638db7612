//! Measures whole rankings in process: one user with 100 tokens, 500 candidates, all stages of `Ranker::rank`.
//!
//! `cargo xtask bench rank-path`. The model has random weights at the paper's geometry: 32-wide items, 20 action types, 400
//! further numbers, default configuration. Every ranking is logged, as in production.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lately_features::event::FeatureValues;
use lately_features::{Action, Event, EventId, FeatureValue, Item, ItemId, Schema, UserId};
use lately_model::{Manifest, Model, ModelConfig};
use lately_rank::{LoadedModel, ModelSlot, RankConfig, RankRequest, Ranker};
use lately_store::{Store, StoreLimits};

type Failure = Box<dyn Error + Send + Sync>;

const ITEM: usize = 32;
const NUMBERS: usize = 400;
const ACTIONS: usize = 20;
const HEADS: usize = 4;
const TOKENS: usize = 100;
const CANDIDATES: usize = 500;
/// Time of one series.
const TIME: Duration = Duration::from_secs(10);

fn schema() -> Result<Schema, Failure> {
    let list = |n, one: fn(usize) -> String| (0..n).map(one).collect::<Vec<_>>().join(", ");
    Ok(Schema::from_toml(&format!(
        "item_embedding = \"vector\"\nactions = [{}]\nheads = [{}]\nitem_features = [\
         {{ kind = \"embedding\", name = \"vector\", dim = {ITEM} }}, {}]",
        list(ACTIONS, |i| format!(r#"{{ name = "a{i}", polarity = "positive" }}"#)),
        list(HEADS, |i| format!(r#"{{ name = "h{i}", actions = ["a{i}"] }}"#)),
        list(NUMBERS, |i| format!(r#"{{ kind = "numeric", name = "n{i}" }}"#)),
    ))?)
}

/// Between -0.5 and 0.5, the same for the same n.
fn noise(n: usize) -> f32 {
    let mixed = (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    mixed as f32 / (1u64 << 24) as f32 - 0.5
}

fn item(n: usize, time_ms: i64) -> Result<Event, Failure> {
    let value = |i: usize| noise(n * (ITEM + NUMBERS) + i);
    let mut features: FeatureValues =
        (0..NUMBERS).map(|i| (format!("n{i}"), FeatureValue::Number(f64::from(value(ITEM + i))))).collect();
    features.insert("vector".into(), FeatureValue::Vector((0..ITEM).map(value).collect()));
    Ok(Event::Item(Item { item: ItemId::new(format!("item-{n}"))?, time_ms, features, active: true }))
}

fn action(user: &UserId, n: usize, time_ms: i64) -> Result<Event, Failure> {
    Ok(Event::Action(Action {
        event_id: EventId::new(format!("event-{n}"))?,
        user: user.clone(),
        item: ItemId::new(format!("item-{n}"))?,
        action: format!("a{}", n % ACTIONS),
        time_ms: time_ms - n as i64 * 60_000,
        request: None,
        surface: None,
    }))
}

fn report(name: &str, samples: &[f64]) {
    println!("{}", serde_json::json!({ "name": name, "unit": "ms", "samples": samples }));
}

fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let schema = Arc::new(schema()?);
    let store = Arc::new(Store::open(dir.path(), schema.clone(), StoreLimits::default())?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let user = UserId::new("user")?;
    store.append((0..CANDIDATES).map(|n| item(n, now)).collect::<Result<_, _>>()?)?;
    store.append((0..TOKENS).map(|n| action(&user, n, now)).collect::<Result<_, _>>()?)?;
    let slot = Arc::new(ModelSlot::new(schema.clone()));
    let model = Model::new(ModelConfig::paper(), &schema, 1)?;
    let manifest = Manifest::new(&model, &schema, 1);
    slot.swap(LoadedModel::new(model, manifest, "bench"))?;
    let candidates: Vec<ItemId> =
        (0..CANDIDATES).map(|n| ItemId::new(format!("item-{n}"))).collect::<Result<_, _>>()?;
    for threads in [1, 2] {
        // A busy machine must not turn scoring into the fallback: the deadline is out of the way.
        let config = RankConfig { threads, deadline_ms: 5_000, exercise_share: 0.0, ..RankConfig::default() };
        let ranker = Ranker::new(store.clone(), slot.clone(), schema.clone(), config)?;
        rankings(&ranker, &RankRequest::new(user.clone(), candidates.clone()), threads)?;
    }
    Ok(())
}

fn rankings(ranker: &Ranker, ask: &RankRequest, threads: usize) -> Result<(), Failure> {
    let (mut whole, mut rest) = (Vec::new(), Vec::new());
    let mut one = |keep: bool| -> Result<(), Failure> {
        let start = Instant::now();
        let response = ranker.rank(ask.clone())?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        if !response.degraded.is_empty() || response.items.len() != CANDIDATES {
            return Err(format!("a ranking was not whole: {:?}", response.degraded).into());
        }
        if keep {
            let stage = |name| response.timings_us.iter().find(|t| t.0 == name).map_or(0, |t| t.1);
            whole.push(took);
            rest.push((stage("total") - stage("score")) as f64 / 1e3);
        }
        Ok(())
    };
    (0..3).try_for_each(|_| one(false))?;
    let start = Instant::now();
    while start.elapsed() < TIME {
        one(true)?;
    }
    let what = format!("{TOKENS} tokens, {CANDIDATES} candidates, {threads} scoring threads");
    report(&format!("rank, {what}"), &whole);
    report(&format!("rank without scoring, {what}"), &rest);
    Ok(())
}
