use std::convert::Infallible;

use super::*;
use crate::fixtures::*;

fn joined(events: Vec<Event>, options: JoinOptions) -> Dataset {
    let log = events.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    join(&schema(), log, options).unwrap()
}

fn dataset(events: Vec<Event>) -> Dataset {
    joined(events, JoinOptions::default())
}

fn ranked_at(watermark: u64, impression: Impression) -> Event {
    Event::Impression(Impression { watermark: Some(watermark), ..impression })
}

/// The types of a request's tokens.
fn types(d: &Dataset, request: usize) -> Vec<u8> {
    d.requests[request].tokens.iter().map(|t| t.action).collect()
}

fn labels(d: &Dataset, request: usize, candidate: usize) -> Vec<bool> {
    (0..d.heads()).map(|h| d.label(&d.requests[request].candidates[candidate], h)).collect()
}

#[test]
fn a_late_event_never_leaks() {
    // The click at second 5 arrives after the request at second 10 was ranked and logged.
    let d = dataset(vec![
        action("u", "a", "seen", 1, ""),
        Event::Impression(impression("r", "u", &["x"], 10)),
        action("u", "b", "click", 5, ""),
        Event::Impression(impression("s", "u", &["x"], 11)),
    ]);
    assert_eq!(types(&d, 0), [0]);
    assert_eq!(types(&d, 1), [1, 0]);
}

#[test]
fn the_watermark_hides_what_was_logged_between_ranking_and_impression() {
    let d = dataset(vec![
        item("a", [1.0; 4], 1.0),                           // 0
        action("u", "a", "seen", 1, ""),                    // 1
        action("u", "b", "click", 2, ""),                   // 2: not yet seen by the ranker
        item("a", [2.0; 4], 2.0),                           // 3: nor this change
        user("u", "high"),                                  // 4: nor this
        ranked_at(2, impression("r", "u", &["a", "z"], 3)), // 5
        ranked_at(5, impression("s", "u", &["a", "z"], 4)), // 6
        ranked_at(99, impression("t", "u", &["a"], 5)),     // 7: never ahead of its own record
    ]);
    assert_eq!(types(&d, 0), [0]);
    let first = &d.requests[0];
    assert_eq!(first.candidates[0].features.as_ref().unwrap().embedding[0], 1.0);
    assert_eq!(first.tokens[0].item.as_ref().unwrap().numeric[0], 1.0);
    assert!(first.candidates[1].features.is_none() && first.features.is_none() && !first.core);
    let second = &d.requests[1];
    assert_eq!(types(&d, 1), [1, 0]);
    assert_eq!(second.candidates[0].features.as_ref().unwrap().embedding[0], 2.0);
    assert!(second.core && second.surface == 1);
    assert_eq!(types(&d, 2), [1, 0]);
}

#[test]
fn rows_have_what_a_store_with_its_cap_gave_or_are_left_out() {
    // 10 actions are known at ranking, 3 more come before the impression is logged; the store keeps 8.
    let log = |extra: usize| {
        let mut log: Vec<_> = (0..10).map(|i| action("u", &format!("i{i}"), "seen", i, "")).collect();
        log.extend((0..extra as i64).map(|i| action("u", &format!("n{i}"), "hide", 20 + i, "")));
        log.push(ranked_at(10, impression("r", "u", &["x"], 15)));
        log
    };
    let slack = |slack| JoinOptions { slack, ..JoinOptions::default() };
    let d = joined(log(3), slack(4));
    assert_eq!(types(&d, 0), [0; 8]);
    let times: Vec<_> = d.requests[0].tokens.iter().map(|t| (t.time_ms - T0) / 1000).collect();
    assert_eq!(times, [9, 8, 7, 6, 5, 4, 3, 2]);
    let d = joined(log(6), slack(4));
    assert_eq!((d.requests.len(), d.stats.unknowable), (0, 1));
}

