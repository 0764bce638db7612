mod damage;
mod equivalence;
mod memory;

use std::convert::Infallible;

use lately_features::Impression;

use self::memory::Memory;
use super::*;
use crate::fixtures::*;
use crate::join::{JoinOptions, join};

/// Settings under which nothing of a short log is too late, and small logs make several commits and snapshots.
fn small() -> LakeConfig {
    LakeConfig {
        min_wait_seconds: 0,
        commit_candidates: 6,
        snapshot_records: 13,
        reader_grace_seconds: 0,
        ..LakeConfig::default()
    }
}

fn open(objects: &Arc<Memory>, config: &LakeConfig) -> Result<Lake, LakeError> {
    Lake::open(objects.clone(), &schema(), config)
}

/// Records from an offset on, three at a time, as far as `end`.
fn pages(log: &[Event], end: usize) -> impl FnMut(u64) -> Result<Vec<(u64, Event)>, Infallible> {
    move |from| {
        let from = from as usize;
        let page = from..end.min(from + 3).max(from);
        Ok(page.map(|at| (at as u64, log[at].clone())).collect())
    }
}

/// A dataset as texts, one a row, that name all that training sees.
fn rows(d: &Dataset) -> Vec<String> {
    let row = |r: &crate::dataset::Request| {
        let tokens: Vec<_> =
            r.tokens.iter().map(|t| (t.time_ms, t.action, t.actions, t.surface, t.item.clone())).collect();
        let candidate = |c: &crate::dataset::Candidate| {
            (d.items[c.item as usize].to_string(), c.features.clone(), c.observed, c.position, c.stands_for)
        };
        let candidates: Vec<_> = r.candidates.iter().map(candidate).collect();
        let user = d.users[r.user as usize].as_str();
        format!(
            "{} {} {user} {} {} {:?} {tokens:?} {candidates:?}",
            r.time_ms, r.offset, r.surface, r.core, r.features
        )
    };
    d.requests.iter().map(row).collect()
}

fn joined(log: &[Event], options: JoinOptions) -> Dataset {
    let events = log.iter().cloned().enumerate().map(|(at, e)| Ok::<_, Infallible>((at as u64, e)));
    join(&schema(), events, options).unwrap()
}

/// Requests `r0`, `r1`, ... of users in turn, each of four items, an hour's third apart; the second item is clicked
/// 30 s later, the third saved 300 s later.
fn steady(requests: usize) -> Vec<Event> {
    let mut log: Vec<Event> =
        (0..9u8).map(|n| item(&format!("i{n}"), [f32::from(n); 4], f64::from(n))).collect();
    log.extend((0..5).map(|n| user(&format!("u{n}"), "high")));
    for n in 0..requests {
        let (who, at) = (format!("u{}", n % 5), 1_200 * n as i64);
        let items: Vec<String> = (0..4).map(|k| format!("i{}", (n + k) % 9)).collect();
        let items: Vec<&str> = items.iter().map(String::as_str).collect();
        let request = format!("r{n}");
        log.push(Event::Impression(impression(&request, &who, &items, at)));
        log.push(action(&who, items[1], "click", at + 30, &request));
        log.push(action(&who, items[2], "save", at + 300, ""));
    }
    log
}

/// A lake of a whole log, with all waits over.
fn lake_of(log: &[Event], config: &LakeConfig) -> (Arc<Memory>, Lake) {
    let objects = Arc::new(Memory::default());
    let mut lake = open(&objects, config).unwrap();
    lake.advance(&mut pages(log, log.len()), LATER).unwrap();
    (objects, lake)
}

/// Long after all logs.
const LATER: i64 = T0 + 100_000_000_000;

fn all(lake: &Lake) -> Dataset {
    lake.read(DateRange::ALL, None).unwrap()
}

