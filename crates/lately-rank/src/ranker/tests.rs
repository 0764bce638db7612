use super::*;
use crate::clock::now_ms;
use crate::config::RankPrecision;
use crate::error::Shed;
use crate::model_slot::LoadedModel;
use crate::retrieve::RetrieveConfig;
use crate::value_model::ValueModelConfig;
use lately_features::event::FeatureValues;
use lately_features::{Action, Event, EventId, FeatureValue, Item, User};
use lately_model::{Golden, Manifest, Model, ModelConfig, checkpoint};
use lately_store::StoreLimits;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

mod artifacts;
mod canary;
mod exercise;
mod experiments;
mod ladder;
mod shadow;
mod swap;

const SCHEMA: &str = r#"
    item_embedding = "vector"
    surfaces = ["home"]
    topic_feature = "topic"
    followed_feature = "follows"
    actions = [
        { name = "click", polarity = "positive" },
        { name = "save", polarity = "positive", priority = 1 },
        { name = "hide", polarity = "negative", priority = 2 },
    ]
    heads = [
        { name = "click", actions = ["click"] },
        { name = "save", actions = ["save"] },
        { name = "hide", actions = ["hide"] },
    ]
    sequence = { length = 8, stored = 16 }
    user_features = [{ kind = "categorical", name = "follows", buckets = 32, dim = 2, max_values = 4 }]
    item_features = [
        { kind = "embedding", name = "vector", dim = 2 },
        { kind = "categorical", name = "topic", buckets = 32, dim = 3 },
    ]
"#;

pub(crate) fn schema() -> Schema {
    Schema::from_toml(SCHEMA).unwrap()
}

pub(crate) fn item_id(id: &str) -> ItemId {
    ItemId::new(id).unwrap()
}

pub(crate) fn action(user: &str, item: &str, name: &str, time_ms: i64) -> Event {
    Event::Action(Action {
        event_id: EventId::new(format!("{user}/{item}/{name}/{time_ms}")).unwrap(),
        user: UserId::new(user).unwrap(),
        item: item_id(item),
        action: name.into(),
        time_ms,
        request: None,
        surface: None,
    })
}

fn values(topic: &str, vector: [f32; 2]) -> FeatureValues {
    FeatureValues::from([
        ("topic".into(), FeatureValue::Text(topic.into())),
        ("vector".into(), FeatureValue::Vector(vector.into())),
    ])
}

pub(crate) fn item_features(topic: &str, vector: [f32; 2]) -> Features {
    Features::encode(&schema().item_features, &values(topic, vector)).unwrap()
}

/// A store with 40 items of 4 topics, and a ranker over it.
struct House {
    ranker: Ranker,
    store: Arc<Store>,
    slot: Arc<ModelSlot>,
    _dir: TempDir,
}

pub(crate) fn model(seed: u64) -> LoadedModel {
    let schema = schema();
    let config = ModelConfig { hidden: vec![16], ..ModelConfig::default() };
    let model = Model::new(config, &schema, seed).unwrap();
    let manifest = Manifest::new(&model, &schema, seed);
    LoadedModel::new(model, manifest, format!("m{seed}"))
}

fn house(config: RankConfig) -> House {
    let dir = tempfile::tempdir().unwrap();
    let schema = Arc::new(schema());
    let store = Arc::new(Store::open(dir.path(), schema.clone(), StoreLimits::default()).unwrap());
    let item = |i: usize| {
        let angle = i as f32 * 0.15;
        Event::Item(Item {
            item: item_id(&format!("i{i:02}")),
            time_ms: now_ms(),
            features: values(&format!("t{}", i % 4), [angle.cos(), angle.sin()]),
            active: true,
        })
    };
    store.append((0..40).map(item).collect()).unwrap();
    let slot = Arc::new(ModelSlot::new(schema.clone()).with_precision(config.precision));
    let ranker = Ranker::new(store.clone(), slot.clone(), schema, config).unwrap();
    ranker.refresh().unwrap();
    House { ranker, store, slot, _dir: dir }
}

