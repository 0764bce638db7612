use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use lately_features::event::FeatureValues;
use lately_features::schema::bucket;
use lately_features::{Event, FeatureValue, Impression, ImpressionItem, Item, RequestId, Schema, UserId};
use lately_store::{Store, StoreLimits};
use rand_distr::{Distribution, StandardNormal};
use tempfile::TempDir;

use super::*;
use crate::ranker::tests::{action, item_id, schema};

const HOUR: i64 = 3_600_000;
const NOW: i64 = 1_700_000_000_000;

/// A store, and a keeper that reads its log.
struct Shelf {
    store: Store,
    keeper: Keeper,
    popularity: Popularity,
    cursor: u64,
    _dir: TempDir,
}

impl Shelf {
    fn new(schema: Schema, config: &RetrieveConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(&schema, Topics::new(&schema), config);
        let popularity = Popularity::new(&schema, config.half_life_hours, config.popularity_items);
        let store = Store::open(dir.path(), Arc::new(schema), StoreLimits::default()).unwrap();
        Self { store, keeper, popularity, cursor: 0, _dir: dir }
    }

    fn append(&mut self, events: Vec<Event>) {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            self.store.append(events.by_ref().take(4_096).collect()).unwrap();
        }
        while self.cursor < self.store.next_offset() {
            for (offset, event) in self.store.read(self.cursor, 4_096).unwrap() {
                self.keeper.observe(&event);
                self.popularity.observe(&event);
                self.cursor = offset + 1;
            }
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        self.keeper.snapshot(&self.store, &self.popularity)
    }

    /// The snapshot after which nothing is indexed any more.
    fn settled(&mut self) -> Snapshot {
        let start = Instant::now();
        let mut snapshot = self.snapshot();
        while self.keeper.is_indexing() {
            assert!(start.elapsed() < Duration::from_secs(300), "the graph was not made in time");
            std::thread::sleep(Duration::from_millis(10));
            snapshot = self.snapshot();
        }
        snapshot
    }
}

fn item(id: &str, topic: &str, vector: Vec<f32>, time_ms: i64, active: bool) -> Event {
    let features = FeatureValues::from([
        ("topic".into(), FeatureValue::Text(topic.into())),
        ("vector".into(), FeatureValue::Vector(vector)),
    ]);
    Event::Item(Item { item: item_id(id), time_ms, features, active })
}

/// Embeddings around a circle.
fn around(i: usize, time_ms: i64) -> Event {
    let angle = i as f32 * 0.1;
    item(&format!("i{i:02}"), &format!("t{}", i % 3), vec![angle.cos(), angle.sin()], time_ms, true)
}

fn shown(id: &str, request: usize) -> Event {
    let request = RequestId::new(format!("r{request}")).unwrap();
    let items = vec![ImpressionItem::unscored(item_id(id), 0)];
    Event::Impression(Impression::outside(request, UserId::new("u").unwrap(), None, NOW, items))
}

fn config() -> RetrieveConfig {
    RetrieveConfig {
        popular: 4,
        followed: 4,
        nearest: 4,
        trending: 4,
        fresh: 4,
        random: 4,
        ..RetrieveConfig::default()
    }
}

/// 60 items of three topics: i05 was saved a day ago, i33 is clicked right now, n0 to n9 are new.
fn shelf() -> Shelf {
    let mut shelf = Shelf::new(schema(), &config());
    let mut events: Vec<Event> = (0..60).map(|i| around(i, NOW - 100 * HOUR)).collect();
    events.extend((0..40).map(|u| action(&format!("u{u}"), "i05", "save", NOW - 24 * HOUR)));
    events.extend((0..200).map(|u| {
        action(&format!("u{u}"), &format!("i{:02}", u % 60), "click", NOW - 10 * HOUR + u * HOUR / 20)
    }));
    events.extend((0..30).map(|u| action(&format!("v{u}"), "i33", "click", NOW)));
    events.push(action("u", "gone", "save", NOW));
    events
        .extend((0..10).map(|i| item(&format!("n{i}"), "new", vec![-1.0, 0.1 * i as f32], NOW - HOUR, true)));
    shelf.append(events);
    shelf
}