#[test]
fn rows_wait_as_long_as_labels_take_and_what_comes_later_is_a_correction() {
    let mut log = steady(400);
    let late_seconds = 30 * 86_400;
    let config =
        LakeConfig { min_wait_seconds: 0, commit_candidates: 1, late_seconds, ..LakeConfig::default() };
    let objects = Arc::new(Memory::default());
    let mut lake = open(&objects, &config).unwrap();
    let done = lake.advance(&mut pages(&log, log.len()), T0 + 1_200 * 399 * 1000).unwrap();
    let wait = lake.summary().wait_seconds;
    assert!(
        (1_800.0..=1_801.0).contains(&wait),
        "`hide` and `share` may take half an hour, as none was seen: {wait}"
    );
    assert_eq!((done.open, done.corrections), (2, 0));
    // Then they come within a minute.
    for n in 0..200 {
        let (who, shown) = (format!("u{}", n % 5), format!("i{}", n % 9));
        let at = 1_200 * n as i64 + 60;
        log.push(action(&who, &shown, "hide", at, &format!("r{n}")));
        log.push(action(&who, &shown, "share", at, &format!("r{n}")));
    }
    let done = lake.advance(&mut pages(&log, log.len()), T0 + 1_200 * 400 * 1000).unwrap();
    assert!(done.corrections > 150, "rows were written long before: {done:?}");
    let summary = lake.summary();
    assert_eq!(summary.late_positives[3..], [200, 200]);
    assert_eq!(rows(&all(&lake)), rows(&joined(&log[..], JoinOptions::default()))[..summary.rows as usize]);
}

#[test]
fn requests_that_wait_keep_their_labels_however_far_the_log_goes_on() {
    let log = steady(200);
    for commit_candidates in [1, 40, 90, 10_000] {
        let config = LakeConfig { commit_candidates, late_seconds: 0, ..small() };
        let (_, lake) = lake_of(&log, &config);
        assert_eq!(rows(&all(&lake)), rows(&joined(&log, JoinOptions::default())));
        let kept: usize = lake.stream.labels.pasts.iter().map(|past| past.shown.len()).sum();
        assert!(kept <= 5, "half an hour holds two requests: {kept}");
    }
}

#[test]
fn an_hour_becomes_one_file_with_its_corrections_and_a_second_time_nothing() {
    let log = steady(300);
    let late_seconds = 30 * 86_400;
    let (objects, mut lake) = lake_of(&log, &LakeConfig { commit_candidates: 4, late_seconds, ..small() });
    let before = (rows(&all(&lake)), lake.summary().files);
    assert!(before.1 >= 300 && lake.summary().corrections == 0);
    let late = (0..300).map(|n| {
        action(
            &format!("u{}", n % 5),
            &format!("i{}", (n + 3) % 9),
            "hide",
            1_200 * n as i64 + 700,
            &format!("r{n}"),
        )
    });
    let log: Vec<Event> = log.into_iter().chain(late).collect();
    lake.advance(&mut pages(&log, log.len()), LATER).unwrap();
    assert!(lake.summary().corrections > 0);
    let done = lake.maintain(LATER).unwrap();
    let summary = lake.summary();
    assert_eq!((done.hours, summary.files), (100, 101), "the last hour has one request");
    assert_eq!(rows(&all(&lake)), rows(&joined(&log, JoinOptions::default())));
    assert_eq!(lake.maintain(LATER).unwrap(), Maintained::default());
    assert_eq!(lake.summary().files, 101);
    // A reader of before still finds what it was about to read, until its grace is over.
    let (manifest, patient) = (lake.manifest.number, LakeConfig { reader_grace_seconds: 1, ..small() });
    drop(lake);
    let mut lake = open(&objects, &patient).unwrap();
    let log: Vec<Event> = log.into_iter().chain(steady(310).split_off(14 + 3 * 300)).collect();
    lake.advance(&mut pages(&log, log.len()), LATER).unwrap();
    let former = Manifest::numbered(&*objects, 0, lake.manifest.number).unwrap().unwrap();
    lake.maintain(LATER + 1).unwrap();
    assert!(lake.manifest.number > manifest);
    let read = lake.reader.read_of(&former, DateRange::ALL, None, false).unwrap();
    assert_eq!(rows(&read), rows(&all(&lake)));
    lake.maintain(LATER + 2_000).unwrap();
    lake.maintain(LATER + 2_000).unwrap();
    let gone = lake.reader.read_of(&former, DateRange::ALL, None, false);
    assert!(matches!(gone, Err(LakeError::Gone(_))), "{:?}", gone.err());
}