/// Unit tests do not measure speed, and want no rung that they did not ask for.
fn patient() -> RankConfig {
    RankConfig { threads: 2, deadline_ms: 5_000, exercise_share: 0.0, ..RankConfig::default() }
}

fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

fn candidates(n: usize) -> Vec<ItemId> {
    (0..n).map(|i| item_id(&format!("i{i:02}"))).collect()
}

fn feed(house: &House, limit: usize) -> RankResponse {
    let ask = FeedRequest { surface: Some("home".into()), ..FeedRequest::new(user("u"), limit) };
    house.ranker.feed(ask).unwrap()
}

fn names(response: &RankResponse) -> Vec<&str> {
    response.items.iter().map(|i| i.item.as_str()).collect()
}

#[test]
fn an_untrained_model_ranks_all_candidates_known_or_not() {
    let house = house(patient());
    house.slot.swap(model(1)).unwrap();
    let mut ask = RankRequest::new(user("u"), candidates(50)); // i40 to i49 are unknown
    ask.candidates.push(item_id("i00"));
    ask.explain = true;
    let response = house.ranker.rank(ask).unwrap();
    let mut items = names(&response);
    items.sort_unstable();
    assert_eq!(items, candidates(50).iter().map(ItemId::as_str).collect::<Vec<_>>());
    assert_eq!(response.dropped, [Dropped { item: item_id("i00"), reason: Reason::Duplicate }]);
    assert!(response.items.is_sorted_by(|a, b| a.score >= b.score));
    for (at, item) in response.items.iter().enumerate() {
        assert_eq!((usize::from(item.position), item.heads.len()), (at, 3));
        assert!(item.score.is_finite() && item.heads.iter().all(|p| (0.0..=1.0).contains(p)));
        let weighted: f32 = item.heads.iter().zip([1.0, 1.0, -1.0]).map(|(p, w)| p * w).sum();
        assert!((weighted - item.score).abs() < 1e-6);
    }
    assert_eq!(response.degraded, []);
    assert_eq!(response.model.as_ref().map(|m| (m.version.as_str(), m.generation)), Some(("m1", 1)));
    assert_eq!(response.explain.unwrap().weights, [1.0, 1.0, -1.0]);
    let stages: Vec<_> = response.timings_us.iter().map(|t| t.0).collect();
    assert_eq!(
        stages,
        ["admit", "hydrate", "retrieve", "tokens", "score", "queue", "value", "select", "log", "total"]
    );
}

#[test]
fn pins_have_their_places_and_what_cannot_be_pinned_says_so() {
    let house = house(patient());
    house.slot.swap(model(1)).unwrap();
    house.store.append(vec![action("u", "i07", "hide", now_ms())]).unwrap();
    let pin = |id: &str, position| Pin { item: item_id(id), position };
    let pins = vec![pin("i30", 2), pin("i01", 0), pin("i31", 2), pin("i07", 1), pin("no", 3), pin("i32", 9)];
    let ask = RankRequest { limit: Some(5), pins, ..RankRequest::new(user("u"), candidates(20)) };
    let response = house.ranker.rank(ask).unwrap();
    let ranked = names(&response);
    assert_eq!((ranked.len(), ranked[0], ranked[2]), (5, "i01", "i30"));
    assert!(response.items[2].heads.len() == 3 && response.items[2].score.is_finite());
    let dropped: Vec<_> = response.dropped.iter().map(|d| (d.item.as_str(), d.reason)).collect();
    let reasons = [("i31", Reason::Pin), ("i07", Reason::Hidden), ("no", Reason::Pin), ("i32", Reason::Pin)];
    assert_eq!(dropped, reasons);
    let feed = FeedRequest { pins: vec![pin("i05", 1)], ..FeedRequest::new(user("u"), 10) };
    let response = house.ranker.feed(feed).unwrap();
    assert_eq!(names(&response).iter().filter(|i| **i == "i05").count(), 1);
    assert_eq!(names(&response)[1], "i05");
}