fn query(seed: u64) -> Query {
    Query { followed: vec![bucket("t1", 32)], likes: vec![vec![2.0f32.cos(), 2.0f32.sin()]], seed }
}

fn of(found: &[(ItemId, Source)], source: Source) -> Vec<&str> {
    found.iter().filter(|f| f.1 == source).map(|f| f.0.as_str()).collect()
}

#[test]
fn every_source_gives_its_share_and_no_item_comes_twice() {
    let snapshot = shelf().snapshot();
    let exclude = HashSet::from([item_id("i20")]);
    let found = retrieve(&snapshot, &config(), &query(7), &exclude);
    assert_eq!(of(&found, Source::Nearest), ["i19", "i21", "i18", "i22"], "i20 itself is excluded");
    let followed = of(&found, Source::Followed);
    assert_eq!(followed.len(), 4);
    assert!(followed.iter().all(|i| i[1..].parse::<u32>().unwrap() % 3 == 1), "{followed:?}");
    assert_eq!(of(&found, Source::Trending), ["i33"], "it was popular yesterday, it is the other now");
    let fresh = of(&found, Source::Fresh);
    assert!(fresh.len() == 4 && fresh.iter().all(|i| i.starts_with('n')), "{fresh:?}");
    let popular = of(&found, Source::Popular);
    assert_eq!((popular[0], popular.len()), ("i05", 7), "three places that nothing trends for");
    assert_eq!((found.len(), of(&found, Source::Random).len()), (24, 4));
    assert_eq!(found.iter().map(|f| &f.0).collect::<HashSet<_>>().len(), 24);
    assert_eq!(found, retrieve(&snapshot, &config(), &query(7), &exclude), "the same seed, the same feed");
    assert_ne!(found, retrieve(&snapshot, &config(), &query(8), &exclude));
}

#[test]
fn what_is_excluded_comes_from_no_source() {
    let snapshot = shelf().snapshot();
    let all = RetrieveConfig { random: 500, ..config() };
    let exclude: HashSet<ItemId> = ["i05", "i33", "n1", "n2", "i19", "i20", "i01"].map(item_id).into();
    for seed in 0..50 {
        let found = retrieve(&snapshot, &all, &query(seed), &exclude);
        assert_eq!(found.len(), 63, "all the others");
        assert!(found.iter().all(|(id, _)| !exclude.contains(id)));
    }
}

#[test]
fn a_stranger_gets_all_but_nearest_and_followed_and_an_empty_catalogue_nothing() {
    let snapshot = shelf().snapshot();
    let found = retrieve(&snapshot, &config(), &Query::default(), &HashSet::new());
    let sources = [Source::Nearest, Source::Followed, Source::Trending, Source::Fresh, Source::Popular];
    assert_eq!(sources.map(|s| of(&found, s).len()), [0, 0, 1, 4, 15]);
    assert_eq!(found.len(), 24);
    let none = Snapshot::default();
    assert!(retrieve(&none, &config(), &query(1), &HashSet::new()).is_empty());
}

#[test]
fn one_click_does_not_trend_a_burst_does_and_decays() {
    let mut shelf = Shelf::new(schema(), &config());
    let mut events: Vec<Event> = (0..60).map(|i| around(i, NOW - 100 * HOUR)).collect();
    // Everybody's usual: i00 60 an hour, i01 one in two hours.
    let usual = |item: &'static str, every: i64| {
        (0..72 * HOUR / every).map(move |n| action(&format!("u{n}"), item, "save", NOW - n * every))
    };
    events.extend(usual("i00", HOUR / 60));
    events.extend(usual("i01", 2 * HOUR));
    shelf.append(events);
    let trends = |shelf: &mut Shelf| {
        let snapshot = shelf.snapshot();
        snapshot.trending.iter().map(|p| snapshot.catalogue.id(*p).unwrap().to_string()).collect::<Vec<_>>()
    };
    assert!(trends(&mut shelf).is_empty(), "what is as usual does not trend, however popular");
    shelf.append(vec![action("one", "i07", "click", NOW)]);
    assert!(trends(&mut shelf).is_empty(), "nor does one click");
    shelf.append((0..25).map(|n| action(&format!("b{n}"), "i07", "click", NOW)).collect());
    assert_eq!(trends(&mut shelf), ["i07"]);
    shelf.append((0..50).map(|n| action(&format!("c{n}"), "i08", "click", NOW)).collect());
    shelf.append((0..50).map(|n| action(&format!("c{n}"), "i09", "hide", NOW)).collect());
    assert_eq!(trends(&mut shelf), ["i08", "i07"], "strongest first, and only what is positive");
    // Four short half-lives later, with the usual going on.
    let later = (0..240).map(|n| action(&format!("d{n}"), "i00", "save", NOW + n * HOUR / 60));
    shelf.append(later.collect());
    assert!(trends(&mut shelf).is_empty(), "a burst that is over does not");
}