#[test]
fn old_negatives_are_thinned_and_stand_for_those_that_went() {
    let log = steady(2_000);
    let config = LakeConfig { thin_after_days: 3, negative_rate: 0.25, ..small() };
    let (_, mut lake) = lake_of(&log, &LakeConfig { commit_candidates: 100, ..config });
    let (before, whole) = (all(&lake), lake.summary().candidates);
    lake.maintain(LATER).unwrap();
    let after = all(&lake);
    assert_eq!(after.requests.len(), before.requests.len());
    let left = lake.summary().candidates;
    assert!(left < whole * 7 / 10, "two of four are positive: {left} of {whole}");
    assert_eq!(before.all().positives(), after.all().positives());
    let (mut thin, mut stand_for) = (0.0, 0.0);
    for (a, b) in after.requests.iter().zip(&before.requests) {
        if a.candidates.iter().any(|c| c.stands_for != 1.0) {
            thin += 2.0;
            stand_for +=
                a.candidates.iter().filter(|c| c.observed == 0).map(|c| f64::from(c.stands_for)).sum::<f64>();
        }
        let of = |c: &crate::dataset::Candidate| (c.position, c.observed);
        let there: Vec<_> = b.candidates.iter().map(of).collect();
        assert!(a.candidates.iter().all(|c| there.contains(&of(c))
            && c.stands_for == if c.observed == 0 && a.candidates.len() < 4 { 4.0 } else { c.stands_for }));
    }
    assert!(thin > 500.0 && stand_for > 0.0);
    let all_negatives = 2.0 * before.requests.len() as f64;
    let sum: f64 = after
        .requests
        .iter()
        .flat_map(|r| &r.candidates)
        .filter(|c| c.observed == 0)
        .map(|c| f64::from(c.stands_for))
        .sum();
    assert!((sum / all_negatives - 1.0).abs() < 0.1, "{sum} of {all_negatives}"); // 2.4 standard deviations
    assert_eq!(lake.maintain(LATER).unwrap().rows, 0, "what is thin is not thinned again");
    let newest = after.requests.iter().rev().take(100);
    assert!(newest.flat_map(|r| &r.candidates).all(|c| c.stands_for == 1.0), "three days stay whole");
}

#[test]
fn files_past_retention_go() {
    let log = steady(300);
    let (objects, mut lake) = lake_of(&log, &LakeConfig { retention_days: 2, ..small() });
    let now = T0 + 1_200 * 300 * 1000;
    let done = lake.maintain(now).unwrap();
    assert!(done.dropped > 0);
    let oldest = all(&lake).requests[0].time_ms;
    assert!((now - 2 * 86_400_000 - 3_600_000..=now - 2 * 86_400_000).contains(&oldest));
    lake.maintain(now).unwrap();
    lake.maintain(now).unwrap();
    let kept = objects.names().iter().filter(|name| name.starts_with("requests/")).count() as u64;
    assert_eq!(kept, lake.summary().files);
}

#[test]
fn what_is_no_example_is_marked_and_left_out_unless_asked_for() {
    let mut log = vec![Event::Impression(impression("r", "u", &["a"], 0))];
    let degraded = vec!["no_sequence".to_owned()];
    log.push(Event::Impression(Impression { degraded, ..impression("s", "u", &["a"], 10) }));
    log.push(action("u", "a", "click", 11, "")); // of the degraded one
    log.extend((0..50).map(|n| action("v", "a", "seen", n, "")));
    log.push(Event::Impression(impression("t", "v", &["a"], 60)));
    let watermark = Some(4); // 49 actions of v are above it, and 8 + 8 are kept
    log.push(Event::Impression(Impression { watermark, ..impression("q", "v", &["a"], 61) }));
    let config = LakeConfig { bot_actions_per_hour: 40, slack: 8, ..small() };
    let (_, lake) = lake_of(&log, &config);
    assert_eq!(all(&lake).requests.len(), 1);
    let reader = lake.reader();
    let every = reader.read_all(DateRange::ALL, None).unwrap();
    let offsets: Vec<u64> = every.requests.iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [0, 1, 53, 54]);
    assert_eq!(
        every.requests[1].candidates[0].observed, 0b10,
        "rows that are left out have their labels too"
    );
    assert_eq!((every.stats.degraded, every.stats.unknowable), (1, 1));
    let patient = LakeConfig { bot_actions_per_hour: 50, ..config };
    assert_eq!(all(&lake_of(&log, &patient).1).requests.len(), 2);
}