#[test]
fn what_a_user_blocked_is_in_no_feed_and_a_ranking_drops_it_where_asked() {
    let mut config = patient();
    config.select.blocked = vec![crate::BlockRule { user: "follows".into(), item: "topic".into() }];
    let house = house(config);
    house.slot.swap(model(1)).unwrap();
    let features = FeatureValues::from([("follows".into(), FeatureValue::Text("t1".into()))]);
    house.store.append(vec![Event::User(User { user: user("u"), time_ms: now_ms(), features })]).unwrap();
    let of_t1 = |id: &str| id[1..].parse::<usize>().unwrap() % 4 == 1;
    let page = feed(&house, 40);
    assert!(names(&page).len() == 30 && !names(&page).into_iter().any(of_t1), "{:?}", names(&page));
    let mut ask = RankRequest::new(user("u"), candidates(8));
    assert_eq!(house.ranker.rank(ask.clone()).unwrap().items.len(), 8);
    ask.rules.hidden = true;
    let dropped = house.ranker.rank(ask).unwrap().dropped;
    let reasons: Vec<_> = dropped.iter().map(|d| (d.item.as_str(), d.reason)).collect();
    assert_eq!(reasons, [("i01", Reason::Blocked), ("i05", Reason::Blocked)]);
}

#[test]
fn a_feed_keeps_to_a_hard_rule_and_blends() {
    let mut config = patient();
    config.select.diversity = crate::Diversity::Ssd;
    config.select.caps = vec![crate::CapRule { feature: "topic".into(), at_most: 2 }];
    let house = house(config);
    house.slot.swap(model(1)).unwrap();
    assert_eq!(names(&feed(&house, 20)).len(), 8, "two of each of four topics");
    let mut bad = patient();
    bad.select.caps = vec![crate::CapRule { feature: "author".into(), at_most: 2 }];
    let schema = Arc::new(schema());
    let refused = Ranker::new(house.store.clone(), house.slot.clone(), schema, bad).unwrap_err();
    assert!(refused.to_string().contains("`author`: the schema's categorical ones are topic"), "{refused}");
}

#[test]
fn without_a_model_the_order_is_by_popularity_and_says_so() {
    let house = house(patient());
    let now = now_ms();
    let actions = [("a", "i03", "save"), ("b", "i03", "click"), ("a", "i01", "click"), ("c", "i02", "hide")];
    house.store.append(actions.map(|(u, i, a)| action(u, i, a, now)).into()).unwrap();
    house.ranker.refresh().unwrap();
    let response = house.ranker.rank(RankRequest::new(user("u"), candidates(5))).unwrap();
    assert_eq!(names(&response), ["i03", "i01", "i00", "i02", "i04"]);
    assert_eq!((response.degraded, response.model), (vec![Rung::NoModel, Rung::Popularity], None));
}

#[test]
fn the_order_of_the_candidates_and_their_company_do_not_change_a_score() {
    let house = house(patient());
    house.slot.swap(model(2)).unwrap();
    house.store.append(vec![action("u", "i07", "save", now_ms())]).unwrap();
    let scores = |ids: Vec<ItemId>| -> std::collections::BTreeMap<ItemId, f32> {
        let response = house.ranker.rank(RankRequest::new(user("u"), ids)).unwrap();
        response.items.into_iter().map(|i| (i.item, i.score)).collect()
    };
    let all = scores(candidates(40));
    let mut turned = candidates(40);
    turned.reverse();
    turned.rotate_left(7);
    let turned = scores(turned);
    let company: Vec<_> = (0..1_900).map(|i| item_id(&format!("x{i}"))).chain(candidates(40)).collect();
    let crowd = scores(company);
    for (item, score) in &all {
        let alone = scores(vec![item.clone()])[item];
        for other in [turned[item], crowd[item], alone] {
            assert!((other - score).abs() <= 1e-5, "{item}: {other} for {score}");
        }
    }
}