#[test]
fn labels_join_by_request_or_to_the_latest_impression_of_the_item() {
    let d = dataset(vec![
        Event::Impression(impression("r", "u", &["a", "b"], 0)),
        Event::Impression(impression("s", "u", &["a", "b"], 100)),
        action("u", "a", "click", 30, "r"),
        action("u", "a", "save", 130, "r"), // by its request, although `s` is later
        action("u", "b", "hide", 140, ""),  // to the latest: s
        action("v", "a", "click", 30, "r"), // another user's
        action("u", "c", "click", 130, ""), // never shown
        action("u", "a", "click", 20, "q"), // an unknown request
    ]);
    assert_eq!(labels(&d, 0, 0), [true, true, false]);
    assert_eq!(labels(&d, 0, 1), [false; 3]);
    assert_eq!(labels(&d, 1, 0), [false; 3]);
    assert_eq!(labels(&d, 1, 1), [false, false, true]);
    assert_eq!((d.stats.joined_actions, d.stats.unjoined_actions), (3, 3));
    assert_eq!(d.stats.positives, [1, 1, 1]);
}

#[test]
fn an_attribution_window_is_its_actions_own() {
    let d = dataset(vec![
        action("u", "a", "click", -1, ""), // before the impression
        Event::Impression(impression("r", "u", &["a", "b"], 0)),
        action("u", "b", "click", 61, ""), // a click counts for 60 s
        action("u", "b", "save", 600, ""), // a save for 600
        action("u", "a", "share", 1800, ""),
        action("u", "a", "hide", 1801, ""),
    ]);
    assert_eq!(labels(&d, 0, 0), [false, true, false]);
    assert_eq!(labels(&d, 0, 1), [false, true, false]);
    assert_eq!((d.stats.joined_actions, d.stats.late_actions), (2, 3));
}

#[test]
fn an_action_may_be_logged_before_its_impression() {
    let d = dataset(vec![
        action("u", "a", "click", 5, "r"),
        ranked_at(0, impression("r", "u", &["a"], 4)),
        // The phone's clock is 2 minutes behind; the request id proves the order.
        action("u", "a", "save", -116, "r"),
    ]);
    assert_eq!(labels(&d, 0, 0), [true, true, false]);
    assert_eq!(types(&d, 0), [] as [u8; 0]);
}

#[test]
fn degraded_rows_are_left_out_and_keep_their_actions() {
    let degraded = Impression { degraded: vec!["no_sequence".into()], ..impression("s", "u", &["a"], 10) };
    let d = dataset(vec![
        Event::Impression(impression("r", "u", &["a"], 0)),
        Event::Impression(degraded),
        action("u", "a", "click", 11, ""),
    ]);
    assert_eq!((d.requests.len(), d.stats.degraded, d.stats.left_out_actions), (1, 1, 1));
    assert_eq!(labels(&d, 0, 0), [false; 3], "the action belongs to the degraded impression");
}

#[test]
fn a_new_product_learns_from_what_was_ordered_without_a_model() {
    let kept = [&["no_model"][..], &["no_model", "popularity"], &["no_model", "input_order"]];
    let left_out = [
        &["no_model", "no_sequence"][..],
        &["no_model", "no_sequence", "popularity"],
        &["no_model", "cached_ranking"],
    ];
    let d = dataset(shown_with(kept.into_iter().chain(left_out)));
    assert_eq!((d.requests.len(), d.stats.degraded), (3, 3));
}

#[test]
fn no_rung_is_learned_from_whether_by_trouble_or_as_an_exercise() {
    let rungs = [
        "stale_sequence",
        "no_sequence",
        "first_n",
        "last_good_model",
        "cached_ranking",
        "popularity",
        "input_order",
    ];
    let by_trouble = rungs.map(|rung| vec!["model_error", rung]);
    let exercised = rungs.map(|rung| vec![rung, "exercise"]);
    let alone = rungs.map(|rung| vec![rung]);
    let unheard_of = [vec!["no_model", "exercise"], vec!["a_rung_of_tomorrow"]];
    let all: Vec<_> = [&by_trouble[..], &exercised, &alone, &unheard_of].concat();
    let d = dataset(shown_with(all.iter().map(Vec::as_slice).chain([&[][..]])));
    assert_eq!((d.requests.len(), d.stats.degraded), (1, all.len() as u64));
}

/// One impression for each list of rungs.
fn shown_with<'a>(rungs: impl Iterator<Item = &'a [&'a str]>) -> Vec<Event> {
    let shown = |(n, rungs): (usize, &[&str])| {
        let degraded = rungs.iter().map(|r| (*r).to_owned()).collect();
        Event::Impression(Impression { degraded, ..impression(&format!("r{n}"), "u", &["a"], 10 * n as i64) })
    };
    rungs.enumerate().map(shown).collect()
}