#[test]
fn new_items_come_by_chance_those_shown_least_first_and_for_their_time_only() {
    let mut shelf = Shelf::new(schema(), &config());
    shelf.append((0..60).map(|i| around(i, NOW - 100 * HOUR)).collect());
    shelf.snapshot();
    let new = |i: usize| item(&format!("n{i:02}"), "new", vec![1.0, 0.0], NOW - HOUR, true);
    shelf.append((0..40).map(new).collect());
    // The half of them was shown, and an old item is sent again.
    let seen = (0..40)
        .filter(|i| i % 2 == 0)
        .flat_map(|i| (0..5).map(move |n| shown(&format!("n{i:02}"), i * 5 + n)));
    shelf.append(seen.chain([around(3, NOW)]).collect());
    let snapshot = shelf.snapshot();
    assert_eq!(snapshot.fresh.len(), 40, "what is sent again is not new");
    let mut unseen = 0;
    for seed in 0..100 {
        let found = retrieve(&snapshot, &config(), &Query { seed, ..Query::default() }, &HashSet::new());
        let fresh = of(&found, Source::Fresh);
        assert_eq!(fresh.len(), 4);
        unseen += fresh.iter().filter(|i| i[1..].parse::<u32>().unwrap() % 2 == 1).count();
    }
    assert!(unseen >= 390, "{unseen} of 400: of 16 drawn 8 are unseen, fewer than 4 seldom");
    shelf.append(vec![item("n01", "new", vec![1.0, 0.0], NOW, false)]);
    assert_eq!(shelf.snapshot().fresh.len(), 39, "not what is no longer active");
    shelf.append(vec![action("u", "i00", "click", NOW + 23 * HOUR + 1)]);
    assert!(shelf.snapshot().fresh.is_empty(), "a day after its first record nothing is new");
}

#[test]
fn changes_item_by_item_make_the_catalogue_that_a_start_makes() {
    let mut shelf = shelf();
    shelf.snapshot();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for round in 0..40 {
        let before = shelf.snapshot();
        let former: Vec<_> = (0..80).map(|p| before.catalogue.id(p).cloned()).collect();
        let change = |_| {
            let id = format!("i{:02}", rng.random_range(0..70));
            let vector = vec![rng.random_range(-2i32..3) as f32, rng.random_range(-2i32..3) as f32];
            item(
                &id,
                &format!("t{}", rng.random_range(0..4)),
                vector,
                NOW + round,
                rng.random_range(0..3) > 0,
            )
        };
        shelf.append((0..20).map(change).collect());
        let after = shelf.snapshot();
        let still: Vec<_> = (0..80).map(|p| before.catalogue.id(p).cloned()).collect();
        assert_eq!(still, former, "a snapshot does not change");
        let mut anew = Keeper::new(shelf.store.schema(), Topics::new(shelf.store.schema()), &config());
        let anew = anew.snapshot(&shelf.store, &shelf.popularity);
        assert_eq!(view(&after), view(&anew), "round {round}");
        let changed: HashSet<u32> =
            (0..80).filter(|p| after.catalogue.id(*p) != before.catalogue.id(*p)).collect();
        assert!(changed.len() <= 20, "only what came or went has another place");
    }
}