#[test]
fn a_table_of_vectors_is_laid_over_at_read_as_the_join_lays_it_over() {
    let log = steady(60);
    let (_, lake) = lake_of(&log, &small());
    let ids = ["i0", "i3"].map(|id| lately_features::ItemId::new(id).unwrap());
    let table = vec![7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0];
    let vectors = lately_features::ItemVectors::new(&schema(), "v7", ids.to_vec(), table, None).unwrap();
    let vectors = Some(Arc::new(vectors));
    let got = lake.read(DateRange::ALL, vectors.clone()).unwrap();
    let want = joined(&log, JoinOptions { vectors, ..JoinOptions::default() });
    assert_eq!(rows(&got), rows(&want));
    assert_eq!(got.embedding_version, "v7");
    assert_ne!(rows(&got), rows(&all(&lake)));
    let range = DateRange { start_ms: T0 + 1_200_000 * 10, end_ms: T0 + 1_200_000 * 20 };
    let got = lake.read(range, None).unwrap();
    assert_eq!(rows(&got), rows(&joined(&log, JoinOptions { range, ..JoinOptions::default() })));
    assert_eq!(got.requests.len(), 10);
}

#[test]
fn of_two_who_advance_one_wins_and_nothing_is_there_twice() {
    let log = steady(60);
    let objects = Arc::new(Memory::default());
    let mut first = open(&objects, &small()).unwrap();
    first.advance(&mut pages(&log, 60), LATER).unwrap();
    let mut second = open(&objects, &small()).unwrap();
    second.advance(&mut pages(&log, 120), LATER).unwrap();
    let error = first.advance(&mut pages(&log, log.len()), LATER).unwrap_err();
    assert!(matches!(error, LakeError::Taken { .. }), "{error}");
    assert!(matches!(first.maintain(LATER), Err(LakeError::Broken)));
    second.advance(&mut pages(&log, log.len()), LATER).unwrap();
    assert_eq!(rows(&all(&second)), rows(&joined(&log, JoinOptions::default())));
    let other = LakeConfig { partition: 1, ..small() };
    let mut other = open(&objects, &other).unwrap();
    other.advance(&mut pages(&log, 90), LATER).unwrap();
    assert_eq!(rows(&all(&second)), rows(&all(&open(&objects, &small()).unwrap())), "partitions do not meet");
    let mut schema = (*schema()).clone();
    schema.surfaces.push("more".to_owned());
    let refused = Lake::open(objects, &Arc::new(schema), &small());
    assert!(matches!(refused, Err(LakeError::Schema { .. })));
}

#[test]
fn who_is_forgotten_is_gone_at_once_and_from_the_files_at_the_next_maintenance() {
    let mut log = steady(60);
    let objects = Arc::new(Memory::default());
    let mut lake = open(&objects, &small()).unwrap();
    lake.advance(&mut pages(&log, log.len()), LATER).unwrap();
    log.push(forget("u3"));
    lake.advance(&mut pages(&log, log.len()), LATER).unwrap();
    assert_eq!(rows(&all(&lake)), rows(&joined(&log, JoinOptions::default())));
    assert_eq!(lake.summary().forgotten, 1);
    let holds = |objects: &Memory| {
        let all = objects.objects.lock().unwrap();
        let in_requests = |(name, bytes): (&String, &Vec<u8>)| {
            name.starts_with("requests/")
                && columns::Requests::from_parquet(bytes.clone(), |c| c == "user")
                    .unwrap()
                    .user
                    .values
                    .iter()
                    .any(|u| u.data() == b"u3")
        };
        let in_state = |(name, bytes): (&String, &Vec<u8>)| {
            name.ends_with(".snapshot") && bytes.windows(2).any(|two| two == b"u3")
        };
        (all.iter().any(in_requests), all.iter().any(in_state))
    };
    assert!(holds(&objects).0);
    // What was replaced stays for as long as somebody may read it, here not at all, and one manifest more.
    for _ in 0..3 {
        lake.maintain(LATER).unwrap();
    }
    let more = steady(70).split_off(14 + 3 * 60);
    log.extend(more.into_iter().filter(|e| e.user().is_none_or(|u| u.as_str() != "u3")));
    lake.advance(&mut pages(&log, log.len()), LATER).unwrap();
    lake.maintain(LATER).unwrap();
    assert_eq!(holds(&objects), (false, false));
    assert_eq!(rows(&all(&lake)), rows(&joined(&log, JoinOptions::default())));
}
