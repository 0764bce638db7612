use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use lately_features::{FeatureBatch, action_bit, assemble};
use lately_model::{EngineMemory, Manifest, Model, ModelConfig, PartCache};
use proptest::prelude::*;

use super::*;
use crate::ranker::tests::{item_features, model, schema};

mod device;

fn config(threads: usize) -> RankConfig {
    RankConfig { threads, ..RankConfig::default() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// A request with as many candidates and tokens, other ones for each seed.
fn work(model: &Arc<LoadedModel>, seed: usize, rows: usize, tokens: usize) -> Work {
    let item = |i: usize| {
        let angle = (seed * 31 + i) as f32 * 0.37;
        Arc::new(item_features(&format!("t{}", (seed + i) % 5), [angle.cos(), angle.sin()]))
    };
    let token = |i: usize| Token {
        action: (i % 3) as u8,
        actions: action_bit((i % 3) as u8),
        surface: 1,
        time_ms: -(i as i64) * 1_000,
        item: Some(item(i + 100)),
    };
    Work {
        model: model.clone(),
        assembler: Arc::new(Assembler::new(&schema())),
        context: RequestContext { time_ms: 0, surface: 1, watermark: u64::MAX },
        person: seed as u64,
        user: None,
        tokens: (0..tokens).map(token).collect(),
        candidates: (0..rows).map(|i| (i % 7 != 6).then(|| item(i))).collect(),
        priority: Priority::Interactive,
    }
}

/// What the model gives for a request in a call of its own.
fn alone(work: &Work) -> Vec<f32> {
    let mut batch = FeatureBatch::default();
    let candidates = work.candidates.iter().map(Option::as_deref);
    assemble(&mut batch, &work.assembler, &work.context, None, &work.tokens, candidates);
    work.model.engine().score(&batch, &mut EngineMemory::default()).unwrap()
}

fn piece(work: Work) -> line::Piece<Arc<Request>> {
    let (rows, priority) = (0..work.candidates.len(), work.priority);
    line::Piece { load: Arc::new(Request::new(Arc::new(work), soon())), rows, priority, waited: None }
}

#[test]
fn requests_of_several_users_in_one_call_get_what_they_would_get_alone() {
    let model = Arc::new(model(1));
    let sizes = [(1, 0), (40, 8), (3, 2), (17, 5)];
    let works = || sizes.iter().enumerate().map(|(seed, (rows, tokens))| work(&model, seed, *rows, *tokens));
    let pieces: Vec<_> = works().map(piece).collect();
    worker::Memory::new(Arc::new(PartCache::new(1 << 20))).score_all(&pieces, |enough| assert!(enough));
    for (piece, work) in pieces.iter().zip(works()) {
        assert_eq!(piece.load.wait().unwrap().logits, alone(&work));
    }
}

#[test]
fn a_request_that_breaks_its_call_fails_alone() {
    let model = Arc::new(model(1));
    let panics = |work: &mut Work| {
        let mut item = item_features("t", [0.0, 1.0]);
        item.embedding = Default::default(); // shorter than the schema says: no request can bring it
        work.candidates[0] = Some(Arc::new(item));
    };
    let infinite = |work: &mut Work| {
        let mut item = item_features("t", [0.0, 1.0]);
        item.embedding = [f32::INFINITY, 0.0].into(); // refused at the door of events
        work.tokens[0].item = Some(Arc::new(item));
    };
    for (spoil, message) in [(&panics as &dyn Fn(&mut Work), "it panicked"), (&infinite, "finite")] {
        let works = || (0..4).map(|seed| work(&model, seed, 5, 3));
        let pieces: Vec<_> = works()
            .enumerate()
            .map(|(i, mut work)| {
                if i == 2 {
                    spoil(&mut work);
                }
                piece(work)
            })
            .collect();
        worker::Memory::new(Arc::new(PartCache::new(1 << 20))).score_all(&pieces, |enough| assert!(!enough));
        for ((i, piece), work) in pieces.iter().enumerate().zip(works()) {
            match (i, piece.load.wait()) {
                (2, Err(ScoreError::Model(reason))) => assert!(reason.contains(message), "{reason}"),
                (2, other) => panic!("{other:?}"),
                (_, answer) => assert_eq!(answer.unwrap().logits, alone(&work)),
            }
        }
    }
}

#[test]
fn nothing_to_score_and_no_time_need_no_thread() {
    let (model, batcher) = (Arc::new(model(1)), Batcher::start(&config(1)).unwrap());
    assert_eq!(batcher.score(&Arc::new(work(&model, 1, 0, 3)), soon()).unwrap().logits, [] as [f32; 0]);
    let late = batcher.score(&Arc::new(work(&model, 1, 5, 3)), Instant::now());
    assert_eq!(late.unwrap_err(), ScoreError::DeadlineExceeded);
}

#[derive(Debug, Clone)]
struct Call {
    rows: usize,
    tokens: usize,
    background: bool,
    deadline_us: u64,
    pause_us: u64,
}

fn calls() -> impl Strategy<Value = Vec<Vec<Call>>> {
    let call = (1..300usize, 0..8usize, any::<bool>(), 1..100_000u64, 0..2_000u64);
    let call = call.prop_map(|(rows, tokens, background, deadline_us, pause_us)| Call {
        rows,
        tokens,
        background,
        deadline_us,
        pause_us,
    });
    prop::collection::vec(prop::collection::vec(call, 1..8), 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Callers at random times, with deadlines that many give up at, of both priorities and two models: each is
    /// answered once, with its own logits or with why not, and nothing is left behind.
    #[test]
    fn every_caller_is_answered_with_its_own_logits(callers in calls(), threads in 1..5usize) {
        let config = RankConfig { queue_units: 8_000, tile_rows: 64, ..config(threads) };
        let batcher = Batcher::start(&config).unwrap();
        let models = [Arc::new(model(1)), Arc::new(model(2))];
        std::thread::scope(|scope| {
            for (caller, calls) in callers.iter().enumerate() {
                let (batcher, models) = (&batcher, &models);
                scope.spawn(move || for (i, call) in calls.iter().enumerate() {
                    std::thread::sleep(Duration::from_micros(call.pause_us));
                    let mut work = work(&models[(caller + i) % 2], caller * 8 + i, call.rows, call.tokens);
                    work.priority = if call.background { Priority::Background } else { Priority::Interactive };
                    let want = alone(&work);
                    let (begin, time) = (Instant::now(), Duration::from_micros(call.deadline_us));
                    match batcher.score(&Arc::new(work), begin + time) {
                        Ok(answer) => assert_eq!(answer.logits, want),
                        Err(ScoreError::DeadlineExceeded | ScoreError::Overloaded { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                });
            }
        });
        // A call in hand may still be scored for nobody.
        let mut line = lock(&batcher.queue.line);
        prop_assert_eq!(line.units(), [0, 0]);
        prop_assert_eq!((line.take(Instant::now()).pieces.len(), line.closed), (0, false));
        drop(line);
        let (last, want) = (work(&models[0], 1, 5, 3), alone(&work(&models[0], 1, 5, 3)));
        assert_eq!(batcher.score(&Arc::new(last), soon()).unwrap().logits, want);
    }
}

/// Of millions of weights, so that scoring takes longer than asking.
fn heavy() -> Arc<LoadedModel> {
    let config = ModelConfig { hidden: vec![1024, 1024], ..ModelConfig::default() };
    let model = Model::new(config, &schema(), 1).unwrap();
    let manifest = Manifest::new(&model, &schema(), 1);
    Arc::new(LoadedModel::new(model, manifest, "heavy"))
}

/// Answers a second to `callers` who each ask again `pause` after the last time, or when they are answered.
fn answered(batcher: &Batcher, model: &Arc<LoadedModel>, load: &Load) -> (f64, f64) {
    let (good, asked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for caller in 0..load.callers {
            let (good, asked) = (&good, &asked);
            scope.spawn(move || {
                let (mut next, mine) = (begin, Arc::new(work(model, caller, 64, 4)));
                while begin.elapsed() < load.time {
                    asked.fetch_add(1, Ordering::Relaxed);
                    match batcher.score(&mine, Instant::now() + load.deadline) {
                        Ok(_) => drop(good.fetch_add(1, Ordering::Relaxed)),
                        Err(ScoreError::DeadlineExceeded | ScoreError::Overloaded { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                    next = (next + load.pause).max(Instant::now());
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
    });
    let a_second = |n: AtomicUsize| n.into_inner() as f64 / begin.elapsed().as_secs_f64();
    (a_second(good), a_second(asked))
}

struct Load {
    callers: usize,
    pause: Duration,
    deadline: Duration,
    time: Duration,
}

/// (goodput at ten times the capacity as a share of it, most units that waited as a share of the bound).
fn overload(model: &Arc<LoadedModel>) -> (f64, f64) {
    let config =
        RankConfig { queue_units: 100_000, queue_target_ms: 20, queue_interval_ms: 200, ..config(1) };
    let batcher = Batcher::start(&config).unwrap();
    let (callers, deadline) = (8, Duration::from_secs(10));
    let alone = Load { callers, pause: Duration::ZERO, deadline, time: Duration::from_millis(1_000) };
    let (capacity, _) = answered(&batcher, model, &alone);

    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let (callers, deadline) = (48, Duration::from_secs_f64(16.0 / capacity));
    let pause = Duration::from_secs_f64(callers as f64 / (10.0 * capacity));
    let load = Load { callers, pause, deadline, time: Duration::from_millis(2_500) };
    let (goodput, offered) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(lock(&batcher.queue.line).units().iter().sum(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let rates = answered(&batcher, model, &load);
        over.store(true, Ordering::Relaxed);
        rates
    });
    for _ in 0..10 {
        let after = batcher.score(&Arc::new(work(model, 1, 64, 4)), soon());
        assert!(after.is_ok(), "the overload is over: {after:?}");
    }
    println!("capacity {capacity:.0}/s, offered {offered:.0}/s, goodput {goodput:.0}/s");
    (goodput / capacity, most.into_inner() as f64 / config.queue_units as f64)
}

#[test]
fn at_ten_times_the_capacity_as_much_is_answered_in_time_as_ever() {
    let model = heavy();
    // Other work on the machine makes one of two figures worse now and then.
    let mut best = 0.0;
    for _ in 0..3 {
        let (goodput, most) = overload(&model);
        assert!(most <= 1.0, "{most} of what may wait");
        best = f64::max(best, goodput);
        println!(
            "goodput {:.0} % of capacity, at most {:.1} % of the line in use",
            goodput * 100.0,
            most * 100.0
        );
        if best >= 0.7 {
            return;
        }
    }
    panic!("goodput {best}");
}