#[test]
fn an_appended_save_is_in_the_next_ranking() {
    let house = house(patient());
    house.slot.swap(model(3)).unwrap();
    let ranked =
        || house.ranker.rank(RankRequest { explain: true, ..RankRequest::new(user("u"), candidates(40)) });
    let before = ranked().unwrap();
    let appended = house.store.append(vec![action("u", "i07", "save", now_ms())]).unwrap();
    let after = ranked().unwrap();
    assert_eq!(before.explain.unwrap().tokens, 0);
    assert_eq!(after.explain.unwrap().tokens, 1);
    assert!(after.watermark > appended.first_offset);
    assert_ne!(before.items, after.items, "the sequence enters the scores");
}

#[test]
fn models_swap_under_concurrent_requests_which_finish_on_one_of_them() {
    let house = house(patient());
    house.slot.swap(model(1)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let rankers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let response =
                            house.ranker.rank(RankRequest::new(user("u"), candidates(20))).unwrap();
                        let model = response.model.unwrap();
                        assert_eq!(response.degraded, []);
                        assert_eq!(model.version, format!("m{}", model.generation));
                        assert!(model.generation >= last, "never back to an older model");
                        last = model.generation;
                    }
                    last
                })
            })
            .collect();
        for seed in 2..=10 {
            assert_eq!(house.slot.swap(model(seed)).unwrap(), seed);
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(50));
        stop.store(true, Ordering::Relaxed);
        for ranker in rankers {
            assert_eq!(ranker.join().unwrap(), 10);
        }
    });
}

#[test]
fn a_bad_model_is_refused_and_the_last_good_one_serves() {
    use crate::model_slot::SwapError;
    let house = house(patient());
    house.slot.swap(model(1)).unwrap();
    let mut bad = Model::new(ModelConfig::default(), &schema(), 2).unwrap();
    bad.parameters_mut().last().unwrap().1[0] = f32::NAN;
    let manifest = Manifest::new(&bad, &schema(), 2);
    let refused = house.slot.swap(LoadedModel::new(bad, manifest, "bad"));
    assert!(matches!(refused, Err(SwapError::NotFinite { .. })), "{refused:?}");

    let other = Schema::from_toml(&SCHEMA.replace("length = 8", "length = 9")).unwrap();
    let foreign = Model::new(ModelConfig::default(), &other, 2).unwrap();
    let manifest = Manifest::new(&foreign, &other, 2);
    let refused = house.slot.swap(LoadedModel::new(foreign, manifest, "foreign"));
    assert!(matches!(refused, Err(SwapError::Schema { .. })), "{refused:?}");
    assert!(matches!(house.slot.swap_bytes("junk", b"junk"), Err(SwapError::Checkpoint { .. })));

    let strict = ModelSlot::new(Arc::new(schema())).with_embedding_version("other");
    assert!(matches!(strict.swap(model(1)), Err(SwapError::Embeddings { .. })));
    assert!(strict.current().is_none());
    assert_eq!(house.slot.current().unwrap().version(), "m1");
}

/// A model with logits in the hundreds: the rounding of one by a 256th moves its probability.
fn steep() -> LoadedModel {
    let config = ModelConfig { hidden: vec![16], ..ModelConfig::default() };
    let mut steep = Model::new(config, &schema(), 2).unwrap();
    for (name, data) in
        steep.parameters_mut().filter(|(name, _)| name.starts_with("mlp") || name.starts_with("heads"))
    {
        assert!(!data.is_empty(), "{name}");
        data.iter_mut().for_each(|x| *x *= 60.0);
    }
    let manifest = Manifest::new(&steep, &schema(), 2);
    LoadedModel::new(steep, manifest, "steep")
}

#[test]
fn a_model_that_a_precision_changes_is_refused_or_served_in_f32() {
    use crate::model_slot::SwapError;
    for precision in [RankPrecision::Bf16, RankPrecision::Int8] {
        let slot = ModelSlot::new(Arc::new(schema())).with_precision(precision);
        if precision == RankPrecision::Bf16 {
            assert_eq!(slot.swap(model(1)).unwrap(), 1);
        }
        let refused = slot.swap(steep());
        assert!(matches!(refused, Err(SwapError::Precision { .. })), "{refused:?}");
        assert!(refused.unwrap_err().to_string().contains("[rank] precision"));
        assert!(slot.current().is_none_or(|m| m.version() == "m1" && m.summary().precision == "bf16"));
    }
    let slot = ModelSlot::new(Arc::new(schema())).with_precision(RankPrecision::Auto);
    slot.swap(steep()).unwrap();
    assert_eq!(slot.current().unwrap().summary().precision, "f32");
    slot.swap(model(1)).unwrap();
    let best = lately_model::ServingPrecision::of_machine().name();
    assert_eq!(slot.current().unwrap().summary().precision, best);
}