/// All that a catalogue says, by ids.
fn view(snapshot: &Snapshot) -> (usize, usize, Vec<BTreeSet<String>>, BTreeSet<String>) {
    let catalogue = &snapshot.catalogue;
    let id = |p: &u32| catalogue.id(*p).unwrap().to_string();
    let topics =
        ["t0", "t1", "t2", "t3", "new"].map(|t| catalogue.of_topic(bucket(t, 32)).iter().map(id).collect());
    let units = catalogue.units().map(|(p, unit)| format!("{} {unit:?}", id(&p))).collect();
    (catalogue.active(), catalogue.embedded(), topics.into(), units)
}

const DIM: usize = 32;

fn wide() -> Schema {
    let small = lately_features::Schema::from_toml(&format!(
        "item_embedding = \"vector\"\ntopic_feature = \"topic\"\n\
         actions = [{{ name = \"save\", polarity = \"positive\" }}]\nheads = [{{ name = \"save\", actions = [\"save\"] }}]\n\
         item_features = [{{ kind = \"embedding\", name = \"vector\", dim = {DIM} }}, \
         {{ kind = \"categorical\", name = \"topic\", buckets = 32, dim = 2 }}]"
    ));
    small.unwrap()
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    StandardNormal.sample(rng)
}

/// Vectors around 200 centres, with as much noise as the centres are long.
fn clustered(n: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let centres: Vec<Vec<f32>> = (0..200).map(|_| (0..DIM).map(|_| normal(&mut rng)).collect()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed + 1);
    (0..n)
        .map(|_| {
            let centre = &centres[rng.random_range(0..centres.len())];
            centre.iter().map(|x| x + normal(&mut rng)).collect()
        })
        .collect()
}

fn named(i: usize) -> String {
    format!("i{i:05}")
}

/// A shelf with a graph of `n` items.
fn indexed(n: usize, ann_items: usize) -> (Shelf, Vec<Vec<f32>>) {
    let config = RetrieveConfig { ann_items, ..config() };
    let mut shelf = Shelf::new(wide(), &config);
    let vectors = clustered(n + 200, 1);
    let put = |(i, v): (usize, &Vec<f32>)| item(&named(i), "t", v.clone(), NOW, true);
    shelf.append(vectors[..n].iter().enumerate().map(put).collect());
    let snapshot = shelf.settled();
    assert_eq!(snapshot.indexed(), n);
    (shelf, vectors)
}

fn near(snapshot: &Snapshot, vector: &[f32], count: usize) -> Vec<u32> {
    let query = Query { likes: vec![vector.to_vec()], ..Query::default() };
    super::nearest(snapshot, count, &query).swap_remove(0)
}

#[test]
fn the_graph_finds_the_nearest_of_twenty_thousand() {
    let (mut shelf, vectors) = indexed(20_000, 1_000);
    let snapshot = shelf.snapshot();
    let exact = snapshot.exact();
    assert_eq!((snapshot.indexed(), exact.indexed()), (20_000, 0));
    let mut found = 0;
    for query in &vectors[20_000..20_100] {
        let want: HashSet<u32> = near(&exact, query, 100).into_iter().collect();
        let got = near(&snapshot, query, 100);
        assert_eq!(got, near(&snapshot, query, 100), "the same each time");
        found += got.iter().filter(|p| want.contains(p)).count();
    }
    let recall = found as f64 / 1e4;
    assert!(recall >= 0.95, "recall at 100 is {recall}");
    // In order, and by the catalogue's cosine.
    let cosine =
        |p: &u32| scan::dot(snapshot.catalogue.unit(*p).unwrap(), &unit(&vectors[0]).collect::<Vec<_>>());
    let got = near(&snapshot, &vectors[0], 50);
    assert!(got.is_sorted_by(|a, b| cosine(a) >= cosine(b)) && cosine(&got[0]) > 0.999);
}

