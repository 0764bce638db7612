//! Measures the store: bulk append, single appends by concurrent callers, opening, reads.
//!
//! `cargo xtask bench store-log [-- DIR]`: in DIR, or else in the folder for temporary files; the disk there is what
//! fsyncs.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lately_features::event::FeatureValues;
use lately_features::{Action, Event, EventId, FeatureValue, Item, ItemId, RequestId, Schema, UserId};
use lately_store::{Store, StoreLimits};

type Failure = Box<dyn Error + Send + Sync>;

const SCHEMA: &str = r#"
    item_embedding = "vector"
    surfaces = ["home"]
    actions = [{ name = "click", polarity = "positive" }, { name = "save", polarity = "positive" }]
    heads = [{ name = "save", actions = ["save"] }]
    item_features = [
        { kind = "embedding", name = "vector", dim = 64 },
        { kind = "categorical", name = "topic", buckets = 256 },
        { kind = "numeric", name = "views", log = true },
    ]
"#;
const USERS: u64 = 27_000;
const ITEMS: u64 = 20_000;
/// Events of one append in bulk.
const BATCH: u64 = 1_000;
/// Appends of one sample.
const APPENDS: u64 = 20;
/// Longest time of one series.
const LIMIT: Duration = Duration::from_secs(8);

fn action(n: u64) -> Result<Event, Failure> {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    Ok(Event::Action(Action {
        event_id: EventId::new(format!("event-{n}"))?,
        user: UserId::new(format!("user-{}", mixed % USERS))?,
        item: ItemId::new(format!("item-{}", mixed / USERS % ITEMS))?,
        action: "click".into(),
        time_ms: 1_700_000_000_000 + n as i64 * 50,
        request: Some(RequestId::new(format!("request-{}", n / 10))?),
        surface: Some("home".into()),
    }))
}

fn item(n: u64) -> Result<Event, Failure> {
    let features = FeatureValues::from([
        ("vector".into(), FeatureValue::Vector((0..64).map(|i| ((n + i) % 17) as f32 / 17.0).collect())),
        ("topic".into(), FeatureValue::Text(format!("topic-{}", n % 50))),
        ("views".into(), FeatureValue::Number(n as f64)),
    ]);
    let item = ItemId::new(format!("item-{n}"))?;
    Ok(Event::Item(Item { item, time_ms: 1_700_000_000_000, features, active: true }))
}

fn report(name: &str, unit: &str, samples: &[f64]) {
    println!("{}", serde_json::json!({ "name": name, "unit": unit, "samples": samples }));
}

fn main() -> Result<(), Failure> {
    let temporary = match std::env::args().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let schema = Arc::new(Schema::from_toml(SCHEMA)?);
    let open = || Store::open(temporary.path(), schema.clone(), StoreLimits::default());
    let store = open()?;
    for from in (0..ITEMS).step_by(BATCH as usize) {
        store.append((from..from + BATCH).map(item).collect::<Result<_, _>>()?)?;
    }
    bulk(&store)?;
    for callers in [1, 16] {
        latency(&store, callers)?;
    }
    let events = store.next_offset();
    drop(store);
    let (mut samples, mut store) = (Vec::new(), None);
    for _ in 0..5 {
        drop(store.take());
        let start = Instant::now();
        store = Some(open()?);
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    report("open, 20,000 items and the log of the series above", "ms", &samples);
    match store {
        Some(store) => reads(&store, events),
        None => Err("the store was not opened".into()),
    }
}

/// Appends of [`BATCH`] actions each by one caller; events are made outside the time.
fn bulk(store: &Store) -> Result<(), Failure> {
    let (begin, mut samples, mut next) = (Instant::now(), Vec::new(), 0);
    while samples.len() < 25 && begin.elapsed() < LIMIT * 2 {
        let batches: Vec<Vec<Event>> = (0..APPENDS)
            .map(|i| (0..BATCH).map(|k| action(next + i * BATCH + k)).collect())
            .collect::<Result<_, _>>()?;
        next += APPENDS * BATCH;
        let start = Instant::now();
        for batch in batches {
            store.append(batch)?;
        }
        samples.push((APPENDS * BATCH) as f64 / start.elapsed().as_secs_f64());
    }
    report("append actions, 1,000 a batch, 1 caller", "events/s", &samples[1..]); // the first warms up
    Ok(())
}

/// Appends one event at a time from several threads; every latency is a sample.
fn latency(store: &Store, callers: u64) -> Result<(), Failure> {
    let each = 4_000 / callers;
    let (before, begin) = (store.stats()?.commits, Instant::now());
    let one = |caller: u64| -> Result<Vec<f64>, Failure> {
        let mut took = Vec::new();
        for i in 0..each {
            let event = action((callers << 50) + (caller << 40) + (1 << 39) + i)?;
            let start = Instant::now();
            store.append(vec![event])?;
            took.push(start.elapsed().as_secs_f64() * 1e6);
            if begin.elapsed() > LIMIT {
                break;
            }
        }
        Ok(took)
    };
    let took = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|c| scope.spawn(move || one(c))).collect();
        threads.into_iter().map(|t| t.join().map_err(|_| "a thread panicked")?).collect::<Result<Vec<_>, _>>()
    })?
    .concat();
    let rate = took.len() as f64 / begin.elapsed().as_secs_f64();
    let commits = store.stats()?.commits - before;
    report(&format!("append 1 action, {callers} callers, latency of each"), "us", &took);
    report(&format!("append 1 action, {callers} callers, in all"), "events/s", &[rate]);
    report(
        &format!("append 1 action, {callers} callers, events an fsync"),
        "events",
        &[took.len() as f64 / commits.max(1) as f64],
    );
    Ok(())
}

/// Sequences of a thousand users, then the whole log.
fn reads(store: &Store, events: u64) -> Result<(), Failure> {
    let users: Vec<_> = (0..1_000).map(|u| UserId::new(format!("user-{u}"))).collect::<Result<_, _>>()?;
    let round = |rounds: usize| -> Result<f64, Failure> {
        let start = Instant::now();
        for user in (0..rounds).flat_map(|_| &users) {
            std::hint::black_box(store.sequence(user)?);
        }
        Ok(start.elapsed().as_secs_f64() * 1e9 / (rounds * users.len()) as f64)
    };
    report("read a sequence from disk, first 1,000 users after opening", "ns", &[round(1)?]);
    let cached = (0..50).map(|_| round(20)).collect::<Result<Vec<_>, _>>()?;
    report("read a cached sequence", "ns", &cached);
    let mut samples = Vec::new();
    for _ in 0..5 {
        let (start, mut from, mut records) = (Instant::now(), 0, 0);
        while from < events {
            let read = store.read(from, 4_096)?;
            records += read.len();
            from = read.last().map_or(events, |(offset, _)| offset + 1);
        }
        samples.push(records as f64 / start.elapsed().as_secs_f64());
    }
    report("read the log from its start", "records/s", &samples);
    Ok(())
}
