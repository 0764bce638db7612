use std::convert::Infallible;

use super::*;
use crate::chunks::ChunkKind;
use crate::dataset::Dataset;
use crate::dates::Zone;
use crate::fixtures::*;
use crate::join::{JoinOptions, join};
use lately_features::Event;

/// 60 users, 6 single-item requests each on one day; item k of a user is clicked with probability 0.2 + 0.1 k.
fn world() -> Dataset {
    let mut random = Random::of(11, &[]);
    let mut log = Vec::new();
    for u in 0..60 {
        let name = format!("u{u}");
        log.push(user(&name, if u % 3 == 0 { "high" } else { "low" }));
        for k in 0..6 {
            let (item, request) = (format!("i{k}"), format!("{name}-{k}"));
            log.push(Event::Impression(impression(&request, &name, &[&item], k)));
            if random.uniform() < 0.2 + 0.1 * k as f64 {
                log.push(action(&name, &item, "click", k + 1, &request));
            }
        }
    }
    let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    join(&schema(), log, JoinOptions::default()).unwrap()
}

/// The click's logit, from the request id's place in the day.
fn scorer(slice: &Slice<'_>, name: &str, of: impl Fn(usize) -> f32) -> Scores {
    let rows = slice.iter().flat_map(|r| {
        let k = ((r.time_ms - T0) / 1000) as usize;
        [of(k), 0.0, 0.0]
    });
    Scores { name: name.into(), rows: rows.collect(), in_chunk: None, in_user: None, logits: true }
}

#[test]
fn a_report_has_values_intervals_and_paired_differences() {
    let d = world();
    let slice = d.all();
    let chunks = Chunks::of(&slice, &Zone::utc(), 4);
    assert_eq!((chunks.kind, chunks.list.len()), (ChunkKind::UserDay, 60));
    let logit = |k: usize| (0.2 + 0.1 * k as f32).ln() - (0.8 - 0.1 * k as f32).ln();
    let scorers = [scorer(&slice, "true", logit), scorer(&slice, "flat", |_| -0.2)];
    let options = EvalOptions { resamples: 100, seed: 3, threads: 2 };
    let report = evaluate(&slice, &chunks, &scorers, &options).unwrap();
    let all = report.group("click", Group::All).unwrap();
    assert_eq!((all.rows, report.users, all.chunks), (360, 60, 60));
    let flat = &all.scorers[1].metrics;
    assert_eq!((flat.auc.value, flat.auc.low, flat.auc.high), (Some(0.5), Some(0.5), Some(0.5)));
    let own = &all.scorers[0].metrics;
    let (low, value, high) = (own.auc.low.unwrap(), own.auc.value.unwrap(), own.auc.high.unwrap());
    // The AUC of this world, over pairs of k with probabilities p: known in closed form.
    let p = |k: i32| 0.2 + 0.1 * f64::from(k);
    let (mut won, mut pairs) = (0.0, 0.0);
    for a in 0..6 {
        for b in 0..6 {
            let weight = p(a) * (1.0 - p(b));
            pairs += weight;
            won += weight * if a == b { 0.5 } else { f64::from(u8::from(a > b)) };
        }
    }
    assert!(low < value && value < high);
    assert!(low < won / pairs && won / pairs < high, "{low} {} {high}", won / pairs);
    assert!((own.calibration.value.unwrap() - 1.0).abs() < 0.2);
    assert!((flat.hit_at_3.value.unwrap() - all.random_hit_at_3.unwrap()).abs() < 0.25, "ties are shuffled");
    assert!(own.hit_at_3.value > flat.hit_at_3.value);
    let difference = &all.differences[0].metrics.auc;
    assert!((difference.value.unwrap() - (value - 0.5)).abs() < 1e-12);
    assert!(difference.low.unwrap() > 0.0);
    let core = report.group("click", Group::Core).unwrap();
    assert_eq!(core.rows + report.group("click", Group::NonCore).unwrap().rows, 360);
    let empty = slice.iter().filter(|r| r.tokens.is_empty()).count();
    assert_eq!(report.group("click", Group::History0).unwrap().rows, empty);
    let hide = report.group("hide", Group::All).unwrap();
    assert_eq!(hide.scorers[0].metrics.auc.value, None, "no positives, no AUC");
}

#[test]
fn the_report_depends_on_the_seed_and_not_on_the_threads() {
    let d = world();
    let slice = d.all();
    let chunks = Chunks::of(&slice, &Zone::utc(), 4);
    let scorers = [scorer(&slice, "k", |k| k as f32)];
    let json = |seed, threads| {
        let options = EvalOptions { resamples: 20, seed, threads };
        serde_json::to_string(&evaluate(&slice, &chunks, &scorers, &options).unwrap()).unwrap()
    };
    assert_eq!(json(1, 1), json(1, 3));
    assert_ne!(json(1, 1), json(2, 1));
    let report = evaluate(&slice, &chunks, &scorers, &EvalOptions::default()).unwrap();
    assert!(crate::table::table(&report).contains("history 1-9"));
    let svg = crate::plot::auc_by_history(&report).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("AUC, click") && svg.contains("history 1-9"));
}

