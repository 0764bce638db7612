//! Measures retrieval over a large catalogue: each source, all of them, the graph against a look at all items, changes, and
//! a whole page.
//!
//! `cargo xtask bench rank-retrieve -- ITEMS` (100,000 unless given; the graph of a million takes many minutes). Items are unit
//! vectors of 64 numbers: 2,000 centres drawn evenly from the sphere, each number of an item's noise normal with a standard
//! deviation of 1/16 (half of the vector's length in all), one of 50 topics a centre; seed 1. A query is the likes of a person: three
//! further vectors of one distribution. The model of the page has random weights at the paper's geometry.

use std::collections::HashSet;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lately_features::event::FeatureValues;
use lately_features::schema::bucket;
use lately_features::{Action, Event, EventId, FeatureValue, Item, ItemId, Schema, User, UserId};
use lately_model::{Manifest, Model, ModelConfig};
use lately_rank::retrieve::{Query, Snapshot, retrieve};
use lately_rank::{
    Diversity, FeedRequest, LoadedModel, ModelSlot, RankConfig, Ranker, RetrieveConfig, Source,
};
use lately_store::{Store, StoreLimits};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

type Failure = Box<dyn Error + Send + Sync>;

const DIM: usize = 64;
const CENTRES: usize = 2_000;
const TOPICS: usize = 50;
const ACTIONS: usize = 20;
const HEADS: usize = 4;
const TOKENS: usize = 100;
const PAGE: usize = 25;
/// Pages of that measurement: scoring a thousand takes most of a second on two busy cores.
const PAGES: usize = 60;
/// Queries of each measurement.
const QUERIES: usize = 500;
/// Nearest that recall counts.
const RECALL: usize = 100;
/// Records appended at a time.
const BATCH: usize = 4_096;

