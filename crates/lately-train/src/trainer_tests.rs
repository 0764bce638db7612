use std::convert::Infallible;
use std::sync::Arc;

use super::*;
use crate::chunks::Chunks;
use crate::dataset::{Candidate, Dataset, Request, push_rows};
use crate::dates::Zone;
use crate::fixtures::*;
use crate::join::{JoinOptions, join};
use crate::memory::Memory;
use crate::metrics::auc;
use crate::predict::{self, by_model};
use crate::random::Random;
use crate::start::new;
use lately_features::event::FeatureValues;
use lately_features::schema::{FeatureKind, bucket};
use lately_features::{Event, FeatureBatch, FeatureValue, Features};
use lately_model::{Encoder, HeadCalibration, ModelConfig};

/// The same users, but each item is a request of its own, a second apart.
fn streams(users: usize, seed: u64) -> Dataset {
    let mut d = world(users, seed);
    let single = |r: &Request| {
        let one = |(at, c): (usize, &Candidate)| Request {
            time_ms: r.time_ms + 1000 * at as i64,
            candidates: [c.clone()].into(),
            ..r.clone()
        };
        r.candidates.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    d.requests = d.requests.iter().flat_map(single).collect();
    d
}

fn run(d: &Dataset, model: &ModelConfig, config: &TrainConfig) -> (Model, TrainReport) {
    match train(&d.all(), model, config, None, &mut |_| Control::Continue).unwrap() {
        Outcome::Finished { model, report } => (*model, report),
        other => panic!("nobody stopped it: {other:?}"),
    }
}

fn click_auc(model: &Model, d: &Dataset) -> f64 {
    let slice = d.all();
    let chunks = Chunks::of(&slice, &Zone::utc(), 4);
    let scores = by_model("m", &slice, &chunks, model, 2).unwrap();
    let clicks: Vec<f32> = scores.rows.iter().step_by(d.heads()).copied().collect();
    let labels = slice.iter().flat_map(|r| &r.candidates).map(|c| d.label(c, 0));
    auc(&clicks, &labels.collect::<Vec<_>>()).unwrap()
}

/// All weights and losses, as bits.
fn bits(model: &Model, report: &TrainReport) -> (Vec<u32>, Vec<u64>) {
    let weights = model.parameters().iter().flat_map(|p| &p.data).map(|x| x.to_bits());
    (weights.collect(), report.loss.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn a_signal_that_only_the_sequence_holds_is_learned() {
    let (past, future) = (world(400, 1), world(200, 2));
    let (model, report) = run(&past, &small(Encoder::Transact), &quick());
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (begin, end) = (mean(&report.loss[..10]), mean(&report.loss[report.loss.len() - 10..]));
    assert!(end < 0.8 * begin, "{begin} -> {end}");
    let with = click_auc(&model, &future);
    let without = click_auc(&run(&past, &small(Encoder::None), &quick()).0, &future);
    assert!(with > 0.8 && without < 0.6, "AUC {with} with, {without} without the sequence");
}

#[test]
fn threads_do_not_change_a_bit() {
    let d = world(60, 3);
    let config = |threads| TrainConfig { epochs: 2, threads, ..quick() };
    let (one, two) =
        (run(&d, &small(Encoder::Transact), &config(1)), run(&d, &small(Encoder::Transact), &config(3)));
    assert_eq!(bits(&one.0, &one.1), bits(&two.0, &two.1));
    let other = run(&d, &small(Encoder::Transact), &TrainConfig { seed: 2, ..config(1) });
    assert_ne!(bits(&one.0, &one.1).1, bits(&other.0, &other.1).1);
}

#[test]
fn lists_do_not_depend_on_threads_and_change_the_model() {
    for d in [world(60, 3), streams(60, 3)] {
        let config = |threads| TrainConfig { epochs: 2, threads, list_weight: 0.5, ..quick() };
        let of = |config: &TrainConfig| {
            let (model, report) = run(&d, &small(Encoder::Transact), config);
            bits(&model, &report)
        };
        let one = of(&config(1));
        assert!(one == of(&config(3)));
        assert!(one != of(&TrainConfig { list_weight: 0.0, ..config(1) }));
        assert!(
            one == of(&TrainConfig {
                list_heads: vec!["click".into(), "save".into(), "hide".into()],
                ..config(1)
            })
        );
        assert!(one != of(&TrainConfig { list_heads: vec!["save".into()], ..config(1) }));
    }
    let unknown = TrainConfig { list_heads: vec!["clack".into()], ..quick() };
    assert!(unknown.validate(&schema()).unwrap_err().to_string().contains("`clack`"));
}

/// The order within a list is learned although only the list term is left and each list has its own rate.
#[test]
fn the_list_term_alone_learns_the_order_within_lists() {
    let (past, future) = (streams(400, 1), streams(200, 2));
    let nothing = r#"{"click": {"impression": 1e-6}, "save": {"impression": 0}, "hide": {"impression": 0}}"#;
    let config = TrainConfig {
        label_weights: serde_json::from_str(nothing).unwrap(),
        list_weight: 1e6,
        list_heads: vec!["click".into()],
        ..quick()
    };
    let auc = click_auc(&run(&past, &small(Encoder::Transact), &config).0, &future);
    assert!(auc > 0.75, "AUC {auc}");
}

#[test]
fn dropped_negatives_leave_predictions_calibrated() {
    let (past, future) = (world(400, 1), world(200, 2));
    let calibration = |model: &Model| {
        let slice = future.all();
        let scores = by_model("m", &slice, &Chunks::of(&slice, &Zone::utc(), 4), model, 2).unwrap();
        let clicks = scores.rows.iter().step_by(future.heads());
        clicks.map(|z| 1.0 / (1.0 + f64::from(-z).exp())).sum::<f64>() / future.stats.positives[0] as f64
    };
    let (model, report) =
        run(&past, &small(Encoder::Transact), &TrainConfig { negative_rate: 0.3, ..quick() });
    let value = calibration(&model);
    assert!((0.9..1.1).contains(&value), "predicted over observed {value}");
    let all = run(&past, &small(Encoder::Transact), &quick()).1;
    assert!(report.steps * 10 < all.steps * 8, "{} of {} steps", report.steps, all.steps);
    let auc = click_auc(&model, &future);
    assert!(auc > 0.78, "AUC {auc}");
}

#[test]
fn calibration_takes_back_what_label_weights_did() {
    let (past, future) = (world(800, 1), world(400, 2));
    let of = |calibration| {
        let label_weights = serde_json::from_str(r#"{"click": {"click": 3}}"#).unwrap();
        run(&past, &small(Encoder::Transact), &TrainConfig { label_weights, calibration, ..quick() }).0
    };
    let logits = |model: &Model| -> Vec<f32> {
        predict::own(&future.all(), model, 2).unwrap().into_iter().step_by(future.heads()).collect()
    };
    let predicted = |model: &Model| {
        let sum: f64 = logits(model).iter().map(|z| 1.0 / (1.0 + f64::from(-z).exp())).sum();
        sum / future.stats.positives[0] as f64
    };
    let raw = predicted(&of(CalibrationKind::None));
    assert!(raw > 1.3, "predicted over observed {raw}");
    for kind in [CalibrationKind::Platt, CalibrationKind::Isotonic] {
        let model = of(kind);
        let calibration = model.calibration().unwrap();
        assert!((3980..=4020).contains(&(calibration.rows * 10)), "the newest tenth of 4,000 rows");
        assert_eq!(calibration.heads[2], HeadCalibration::IDENTITY, "no hide, nothing to fit");
        let value = predicted(&model);
        assert!((0.85..1.15).contains(&value), "{kind:?}: predicted over observed {value}");
        // The order stays.
        let mut plain = model.clone();
        plain.set_calibration(None).unwrap();
        let mut both: Vec<_> = logits(&plain).into_iter().zip(logits(&model)).collect();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(both.is_sorted_by(|a, b| a.1 <= b.1), "{kind:?}");
    }
}

#[test]
fn twenty_interrupted_runs_end_as_the_whole_one() {
    let d = streams(60, 4);
    let config = TrainConfig {
        epochs: 3,
        list_weight: 0.5,
        negative_rate: 0.8,
        calibration: CalibrationKind::Platt,
        ..quick()
    };
    let model = ModelConfig { dropout: 0.2, ..small(Encoder::Transact) };
    let whole = run(&d, &model, &config);
    let want = (bits(&whole.0, &whole.1), whole.0.calibration().cloned());
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::of(20, &[]);
    let mut points = Vec::new();
    for n in 0..20 {
        let (path, point) =
            (dir.path().join(n.to_string()), 1 + random.below(whole.1.steps as usize - 1) as u64);
        let stop = &mut |p: &Progress| if p.step == point { Control::Stop } else { Control::Continue };
        // What is on the disk at that point is all that a killed run leaves.
        let config = TrainConfig { threads: 1 + random.below(3), ..config.clone() };
        let stopped = train(&d.all(), &model, &config, Some(&path), stop).unwrap();
        assert!(matches!(stopped, Outcome::Stopped { step } if step == point));
        match train(&d.all(), &model, &config, Some(&path), &mut |_| Control::Continue).unwrap() {
            Outcome::Finished { model, report } => {
                assert_eq!(report.resumed_at, point);
                assert!((bits(&model, &report), model.calibration().cloned()) == want, "step {point}");
            }
            other => panic!("nobody stopped it: {other:?}"),
        }
        points.push(point);
    }
    println!(
        "{} runs of {} steps, interrupted at {points:?} and resumed: weights, losses and calibration are those of \
         the uninterrupted run to the bit",
        points.len(),
        whole.1.steps
    );
}

#[test]
fn a_run_from_a_model_goes_on_from_it_and_resumes_to_the_bit() {
    let d = streams(60, 4);
    let model = small(Encoder::Transact);
    let (trained, _) = run(&d, &model, &TrainConfig { calibration: CalibrationKind::Platt, ..quick() });
    assert!(trained.calibration().is_some());
    let config = TrainConfig { epochs: 1, learning_rate: 1e-5, ..quick() };
    let go_on = |config: &TrainConfig, path: Option<&Path>, stop_at: u64| {
        let stop = &mut |p: &Progress| if p.step == stop_at { Control::Stop } else { Control::Continue };
        train(&d.all(), &trained, config, path, stop).unwrap()
    };
    let Outcome::Finished { model: whole, report } = go_on(&config, None, 0) else { panic!("not stopped") };
    let (cold, _) = run(&d, &model, &config);
    assert!(report.loss[0] < 0.9 * run(&d, &model, &config).1.loss[0], "it begins where the other ended");
    assert!(click_auc(&whole, &d) > click_auc(&cold, &d) + 0.1);
    assert_eq!(whole.calibration(), None, "that of the start fits no more");
    assert_eq!(whole.normaliser(), trained.normaliser());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    assert!(matches!(go_on(&config, Some(&path), 1), Outcome::Stopped { step: 1 }));
    let Outcome::Finished { model: again, report: resumed } = go_on(&config, Some(&path), 0) else {
        panic!("not stopped")
    };
    assert_eq!(resumed.resumed_at, 1);
    assert!(bits(&again, &resumed) == bits(&whole, &report));
    // The state of another start is not gone on with.
    assert!(matches!(go_on(&config, Some(&path), 1), Outcome::Finished { .. }), "it is done already");
    let other = train(&d.all(), &cold, &config, Some(&path), &mut |_| Control::Continue);
    assert!(matches!(other, Err(TrainError::State(StateError::OtherRun(_)))));
}

#[test]
fn a_start_of_another_schema_is_refused() {
    let d = world(20, 1);
    let mut other = (*schema()).clone();
    other.heads.truncate(1);
    let start = Model::new(small(Encoder::None), &other, 1).unwrap();
    let refused = train(&d.all(), &start, &quick(), None, &mut |_| Control::Continue).unwrap_err();
    assert!(matches!(refused, TrainError::Schema { .. }), "{refused}");
}

#[test]
fn a_bound_on_memory_changes_no_bit_or_is_refused() {
    let d = world(60, 3);
    let model = small(Encoder::Transact);
    let config = |memory_bytes| TrainConfig { epochs: 1, threads: 3, memory_bytes, ..quick() };
    let free = run(&d, &model, &config(0));
    let (slice, config_0) = (d.all(), config(0));
    let examples = Examples::new(&slice, &config_0).unwrap();
    let least = Memory::measure(&new(&examples, &model).unwrap(), &examples).unwrap().total();
    let tight = run(&d, &model, &config(least));
    assert!(bits(&free.0, &free.1) == bits(&tight.0, &tight.1));
    let refused = train(&slice, &model, &config(least - 1), None, &mut |_| Control::Continue).unwrap_err();
    assert!(matches!(refused, TrainError::Memory { limit, .. } if limit == least - 1));
    assert!(refused.to_string().contains("the bound on memory"), "{refused}");
}

#[test]
fn users_of_weight_0_teach_nothing() {
    let d = world(60, 3);
    let mut levels = d.clone();
    let none =
        |text: &str| TrainConfig { user_weights: serde_json::from_str(text).unwrap(), epochs: 1, ..quick() };
    let level = |name: &str| {
        let values = FeatureValues::from([("level".to_owned(), FeatureValue::Text(name.to_owned()))]);
        Some(Arc::new(Features::encode(&d.schema.user_features, &values).unwrap()))
    };
    for (at, request) in levels.requests.iter_mut().enumerate() {
        request.features = level(if at % 2 == 0 { "high" } else { "low" });
    }
    let other = {
        let mut d = levels.clone();
        let odd = d.requests.iter_mut().skip(1).step_by(2);
        odd.flat_map(|r| &mut r.candidates).for_each(|c| c.observed ^= 0b10); // click
        d
    };
    let of = |d: &Dataset, config: &TrainConfig| {
        let (model, report) = run(d, &small(Encoder::Transact), config);
        bits(&model, &report).1
    };
    let config = none(r#"{"level": {"low": 0}}"#);
    assert_eq!(of(&levels, &config), of(&other, &config));
    assert_ne!(of(&levels, &none("{}")), of(&other, &none("{}")));
}

#[test]
fn a_stopped_run_ends_as_if_it_had_not_been() {
    let d = world(60, 4);
    let (model, config) = (small(Encoder::Transact), TrainConfig { epochs: 2, ..quick() });
    let whole = run(&d, &model, &config);
    let want = bits(&whole.0, &whole.1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    // Stop after each of these steps in turn (5 steps an epoch); the last life finishes.
    let mut stops = vec![1, 4, 5, 8];
    let (end, lives) = (1..)
        .find_map(|life| {
            let mut progress = |p: &Progress| match stops.first() {
                Some(stop) if p.step == *stop => Control::Stop,
                _ => Control::Continue,
            };
            match train(&d.all(), &model, &config, Some(&path), &mut progress).unwrap() {
                Outcome::Finished { model, report } => Some((bits(&model, &report), life)),
                Outcome::Stopped { step } => {
                    assert_eq!(step, stops.remove(0));
                    None
                }
                followed @ Outcome::Followed { .. } => panic!("it is alone: {followed:?}"),
            }
        })
        .unwrap();
    assert!(end == want, "another result after {lives} lives");
    assert_eq!(lives, 5);
    // A finished run's state gives the model again at once, with other threads too.
    let again = TrainConfig { threads: 1, ..config.clone() };
    match train(&d.all(), &model, &again, Some(&path), &mut |_| panic!("no step is left")).unwrap() {
        Outcome::Finished { model, report } => assert!(bits(&model, &report) == want),
        other => panic!("nobody stopped it: {other:?}"),
    }
}

#[test]
fn a_state_of_another_run_or_a_damaged_one_is_refused() {
    let d = world(30, 5);
    let (model, config) = (small(Encoder::Mean), TrainConfig { epochs: 1, ..quick() });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.safetensors");
    let go = |d: &Dataset, config: &TrainConfig| {
        train(&d.all(), &model, config, Some(&path), &mut |_| Control::Continue)
    };
    go(&d, &config).unwrap();
    let other = TrainConfig { learning_rate: 0.02, ..config.clone() };
    assert!(matches!(go(&d, &other), Err(TrainError::State(StateError::OtherRun(_)))));
    assert!(matches!(go(&world(30, 6), &config), Err(TrainError::State(StateError::OtherRun(_)))));
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(matches!(go(&d, &config), Err(TrainError::State(StateError::Damaged { .. }))), "{cut}");
    }
}

#[test]
fn normalisation_and_first_bias_come_from_the_rows_and_stay() {
    let d = world(80, 7);
    let (model, _) = run(&d, &small(Encoder::None), &TrainConfig { epochs: 1, ..quick() });
    let views: Vec<f64> = d
        .requests
        .iter()
        .flat_map(|r| &r.candidates)
        .map(|c| f64::from(c.features.as_ref().unwrap().numeric[0]))
        .collect();
    let mean = views.iter().sum::<f64>() / views.len() as f64;
    assert!((f64::from(model.normaliser().item_mean[0]) - mean).abs() < 1e-3);
    let (slice, config) = (d.all(), quick());
    let fresh = new(&Examples::new(&slice, &config).unwrap(), &small(Encoder::None)).unwrap();
    assert_eq!(fresh.normaliser(), model.normaliser());
    let bias = &fresh.parameters().iter().find(|p| p.name == "heads.bias").unwrap().data;
    let rate = d.stats.positives[0] as f64 / d.stats.rows as f64;
    assert!((f64::from(bias[0]) - (rate / (1.0 - rate)).ln()).abs() < 0.02);
    assert!(bias[2].is_finite() && bias[2] < -5.0, "no hide at all: rare, not impossible");
}

#[test]
fn nothing_to_train_on_and_bad_settings_are_refused() {
    let d = world(3, 8);
    let none = Slice { dataset: &d, requests: Vec::new() };
    let go = |slice: &Slice<'_>, config: &TrainConfig| {
        train(slice, &small(Encoder::None), config, None, &mut |_| Control::Continue).unwrap_err()
    };
    assert!(matches!(go(&none, &quick()), TrainError::Empty));
    assert!(matches!(go(&d.all(), &TrainConfig { epochs: 0, ..quick() }), TrainError::Config(_)));
}

#[test]
fn rare_values_are_missing_in_training_and_in_what_is_trained() {
    let mut schema = (*schema()).clone();
    if let FeatureKind::Categorical { min_count, .. } = &mut schema.user_features[0] {
        *min_count = 3;
    }
    let mut log = Vec::new();
    for u in 0..40 {
        let (name, level) =
            (format!("u{u}"), if u % 4 == 0 { format!("own {u}") } else { "common".to_owned() });
        log.push(user(&name, &level));
        log.push(Event::Impression(impression(&name, &name, &["a", "b"], 100)));
        log.push(action(&name, "a", "click", 110, &name));
    }
    let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    let d = join(&std::sync::Arc::new(schema), log, JoinOptions::default()).unwrap();
    let (model, _) = run(&d, &small(Encoder::None), &quick());
    let start = Model::new(small(Encoder::None), &d.schema, quick().seed).unwrap();
    let row = |m: &Model, level: &str| {
        let at = 2 * if level.is_empty() { 0 } else { bucket(level, 1000) as usize };
        m.parameters().iter().find(|p| p.name == "user.level").unwrap().data[at..at + 2].to_vec()
    };
    for (level, learned) in [("common", true), ("", true), ("own 0", false), ("own 36", false)] {
        assert_eq!(row(&model, level) != row(&start, level), learned, "`{level}`");
    }
    let score = |level: Option<u32>| {
        let mut batch = FeatureBatch::default();
        let request = &d.requests[1];
        push_rows(&mut batch, &d, request, &request.context(), &[], request.candidates.iter());
        batch.user.categorical[0] = level.unwrap_or(0);
        model.score(&batch, &mut lately_model::Scratch::default()).unwrap()
    };
    assert_eq!(score(Some(bucket("own 36", 1000))), score(None));
    assert_ne!(score(Some(bucket("common", 1000))), score(None));
    assert_eq!(model.admission().counts().map(|(_, n, _)| n).collect::<Vec<_>>(), [1]);
}