#[test]
fn in_bf16_probabilities_are_nearly_those_of_f32() {
    let [exact, rounded] = [RankPrecision::F32, RankPrecision::Bf16].map(|precision| {
        let house = house(RankConfig { precision, ..patient() });
        house.slot.swap(model(1)).unwrap();
        let clicks = (0..5).map(|i| action("u", &format!("i{i:02}"), "click", now_ms() - i * 1_000));
        house.store.append(clicks.collect()).unwrap();
        let ask = RankRequest { explain: true, ..RankRequest::new(user("u"), candidates(40)) };
        let mut items = house.ranker.rank(ask).unwrap().items;
        items.sort_by(|a, b| a.item.as_str().cmp(b.item.as_str()));
        items.into_iter().flat_map(|i| i.heads).collect::<Vec<f32>>()
    });
    let apart = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert_eq!((exact.len(), rounded.len()), (120, 120));
    assert!(apart > 0.0 && apart < 5e-3, "{apart}");
}

/// What this machine computes of a model's golden rows is compared with what it was published with.
#[test]
fn a_model_that_is_another_one_here_is_refused() {
    use crate::model_slot::SwapError;
    let (loaded, other) = (model(5), model(6));
    let batch = crate::agreement::probe(&schema());
    let bytes = |golden: &LoadedModel| {
        let golden = Golden::new(golden.model(), batch.clone()).unwrap();
        checkpoint::to_bytes_with(loaded.model(), loaded.manifest(), Some(&golden)).unwrap()
    };
    let slot = ModelSlot::new(Arc::new(schema())).with_precision(RankPrecision::Bf16);
    assert_eq!(slot.swap_bytes("right", &bytes(&loaded)).unwrap(), 1);
    let refused = slot.swap_bytes("wrong", &bytes(&other));
    assert!(matches!(refused, Err(SwapError::Golden { error, .. }) if error > 1e-3), "{refused:?}");
    assert_eq!(slot.current().unwrap().version(), "right");
}

#[test]
fn a_checkpoint_is_served_once_by_its_version() {
    let slot = ModelSlot::new(Arc::new(schema()));
    let loaded = model(5);
    let bytes = lately_model::checkpoint::to_bytes(loaded.model(), loaded.manifest()).unwrap();
    assert_eq!(slot.swap_bytes("v1", &bytes).unwrap(), 1);
    assert_eq!(slot.swap_bytes("v1", &bytes).unwrap(), 1, "no second swap to the same version");
    assert_eq!(slot.current().unwrap().summary().heads, ["click", "save", "hide"]);

    // A watch and an operator who find the same new champion at once make one swap of it.
    for round in 2..20 {
        let (slot, bytes, version) = (&slot, &bytes, format!("v{round}"));
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    assert_eq!(slot.swap_bytes(&version, bytes).unwrap(), round);
                });
            }
        });
    }
}

