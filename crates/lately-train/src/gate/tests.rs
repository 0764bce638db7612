use std::convert::Infallible;

use super::*;
use crate::chunks::Chunks;
use crate::dates::Zone;
use crate::eval::{EvalOptions, evaluate};
use crate::fixtures::*;
use crate::join::{JoinOptions, join};
use crate::scores::Scores;
use lately_features::Event;
use lately_features::{FeatureBatch, Features};
use lately_model::{Golden, Model, ModelConfig};
use std::sync::Arc;

/// What is wrong with a challenger beside its scores.
#[derive(Clone, Copy)]
enum Broken {
    Weight,
    Golden,
    Slow,
}

/// 60 requests of two items, of which the first is clicked; scorers give it a logit, the other the opposite.
fn verdict(logits: &[f32], config: &GateConfig, broken: Option<Broken>) -> Verdict {
    let mut log = Vec::new();
    for u in 0..60 {
        let name = format!("u{u}");
        log.push(Event::Impression(impression(&name, &name, &["a", "b"], u)));
        log.push(action(&name, "a", "click", u + 1, &name));
    }
    let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    let d = join(&schema(), log, JoinOptions::default()).unwrap();
    let slice = d.all();
    let scorer = |logit: &f32| Scores {
        name: logit.to_string(),
        rows: (0..120).flat_map(|row| [if row % 2 == 0 { *logit } else { -logit }, -5.0, -5.0]).collect(),
        in_chunk: None,
        in_user: None,
        logits: true,
    };
    let scorers: Vec<_> = logits.iter().map(scorer).collect();
    let options = EvalOptions { resamples: 50, ..EvalOptions::default() };
    let report = evaluate(&slice, &Chunks::of(&slice, &Zone::utc(), 4), &scorers, &options).unwrap();
    let mut model = model(&d);
    let mut golden = crate::predict::golden(&slice, &model).unwrap();
    match broken {
        Some(Broken::Weight) => model.parameters_mut().for_each(|(_, data)| data[0] = f32::NAN),
        Some(Broken::Golden) => golden = Golden::new(&model, FeatureBatch::default()).unwrap(),
        _ => {}
    }
    let latency =
        matches!(broken, Some(Broken::Slow)).then_some(Latency { challenger: 3.0, champion: Some(1.0) });
    let contest = Contest { challenger: &model, scores: &scorers, report: &report, golden: &golden, latency };
    judge(&contest, config).unwrap()
}

fn model(d: &crate::Dataset) -> Model {
    let config = ModelConfig { cross_width: 8, hidden: vec![8], ..ModelConfig::default() };
    Model::new(config, &d.schema, 1).unwrap()
}

/// Judges what is off by itself: the other heads say the same of every row.
fn config() -> GateConfig {
    GateConfig {
        min_positives: 50,
        min_spread: 0.0,
        calibration_low: 0.5,
        calibration_high: 2.0,
        ..GateConfig::default()
    }
}