#[test]
fn what_is_repeated_counts_once() {
    let d = dataset(vec![
        Event::Impression(impression("r", "u", &["a"], 0)),
        Event::Impression(impression("r", "u", &["a"], 0)),
        action("u", "a", "click", 5, "r"),
        action("u", "a", "click", 5, "r"),
        Event::Impression(impression("s", "u", &["a"], 9)),
    ]);
    assert_eq!((d.requests.len(), d.stats.repeated_impressions, d.stats.repeated_actions), (2, 1, 1));
    assert_eq!((d.stats.joined_actions, types(&d, 1).len()), (1, 1));
}

#[test]
fn a_forgotten_user_leaves_nothing() {
    let d = dataset(vec![
        user("u", "high"),
        action("u", "a", "click", 0, ""),
        Event::Impression(impression("r", "u", &["a"], 1)),
        Event::Impression(impression("q", "v", &["a"], 1)),
        action("u", "a", "click", 2, "r"),
        forget("u"),
        Event::Impression(impression("s", "u", &["a"], 3)),
        action("u", "a", "click", 4, ""),
    ]);
    let users: Vec<_> = d.requests.iter().map(|r| d.users[r.user as usize].as_str()).collect();
    assert_eq!(users, ["v", "u"]);
    assert_eq!((d.stats.forgotten, d.stats.requests), (1, 2));
    assert!(d.requests[1].tokens.is_empty() && d.requests[1].features.is_none());
    assert_eq!(labels(&d, 1, 0), [true, false, false]);
    assert_eq!(labels(&d, 0, 0), [false; 3]);
}

#[test]
fn ranges_and_limits() {
    let log = || {
        vec![
            action("u", "a", "seen", -5, ""),
            Event::Impression(impression("r", "u", &["a", "b"], 0)),
            Event::Impression(impression("s", "u", &["a", "b"], 10)),
        ]
    };
    let range = DateRange { start_ms: T0 + 1, end_ms: i64::MAX };
    let d = joined(log(), JoinOptions { range, ..JoinOptions::default() });
    assert_eq!((d.requests.len(), d.stats.outside, types(&d, 0).len()), (1, 1, 1));
    let few = JoinOptions { max_rows: 3, ..JoinOptions::default() };
    let events = || log().into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    assert!(join(&schema(), events(), few).unwrap_err().to_string().contains("more than 3 rows"));
    let backwards = events().collect::<Vec<_>>().into_iter().rev();
    assert!(matches!(join(&schema(), backwards, JoinOptions::default()), Err(JoinError::Order { .. })));
}

#[test]
fn every_action_is_observed_so_that_label_weights_can_name_it() {
    let d = dataset(vec![
        Event::Impression(impression("r", "u", &["a"], 0)),
        action("u", "a", "seen", 1, "r"),
        action("u", "a", "save", 2, "r"),
    ]);
    assert_eq!(d.requests[0].candidates[0].observed, 0b101);
    assert_eq!(labels(&d, 0, 0), [false, true, false]);
}

#[test]
fn a_table_gives_vectors_to_past_rows_and_tokens_alike() {
    let id = |text: &str| lately_features::ItemId::new(text).unwrap();
    let table = vec![7.0, 7.0, 7.0, 7.0];
    let vectors = lately_features::ItemVectors::new(&schema(), "v7", vec![id("a")], table, None).unwrap();
    let log = || {
        vec![
            item("a", [1.0; 4], 1.0),
            item("b", [2.0; 4], 2.0),
            action("u", "a", "seen", 1, ""),
            Event::Impression(impression("r", "u", &["a", "b", "z"], 10)),
        ]
    };
    let options = JoinOptions { vectors: Some(Arc::new(vectors)), ..JoinOptions::default() };
    let (with, without) = (joined(log(), options), dataset(log()));
    let shown = |d: &Dataset, c: usize| d.requests[0].candidates[c].features.clone().map(|f| f.embedding[0]);
    assert_eq!([0, 1, 2].map(|c| shown(&with, c)), [Some(7.0), Some(0.0), None]);
    assert_eq!(with.requests[0].tokens[0].item.as_ref().unwrap().embedding[..], [7.0; 4]);
    assert_eq!([0, 1, 2].map(|c| shown(&without, c)), [Some(1.0), Some(2.0), None]);
    assert_eq!((with.embedding_version.as_str(), without.embedding_version.as_str()), ("v7", ""));
    assert_ne!(with.all().fingerprint(), without.all().fingerprint());
}