fn schema() -> Result<Schema, Failure> {
    let list = |n, one: fn(usize) -> String| (0..n).map(one).collect::<Vec<_>>().join(", ");
    Ok(Schema::from_toml(&format!(
        "item_embedding = \"vector\"\ntopic_feature = \"topic\"\nfollowed_feature = \"follows\"\n\
         actions = [{}]\nheads = [{}]\n\
         user_features = [{{ kind = \"categorical\", name = \"follows\", buckets = 1024, dim = 8, max_values = 4 }}]\n\
         item_features = [{{ kind = \"embedding\", name = \"vector\", dim = {DIM} }}, \
         {{ kind = \"categorical\", name = \"topic\", buckets = 1024, dim = 8 }}]",
        list(ACTIONS, |i| format!(r#"{{ name = "a{i}", polarity = "positive" }}"#)),
        list(HEADS, |i| format!(r#"{{ name = "h{i}", actions = ["a{i}"] }}"#)),
    ))?)
}

/// A thousand candidates in the shares of the defaults.
fn config() -> RetrieveConfig {
    RetrieveConfig {
        popular: 266,
        followed: 267,
        nearest: 267,
        trending: 66,
        fresh: 67,
        random: 67,
        ..RetrieveConfig::default()
    }
}

/// Items and likes around centres.
struct World {
    centres: Vec<Vec<f32>>,
    rng: ChaCha8Rng,
    now: i64,
}

impl World {
    fn new(now: i64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut normal = || -> f32 { StandardNormal.sample(&mut rng) };
        let centres = (0..CENTRES).map(|_| unit((0..DIM).map(|_| normal()).collect())).collect();
        Self { centres, rng, now }
    }

    /// A vector, and the topic of its centre.
    fn draw(&mut self) -> (Vec<f32>, usize) {
        let centre = self.rng.random_range(0..CENTRES);
        let mut noise = || -> f32 { StandardNormal.sample(&mut self.rng) };
        let vector = self.centres[centre].iter().map(|x| x + noise() / 16.0).collect();
        (unit(vector), centre % TOPICS)
    }

    /// One item in a hundred is of the last hours, the others are old.
    fn item(&mut self, n: usize) -> Result<Event, Failure> {
        let (vector, topic) = self.draw();
        let age_hours = if n.is_multiple_of(100) { 1 } else { 1_000 };
        let features = FeatureValues::from([
            ("vector".into(), FeatureValue::Vector(vector)),
            ("topic".into(), FeatureValue::Text(format!("t{topic}"))),
        ]);
        Ok(Event::Item(Item {
            item: id(n)?,
            time_ms: self.now - age_hours * 3_600_000,
            features,
            active: true,
        }))
    }

    /// A tenth of what people did was in the last minutes, with a few items; the rest is spread over a day and many.
    fn action(&mut self, n: usize, items: usize) -> Result<Event, Failure> {
        let (item, age_ms) = match n.is_multiple_of(10) {
            true => (items / 2 + self.rng.random_range(0..100), self.rng.random_range(0..600_000)),
            false => {
                let skewed = self.rng.random_range(0.0f64..1.0).powi(3);
                ((skewed * items as f64) as usize, self.rng.random_range(0..86_400_000))
            }
        };
        action(&UserId::new(format!("user-{}", n % 10_000))?, n, item, self.now - age_ms)
    }

    fn query(&mut self, seed: u64) -> Query {
        let likes: Vec<_> = (0..3).map(|_| self.draw()).collect();
        let followed = likes.iter().map(|(_, topic)| bucket(&format!("t{topic}"), 1024)).collect();
        Query { followed, likes: likes.into_iter().map(|(vector, _)| vector).collect(), seed }
    }
}

fn unit(vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.into_iter().map(|x| x / length).collect()
}

fn id(n: usize) -> Result<ItemId, Failure> {
    Ok(ItemId::new(format!("item-{n}"))?)
}

fn action(user: &UserId, n: usize, item: usize, time_ms: i64) -> Result<Event, Failure> {
    Ok(Event::Action(Action {
        event_id: EventId::new(format!("event-{n}"))?,
        user: user.clone(),
        item: id(item)?,
        action: format!("a{}", n % ACTIONS),
        time_ms,
        request: None,
        surface: None,
    }))
}

fn report(name: &str, unit: &str, samples: &[f64]) {
    println!("{}", serde_json::json!({ "name": name, "unit": unit, "samples": samples }));
}

/// Also says the 50th and the 99th percentile.
fn report_ms(name: &str, samples: &[f64]) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    eprintln!("{name}: p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99));
    report(name, "ms", samples);
}

fn timed<T>(queries: &[Query], mut one: impl FnMut(&Query) -> T) -> Vec<f64> {
    queries.iter().take(20).for_each(|q| drop(black_box(one(q))));
    let sample = |q: &Query| {
        let start = Instant::now();
        black_box(one(q));
        start.elapsed().as_secs_f64() * 1e3
    };
    queries.iter().map(sample).collect()
}

fn main() -> Result<(), Failure> {
    let items: usize = std::env::args().nth(1).map_or(Ok(100_000), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    let schema = Arc::new(schema()?);
    let store = Arc::new(Store::open(dir.path(), schema.clone(), StoreLimits::default())?);
    let mut world = World::new(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64);
    let user = UserId::new("reader")?;
    fill(&store, &mut world, &user, items)?;
    let slot = Arc::new(ModelSlot::new(schema.clone()));
    let model = Model::new(ModelConfig::paper(), &schema, 1)?;
    let manifest = Manifest::new(&model, &schema, 1);
    slot.swap(LoadedModel::new(model, manifest, "bench"))?;
    let mut config = RankConfig {
        // A busy machine must not turn scoring into the fallback, nor a page leave out what the one before it showed.
        deadline_ms: 5_000,
        exercise_share: 0.0,
        retrieve: config(),
        ..RankConfig::default()
    };
    // Items come before all that people did with them: what is new is known from the whole log.
    config.retrieve.popularity_tail = u64::MAX;
    config.select.shown_seconds = 0;
    config.select.diversity = Diversity::Ssd;
    let start = Instant::now();
    let ranker = Ranker::new(store.clone(), slot, schema, config)?;
    ranker.refresh()?;
    report(
        &format!("log read and first snapshot made, {items} items"),
        "s",
        &[start.elapsed().as_secs_f64()],
    );
    let snapshot = indexed(&ranker, items)?;
    let queries: Vec<Query> = (0..QUERIES).map(|n| world.query(n as u64)).collect();
    sources(&snapshot, &queries, items)?;
    recall(&snapshot, &queries, items);
    drop(snapshot);
    changes(&store, &ranker, &mut world, items)?;
    pages(&ranker, &user, items)
}

/// Items, what people did with them, and a person with a full sequence.
fn fill(store: &Store, world: &mut World, user: &UserId, items: usize) -> Result<(), Failure> {
    for from in (0..items).step_by(BATCH) {
        let batch = (from..items.min(from + BATCH)).map(|n| world.item(n));
        store.append(batch.collect::<Result<_, _>>()?)?;
    }
    // Enough for a hundred to trend.
    let actions = items.max(100_000);
    for from in (0..actions).step_by(BATCH) {
        let batch = (from..actions.min(from + BATCH)).map(|n| world.action(n, items));
        store.append(batch.collect::<Result<_, _>>()?)?;
    }
    let follows = FeatureValue::Texts(vec!["t1".into(), "t2".into(), "t3".into()]);
    let features = FeatureValues::from([("follows".into(), follows)]);
    store.append(vec![Event::User(User { user: user.clone(), time_ms: world.now, features })])?;
    let tokens = (0..TOKENS).map(|n| {
        action(user, 100_000_000 + n, world.rng.random_range(0..items), world.now - n as i64 * 60_000)
    });
    store.append(tokens.collect::<Result<_, _>>()?)?;
    Ok(())
}

/// Waits for the graph, where there is to be one.
fn indexed(ranker: &Ranker, items: usize) -> Result<Arc<Snapshot>, Failure> {
    let start = Instant::now();
    let mut snapshot = ranker.snapshot();
    if items >= RetrieveConfig::default().ann_items {
        while snapshot.indexed() == 0 {
            if start.elapsed() > Duration::from_secs(7_200) {
                return Err("the graph was not made within two hours".into());
            }
            std::thread::sleep(Duration::from_millis(100));
            snapshot = ranker.snapshot();
        }
        report(&format!("graph made by one thread, {items} items"), "s", &[start.elapsed().as_secs_f64()]);
    }
    let (catalogue, graph) = snapshot.bytes();
    report(&format!("catalogue, {items} items"), "bytes/item", &[catalogue as f64 / items as f64]);
    report(&format!("graph, {items} items"), "bytes/item", &[graph as f64 / items as f64]);
    Ok(snapshot)
}

fn sources(snapshot: &Snapshot, queries: &[Query], items: usize) -> Result<(), Failure> {
    let none = RetrieveConfig {
        popular: 0,
        followed: 0,
        nearest: 0,
        trending: 0,
        fresh: 0,
        random: 0,
        ..RetrieveConfig::default()
    };
    let only = [
        (Source::Popular, RetrieveConfig { popular: 80, ..none.clone() }),
        (Source::Followed, RetrieveConfig { followed: 80, ..none.clone() }),
        (Source::Nearest, RetrieveConfig { nearest: 80, ..none.clone() }),
        (Source::Trending, RetrieveConfig { trending: 20, ..none.clone() }),
        (Source::Fresh, RetrieveConfig { fresh: 20, ..none.clone() }),
        (Source::Random, RetrieveConfig { random: 20, ..none }),
    ];
    let nobody = HashSet::new();
    for (source, config) in only {
        let found = retrieve(snapshot, &config, &queries[0], &nobody);
        if found.is_empty() || found.iter().any(|f| f.1 != source) {
            return Err(format!("{}: not {} items of that source alone", source.name(), found.len()).into());
        }
        let samples = timed(queries, |q| retrieve(snapshot, &config, q, &nobody));
        report_ms(&format!("retrieve {} {}, {items} items", found.len(), source.name()), &samples);
    }
    let all = config();
    let found = retrieve(snapshot, &all, &queries[0], &nobody);
    let of: HashSet<&str> = found.iter().map(|f| f.1.name()).collect();
    if found.len() != all.popular + all.followed + all.nearest + all.trending + all.fresh + all.random
        || of.len() < 6
    {
        return Err(format!("{} candidates of {of:?}", found.len()).into());
    }
    let samples = timed(queries, |q| retrieve(snapshot, &all, q, &nobody));
    report_ms(&format!("retrieve {} of six sources, {items} items", found.len()), &samples);
    Ok(())
}

/// Nearest ones alone: how many of the true ones are found, and how long both take.
fn recall(snapshot: &Snapshot, queries: &[Query], items: usize) {
    let exact = snapshot.exact();
    let config = RetrieveConfig {
        popular: 0,
        followed: 0,
        nearest: RECALL,
        trending: 0,
        fresh: 0,
        random: 0,
        ..RetrieveConfig::default()
    };
    let nobody = HashSet::new();
    let one = |q: &Query| Query { likes: vec![q.likes[0].clone()], ..q.clone() };
    let single: Vec<Query> = queries.iter().take(200).map(one).collect();
    let share = |q: &Query| {
        let want: HashSet<ItemId> = retrieve(&exact, &config, q, &nobody).into_iter().map(|f| f.0).collect();
        let got = retrieve(snapshot, &config, q, &nobody);
        got.iter().filter(|f| want.contains(&f.0)).count() as f64 / RECALL as f64
    };
    let shares: Vec<f64> = single.iter().map(share).collect();
    eprintln!("recall at {RECALL}: mean {:.4}", shares.iter().sum::<f64>() / shares.len() as f64);
    report(&format!("recall at {RECALL}, {items} items"), "share", &shares);
    for (how, snapshot) in [("by the graph", snapshot), ("of all", &exact)] {
        for (likes, queries) in [(1, &single[..]), (3, &queries[..200])] {
            let samples = timed(queries, |q| retrieve(snapshot, &config, q, &nobody));
            report_ms(&format!("{RECALL} nearest to {likes} likes {how}, {items} items"), &samples);
        }
    }
}

/// From a changed item in the log to the snapshot that has it.
fn changes(store: &Store, ranker: &Ranker, world: &mut World, items: usize) -> Result<(), Failure> {
    for many in [1, 1_000] {
        let mut samples = Vec::new();
        for _ in 0..20 {
            let changed: Vec<usize> = (0..many).map(|_| world.rng.random_range(0..items)).collect();
            store.append(changed.into_iter().map(|n| world.item(n)).collect::<Result<_, _>>()?)?;
            let start = Instant::now();
            ranker.refresh()?;
            samples.push(start.elapsed().as_secs_f64() * 1e3);
        }
        report_ms(&format!("log read and snapshot made after {many} changed, {items} items"), &samples);
    }
    Ok(())
}

/// From a request to a page: a thousand candidates found, scored and blended.
fn pages(ranker: &Ranker, user: &UserId, items: usize) -> Result<(), Failure> {
    let (mut whole, mut found) = (Vec::new(), Vec::new());
    for n in 0..PAGES + 5 {
        let start = Instant::now();
        let page = ranker.feed(FeedRequest::new(user.clone(), PAGE))?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        if !page.degraded.is_empty() || page.items.len() != PAGE {
            return Err(format!("a page was not whole: {:?}", page.degraded).into());
        }
        if n >= 5 {
            whole.push(took);
            let stage = page.timings_us.iter().find(|t| t.0 == "retrieve").map_or(0, |t| t.1);
            found.push(stage as f64 / 1e3);
        }
    }
    report_ms(&format!("page of {PAGE} out of 1000 retrieved, {items} items"), &whole);
    report_ms(&format!("stage retrieve of that page, {items} items"), &found);
    Ok(())
}