#[test]
fn scores_of_other_rows_are_refused() {
    let d = world();
    let slice = d.all();
    let chunks = Chunks::of(&slice, &Zone::utc(), 4);
    let mut scores = scorer(&slice, "s", |_| 0.0);
    scores.rows[4] = f32::NAN;
    let run = |s: &Scores| evaluate(&slice, &chunks, std::slice::from_ref(s), &EvalOptions::default());
    assert_eq!(run(&scores).unwrap_err(), EvalError::NotFinite("s".into()));
    scores.rows.pop();
    assert!(matches!(run(&scores).unwrap_err(), EvalError::Length { got: 1079, want: 1080, .. }));
}

/// 70 users with rates of their own; each sees 16 single items on one day and clicks at its rate, whatever the item.
fn steady() -> Dataset {
    let mut random = Random::of(5, &[]);
    let mut log = Vec::new();
    for u in 0..70 {
        let name = format!("u{u}");
        let rate = 0.2 + 0.1 * f64::from(u % 7);
        for k in 0..16 {
            let request = format!("{name}-{k}");
            log.push(Event::Impression(impression(&request, &name, &[&format!("i{k}")], 10 * k)));
            let what = if random.uniform() < rate { "click" } else { "seen" };
            log.push(action(&name, &format!("i{k}"), what, 10 * k + 1, &request));
        }
    }
    let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    join(&schema(), log, JoinOptions::default()).unwrap()
}

/// The rate of clicks in a request's sequence: an honest estimate of the user's own, and nothing else.
fn rate(r: &Request, heads: usize) -> impl Iterator<Item = f32> {
    let clicks = r.tokens.iter().filter(|t| t.action == 1).count() as f32;
    std::iter::repeat_n((clicks + 1.0) / (r.tokens.len() as f32 + 2.0), heads)
}

#[test]
fn within_a_user_a_rate_orders_nothing_but_streaming_it_looks_harmful() {
    let d = steady();
    let mut slice = d.all();
    slice.requests.retain(|at| d.requests[*at as usize].time_ms >= T0 + 60_000); // six tokens by then
    let chunks = Chunks::of(&slice, &Zone::utc(), 4);
    assert_eq!(chunks.kind, ChunkKind::UserDay);
    let first = |r: &Request| slice.iter().find(|f| f.user == r.user).unwrap();
    let fixed: Vec<f32> = slice.iter().flat_map(|r| rate(first(r), d.heads())).collect();
    let own = Scores {
        name: "rate".into(),
        rows: slice.iter().flat_map(|r| rate(r, d.heads())).collect(),
        in_chunk: None,
        in_user: None,
        logits: false,
    };
    let scores = Scores { in_chunk: Some(fixed.clone()), in_user: Some(fixed), ..own.clone() };
    let options = EvalOptions { resamples: 50, ..EvalOptions::default() };
    let report = evaluate(&slice, &chunks, &[scores], &options).unwrap();
    let metrics = &report.group("click", Group::All).unwrap().scorers[0].metrics;
    assert!(metrics.auc.low.unwrap() > 0.55, "the rates differ between users: {:?}", metrics.auc);
    assert!(metrics.user_auc_streaming.high.unwrap() < 0.48, "{:?}", metrics.user_auc_streaming);
    let half = Estimate { value: Some(0.5), low: Some(0.5), high: Some(0.5) };
    assert_eq!((metrics.user_auc, metrics.list_auc), (half, half));
    let report = evaluate(&slice, &chunks, &[own], &options).unwrap();
    let metrics = &report.group("click", Group::All).unwrap().scorers[0].metrics;
    assert_eq!(metrics.user_auc, metrics.user_auc_streaming, "one column is both");
}

#[test]
fn list_auc_is_the_mean_over_lists_with_both_classes() {
    let mut log = Vec::new();
    for (user, clicked) in
        [("u", [true, false, false, true]), ("v", [false; 4]), ("w", [true, false, true, true])]
    {
        for (k, clicked) in (0..).zip(clicked) {
            let request = format!("{user}{k}");
            log.push(Event::Impression(impression(&request, user, &[&request], k)));
            if clicked {
                log.push(action(user, &request, "click", k + 10, &request));
            }
        }
    }
    log.sort_by_key(Event::time_ms);
    let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    let d = join(&schema(), log, JoinOptions::default()).unwrap();
    let slice = d.all();
    let chunks = Chunks::of(&slice, &Zone::utc(), 4);
    let by_place = |values: [f32; 4]| {
        let value = |r: &Request| [values[((r.time_ms - T0) / 1000) as usize], 0.0, 0.0];
        slice.iter().flat_map(value).collect::<Vec<f32>>()
    };
    // u: 3 beats 1 and 2, 2 beats 1 and ties with 2: 3.5 of 4 pairs. w: 3 and one 2 beat 1, as does the other: 3 of 3.
    let scores = Scores {
        name: "s".into(),
        rows: by_place([0.0; 4]),
        in_chunk: Some(by_place([3.0, 1.0, 2.0, 2.0])),
        in_user: None,
        logits: true,
    };
    let report = evaluate(&slice, &chunks, &[scores], &EvalOptions::default()).unwrap();
    let all = report.group("click", Group::All).unwrap();
    let metrics = &all.scorers[0].metrics;
    assert_eq!((all.chunks, metrics.list_auc.value), (3, Some((3.5 / 4.0 + 1.0) / 2.0)));
    assert_eq!(metrics.auc.value, Some(0.5), "rows are scored with their own sequences");
    assert_eq!(metrics.user_auc.value, Some(0.5));
}