#[test]
fn a_feed_drops_hidden_and_just_shown_items_and_spaces_topics() {
    let retrieve = RetrieveConfig { popular: 10, followed: 4, nearest: 10, random: 10, ..Default::default() };
    let house = house(RankConfig { retrieve, ..patient() });
    house.slot.swap(model(4)).unwrap();
    let follows = FeatureValues::from([("follows".into(), FeatureValue::Text("t2".into()))]);
    let now = now_ms();
    let mut events = vec![Event::User(User { user: user("u"), time_ms: now, features: follows })];
    events.extend(["i05", "i06"].map(|i| action("u", i, "hide", now)));
    events.push(action("u", "i10", "save", now));
    house.store.append(events).unwrap();
    house.ranker.refresh().unwrap();
    let (first, second) = (feed(&house, 12), feed(&house, 12));
    for page in [&first, &second] {
        assert_eq!(page.items.len(), 12);
        assert!(!names(page).iter().any(|i| ["i05", "i06"].contains(i)), "hidden: {:?}", names(page));
    }
    assert!(names(&first).iter().all(|i| !names(&second).contains(i)), "the next page is another");
    let topic = |i: &&str| i[1..].parse::<usize>().unwrap() % 4;
    let topics: Vec<_> = names(&first).iter().map(topic).collect();
    assert!(topics.windows(3).all(|w| w[0] != w[1] || w[1] != w[2]), "{topics:?}");
    for _ in 0..4 {
        assert_eq!(feed(&house, 12).items.len(), 12, "a small catalogue comes again, never an empty page");
    }
    // All that was retrieved: which random ones are among it, and so the order, differs from request to request.
    let all = feed(&house, 34);
    let sources: HashSet<_> = all.items.iter().map(|i| i.source.unwrap().name()).collect();
    assert!(sources.contains("nearest") && sources.contains("followed"), "{sources:?}");
    // A ranking drops only what it is asked to.
    let mut ask = RankRequest::new(user("u"), candidates(10));
    assert_eq!(house.ranker.rank(ask.clone()).unwrap().items.len(), 10);
    ask.rules = Rules { hidden: true, shown: true, spacing: true };
    let ruled = house.ranker.rank(ask).unwrap();
    assert_eq!(ruled.items.len() + ruled.dropped.len(), 10);
    let hidden = ruled.dropped.iter().filter(|d| d.reason == Reason::Hidden);
    assert_eq!(hidden.map(|d| d.item.as_str()).collect::<Vec<_>>(), ["i05", "i06"]);
    // However much follows.
    let stored = i64::from(house.ranker.schema.sequence.stored);
    house.store.append((0..=stored).map(|n| action("u", "i10", "save", now + n)).collect()).unwrap();
    let ask = RankRequest {
        rules: Rules { hidden: true, ..Rules::default() },
        ..RankRequest::new(user("u"), candidates(10))
    };
    let dropped = house.ranker.rank(ask).unwrap().dropped;
    assert_eq!(dropped.iter().map(|d| d.item.as_str()).collect::<Vec<_>>(), ["i05", "i06"]);
}

#[test]
fn what_was_served_is_in_the_log_with_its_watermark() {
    for mode in [ImpressionMode::Async, ImpressionMode::BeforeAnswer] {
        let house = house(RankConfig { log_impressions: mode, ..patient() });
        house.slot.swap(model(6)).unwrap();
        let request = RequestId::new("r1").unwrap();
        let ask = RankRequest {
            limit: Some(3),
            surface: Some("home".into()),
            request: Some(request.clone()),
            ..RankRequest::new(user("u"), candidates(9))
        };
        let response = house.ranker.rank(ask).unwrap();
        house.ranker.flush_impressions();
        let logged = house.store.read(response.watermark, 10).unwrap();
        let [(_, Event::Impression(logged))] = &logged[..] else { panic!("{mode:?}: {logged:?}") };
        assert_eq!((&logged.request, logged.watermark), (&request, Some(40)));
        assert_eq!((logged.model.as_deref(), logged.surface.as_deref()), (Some("m6"), Some("home")));
        let items: Vec<_> = logged.items.iter().map(|i| (&i.item, i.position, i.score)).collect();
        let served: Vec<_> = response.items.iter().map(|i| (&i.item, i.position, i.score)).collect();
        assert_eq!(items, served);
        assert_eq!(house.ranker.forget(&user("u")).unwrap(), 1, "the impression goes with the user");
    }
}

#[test]
fn impressions_that_wait_are_written_when_the_ranker_is_dropped() {
    let House { ranker, store, slot: _, _dir } = house(patient());
    for _ in 0..50 {
        ranker.rank(RankRequest::new(user("u"), candidates(2))).unwrap();
    }
    drop(ranker);
    assert_eq!(store.next_offset(), 90);
}