#[test]
fn what_was_removed_or_moved_is_never_found_where_it_was() {
    let (mut shelf, vectors) = indexed(5_000, 5_000);
    let finds = |snapshot: &Snapshot, vector: &[f32], i: usize| {
        near(snapshot, vector, 20).iter().any(|p| snapshot.catalogue.id(*p).unwrap().as_str() == named(i))
    };
    let check = |snapshot: &Snapshot, removed: usize| {
        for i in (0..removed).step_by(7) {
            assert!(!finds(snapshot, &vectors[i], i), "{i} was removed");
        }
        for i in 3_000..3_100 {
            assert!(!finds(snapshot, &vectors[i], i), "{i} is elsewhere");
            assert!(finds(snapshot, &vectors[i].iter().map(|x| -x).collect::<Vec<_>>(), i), "{i} is here");
            assert!(finds(snapshot, &vectors[i + 2_000], i + 2_000), "{i} is new");
        }
    };
    let gone = |i: usize| item(&named(i), "t", vectors[i].clone(), NOW, false);
    let turned = |i: usize| item(&named(i), "t", vectors[i].iter().map(|x| -x).collect(), NOW, true);
    let new = |i: usize| item(&named(i), "t", vectors[i].clone(), NOW, true);
    shelf.append(
        (0..300).map(gone).chain((3_000..3_100).map(turned)).chain((5_000..5_100).map(new)).collect(),
    );
    let snapshot = shelf.snapshot();
    assert_eq!((snapshot.items(), snapshot.indexed()), (4_800, 5_000), "too few changes for another graph");
    check(&snapshot, 300);
    // 1,100 places have changed: the copy of the graph is brought up to date, as no quarter of it was replaced.
    shelf.append((300..1_000).map(gone).chain((5_100..5_200).map(new)).collect());
    shelf.append(
        (5_000..5_200).map(|i| item(&named(i + 1_000), "t", vectors[i].clone(), NOW, true)).collect(),
    );
    let snapshot = shelf.settled();
    assert_eq!((snapshot.items(), snapshot.indexed()), (4_400, 4_400));
    check(&snapshot, 1_000);
    // Many more: it is made anew; and of fewer than half of `ann_items` there is none.
    shelf.append((1_000..2_800).map(gone).collect());
    let snapshot = shelf.settled();
    assert_eq!((snapshot.items(), snapshot.indexed()), (2_600, 2_600));
    check(&snapshot, 2_800);
    shelf.append((2_800..3_000).chain(3_100..4_600).map(gone).collect());
    let snapshot = shelf.settled();
    assert_eq!((snapshot.items(), snapshot.indexed()), (900, 0));
    check(&snapshot, 3_000);
}

#[test]
fn readers_get_whole_answers_while_the_catalogue_changes() {
    let (mut shelf, vectors) = indexed(3_000, 1_000);
    let shared = ArcSwap::from_pointee(shelf.snapshot());
    let stop = AtomicBool::new(false);
    let config = RetrieveConfig { nearest: 50, random: 50, ..config() };
    std::thread::scope(|scope| {
        let read = |seed: u64| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) || reads == 0 {
                let snapshot = shared.load_full();
                let like = vectors[(seed as usize * 131 + reads) % 3_000].clone();
                let query = Query { likes: vec![like], followed: Vec::new(), seed: seed + reads as u64 };
                let found = retrieve(&snapshot, &config, &query, &HashSet::new());
                assert_eq!(found, retrieve(&snapshot, &config, &query, &HashSet::new()));
                assert_eq!(found.iter().map(|f| &f.0).collect::<HashSet<_>>().len(), config.total());
                assert_eq!(of(&found, Source::Nearest).len(), 50);
                reads += 1;
            }
            reads
        };
        let readers: Vec<_> = (0..3).map(|n| scope.spawn(move || read(n * 1_000_000))).collect();
        for round in 0..12 {
            let change =
                |i: usize| item(&named(i), "t", vectors[i + 1].clone(), NOW, !(i + round).is_multiple_of(3));
            shelf.append((round * 100..round * 100 + 200).map(change).collect());
            shared.store(Arc::new(shelf.snapshot()));
        }
        shared.store(Arc::new(shelf.settled()));
        stop.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().all(|r| r.join().unwrap() > 0));
    });
}