fn words(v: &Verdict) -> String {
    v.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn an_equal_or_better_challenger_passes_and_a_first_one_needs_no_champion() {
    for logits in [&[2.0][..], &[2.0, 2.0]] {
        let verdict = verdict(logits, &config(), None);
        assert!(verdict.passed(), "{logits:?}: {verdict:?}");
        assert_eq!(verdict.not_judged, ["save", "hide"]);
    }
}

#[test]
fn a_failure_says_which_number_and_by_how_much() {
    let worse = words(&verdict(&[-1.0, 1.0], &config(), None));
    assert!(worse.contains("click: AUC 0.0000 is below the champion's 1.0000 by 1.0000"), "{worse}");
    assert!(
        worse.contains("click: log loss 1.31326 exceeds the champion's 0.31326 by 3.1922 of it"),
        "{worse}"
    );
    assert!(!worse.contains("spread"), "{worse}");
    let of = |logits: &[f32], config: &GateConfig, broken| words(&verdict(logits, config, broken));
    assert!(of(&[1.0], &config(), Some(Broken::Golden)).contains("golden rows (0)"));
    let slow = of(&[1.0], &config(), Some(Broken::Slow));
    assert_eq!(slow, "a candidate takes 3.00 us, the champion 1.00: at most 1.50 may be");
    let few = GateConfig { min_positives: 100, ..config() };
    assert!(of(&[1.0], &few, None).contains("hold out more days"));
    let strict = GateConfig { calibration_high: 1.0, calibration_low: 1.0, ..config() };
    assert!(of(&[1.0], &strict, None).is_empty(), "1.000 is in its own interval");
    let shifted = of(&[9.0, 1.0], &GateConfig { log_loss_margin: 1.0, ..config() }, None);
    assert!(
        shifted.contains("click: the probabilities moved away from the champion's by a PSI of"),
        "{shifted}"
    );
    assert!(of(&[40.0], &config(), None).contains("click: a logit of 40.0, at most 30 may be"));
    let same = of(&[0.0], &GateConfig { min_spread: 0.001, ..config() }, None);
    assert!(same.contains("click: its logits spread by 0.00e0"), "{same}");
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    let verdict = verdict(&[1.0], &config(), Some(Broken::Weight));
    let named = |f: &Failure| matches!(f, Failure::NotFinite { parameter } if !parameter.is_empty());
    assert!(verdict.failures.iter().any(named), "{verdict:?}");
}

#[test]
fn calibration_fails_where_its_whole_interval_is_out() {
    // 60 of 120 rows are positive; a probability of sigmoid(3) for both of a pair's rows would be 1.9 times too high.
    let off = GateConfig { calibration_high: 0.9, ..config() };
    let failed = words(&verdict(&[1.0], &off, None));
    assert!(failed.contains("click, all: predicted over observed is 1.000"), "{failed}");
}

/// Requests of two items of many users: of `n`, the first is clicked, and the second in its place if `flipped`.
fn shown(n: i64, flipped: bool, user: impl Fn(i64) -> String) -> Vec<Event> {
    let one = |k: i64| {
        let (name, user) = (format!("r{flipped}{k}"), user(k));
        // Of thirty of each, so that no few items decide.
        let (a, b) = (format!("a{}", k % 30), format!("b{}", k % 30));
        let clicked = if flipped { &b } else { &a };
        let at = 10 * k + if flipped { 100_000 } else { 0 };
        [
            Event::Impression(impression(&name, &user, &[&a, &b], at)),
            action(&user, clicked, "click", at + 1, &name),
        ]
    };
    (0..n).flat_map(one).collect()
}

/// Judges the rows of the second list after those of the first, by a champion that was trained on the first.
fn rows(before: Vec<Event>, after: Vec<Event>, config: &GateConfig) -> Verdict {
    let pair = |k: usize| {
        [item(&format!("a{k}"), [1.0, 0.0, 0.0, 0.0], 3.0), item(&format!("b{k}"), [0.0, 1.0, 0.0, 0.0], 5.0)]
    };
    let start = (0..30).flat_map(pair);
    let border = after.iter().map(Event::time_ms).min().unwrap();
    let log = start.chain(before).chain(after).enumerate();
    let d = join(&schema(), log.map(|(i, e)| Ok::<_, Infallible>((i as u64, e))), JoinOptions::default())
        .unwrap();
    let seen = d.slice(crate::DateRange { start_ms: i64::MIN, end_ms: border });
    let new = d.slice(crate::DateRange { start_ms: border, end_ms: i64::MAX });
    let train = crate::TrainConfig { epochs: 6, batch_rows: 64, learning_rate: 1e-2, ..Default::default() };
    let small = ModelConfig {
        cross_width: 8,
        hidden: vec![8],
        encoder: lately_model::Encoder::None,
        ..ModelConfig::default()
    };
    let outcome = crate::train(&seen, &small, &train, None, &mut |_| crate::Control::Continue).unwrap();
    let crate::Outcome::Finished { model, .. } = outcome else { panic!("nobody stopped it") };
    let mut manifest = lately_model::Manifest::new(&model, &d.schema, 1);
    manifest.metrics.insert("gate.auc.click".to_owned(), 0.9);
    judge_rows(&new, &seen, Some((&model, &manifest)), config, 2).unwrap()
}

#[test]
fn rows_like_those_before_can_be_learned_from() {
    let users = |k: i64| format!("u{}", k % 40);
    let more = shown(200, false, users).into_iter().map(|e| later(e, 50_000)).collect();
    let verdict = rows(shown(300, false, users), more, &GateConfig::default());
    assert!(verdict.passed(), "{verdict:?}");
}

/// The same, some seconds later, under another request id.
fn later(event: Event, seconds: i64) -> Event {
    let id = |r: &lately_features::RequestId| lately_features::RequestId::new(format!("{r}later")).unwrap();
    match event {
        Event::Impression(mut i) => {
            (i.time_ms, i.request) = (i.time_ms + 1000 * seconds, id(&i.request));
            Event::Impression(i)
        }
        Event::Action(mut a) => {
            a.event_id = lately_features::EventId::new(format!("{}later", a.event_id)).unwrap();
            (a.time_ms, a.request) = (a.time_ms + 1000 * seconds, a.request.as_ref().map(id));
            Event::Action(a)
        }
        other => other,
    }
}

#[test]
fn labels_that_were_turned_round_are_found_by_the_champion() {
    let users = |k: i64| format!("u{}", k % 40);
    let words = words(&rows(shown(300, false, users), shown(200, true, users), &GateConfig::default()));
    assert!(words.contains("click: the champion's AUC on the new rows is 0.0000, it was 0.9000"), "{words}");
}

#[test]
fn one_user_with_half_of_the_rows_is_refused() {
    let users = |k: i64| if k % 2 == 0 { "bot".to_owned() } else { format!("u{}", k % 40) };
    let normal = |k: i64| format!("u{}", k % 40);
    let more = shown(200, false, users).into_iter().map(|e| later(e, 50_000)).collect();
    let words = words(&rows(shown(300, false, normal), more, &GateConfig::default()));
    assert!(words.contains("one user has 50.0 % of the new rows, at most 20.0 % may be"), "{words}");
}

#[test]
fn a_rate_that_jumps_and_features_that_vanish_are_refused() {
    let users = |k: i64| format!("u{}", k % 40);
    // Ten times fewer clicks, on items that nobody described.
    let odd = |e: Event, n: usize| match e {
        Event::Impression(mut i) => {
            i.items
                .iter_mut()
                .for_each(|x| x.item = lately_features::ItemId::new(format!("{}x", x.item)).unwrap());
            Some(Event::Impression(i))
        }
        Event::Action(mut a) => {
            a.item = lately_features::ItemId::new(format!("{}x", a.item)).unwrap();
            (n % 20 == 1).then_some(Event::Action(a))
        }
        other => Some(other),
    };
    let more = shown(400, false, users).into_iter().map(|e| later(e, 50_000)).enumerate();
    let more = more.filter_map(|(n, e)| odd(e, n)).collect();
    let words = words(&rows(shown(300, false, users), more, &GateConfig::default()));
    assert!(words.contains("click: its rate in the new rows is 0.05000, before 0.50000"), "{words}");
    assert!(words.contains("item.vector: 0.0 % of the new rows have it, 100.0 % had before"), "{words}");
}

#[test]
fn rows_that_are_no_numbers_are_counted() {
    let log = shown(10, false, |k| format!("u{k}")).into_iter().enumerate();
    let mut d = join(&schema(), log.map(|(i, e)| Ok::<_, Infallible>((i as u64, e))), JoinOptions::default())
        .unwrap();
    let broken = Features {
        embedding: vec![f32::NAN; 4].into(),
        numeric: vec![0.0].into(),
        categorical: vec![0; 2].into(),
    };
    d.requests[3].candidates[1].features = Some(Arc::new(broken));
    let none = d.slice(crate::DateRange { start_ms: 0, end_ms: 0 });
    let verdict = judge_rows(&d.all(), &none, None, &GateConfig::default(), 1).unwrap();
    assert_eq!(verdict.failures, [Failure::NotFiniteRows { rows: 1, first: "b3".to_owned() }]);
}

#[test]
fn bounds_out_of_range_are_refused_by_name() {
    let bad = GateConfig { calibration_low: 1.5, ..GateConfig::default() };
    assert_eq!(
        bad.check().unwrap_err().to_string(),
        "[gate] calibration_low is 1.5: it must be above 0, to 1"
    );
    GateConfig::default().check().unwrap();
}