#[test]
fn requests_beyond_the_limits_are_refused_with_what_to_do() {
    let house = house(patient());
    let error = |ask: RankRequest| house.ranker.rank(ask).unwrap_err().to_string();
    let ask = |n| RankRequest::new(user("u"), candidates(n));
    assert!(error(ask(0)).contains("at least one"));
    assert!(error(ask(2_001)).contains("limit is 2000"));
    assert!(error(RankRequest { surface: Some("x".into()), ..ask(1) }).contains("unknown surface `x`"));
    assert!(error(RankRequest { deadline: Some(Duration::ZERO), ..ask(1) }).contains("1 to 5000"));
    let bad = |config| {
        let House { store, slot, _dir, .. } = self::house(patient());
        Ranker::new(store, slot, Arc::new(schema()), config).unwrap_err().to_string()
    };
    let weights =
        ValueModelConfig { weights: [("saved".to_owned(), 1.0)].into(), ..ValueModelConfig::default() };
    assert!(bad(RankConfig { value_model: weights, ..patient() }).contains("`saved`"));
    assert!(bad(RankConfig { max_candidates: 2_001, ..patient() }).contains("1 to 2000"));
}

#[test]
fn a_passed_deadline_and_a_full_queue_are_typed_and_degrade_or_shed() {
    let heavy = || {
        let config = ModelConfig { hidden: vec![2048, 2048], ..ModelConfig::default() };
        let model = Model::new(config, &schema(), 1).unwrap();
        let manifest = Manifest::new(&model, &schema(), 1);
        LoadedModel::new(model, manifest, "heavy")
    };
    let house = house(RankConfig { threads: 1, queue_units: 2, tile_rows: 64, ..patient() });
    house.slot.swap(heavy()).unwrap();
    let ids: Vec<_> = (0..2_000).map(|i| item_id(&format!("i{i}"))).collect();
    let late =
        RankRequest { deadline: Some(Duration::from_millis(5)), ..RankRequest::new(user("u"), ids.clone()) };
    let begin = Instant::now();
    let response = house.ranker.rank(late.clone()).unwrap();
    assert_eq!(response.degraded, [Rung::ScoreDeadline, Rung::InputOrder]);
    assert_eq!(response.items.len(), 2_000, "every candidate, in another order");
    assert!(begin.elapsed() < Duration::from_secs(1));

    std::thread::scope(|scope| {
        // The late request's last tile, or a small one, may still hold the queue: ask until there is room.
        let busy = scope.spawn(|| {
            loop {
                match house.ranker.rank(RankRequest::new(user("u"), ids.clone())) {
                    Err(RankError::Overloaded { .. }) => std::thread::yield_now(),
                    answer => break answer,
                }
            }
        });
        let shed = || {
            let answer = house.ranker.rank(RankRequest::new(user("v"), candidates(3)));
            matches!(answer, Err(RankError::Overloaded { reason: Shed::QueueFull, .. }))
        };
        let mut seen = false;
        while !seen && !busy.is_finished() {
            seen = shed();
        }
        assert!(seen, "while the queue is full a request is shed");
        busy.join().unwrap().unwrap();
    });
    house.slot.swap(model(1)).unwrap();
    let after = house.ranker.rank(RankRequest::new(user("v"), candidates(3))).unwrap();
    assert_eq!(after.degraded, [], "the queue is free again");
}

#[test]
fn time_spent_waiting_before_counts_against_the_deadline() {
    let house = house(patient());
    house.slot.swap(model(1)).unwrap();
    let ask = |waited| RankRequest { waited, ..RankRequest::new(user("u"), candidates(3)) };
    assert_eq!(house.ranker.rank(ask(Duration::from_millis(10))).unwrap().degraded, []);
    let late = house.ranker.rank(ask(Duration::from_secs(6))).unwrap();
    assert_eq!(late.degraded, [Rung::ScoreDeadline, Rung::CachedRanking]);
}
