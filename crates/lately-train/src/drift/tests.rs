use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use lately_features::{Event, Impression, Schema};

use super::served::calibration;
use super::*;
use crate::dataset::Dataset;
use crate::fixtures::*;
use crate::join::{JoinOptions, join};
use crate::replay::Logged;

const BOUNDS: Bounds = Bounds { psi: 0.25, coverage: 0.1 };

fn joined(events: Vec<Event>) -> Dataset {
    let log = events.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    join(&schema(), log, JoinOptions::default()).unwrap()
}

fn column<'a>(profile: &'a Profile, name: &str) -> &'a Column {
    profile.columns.iter().find(|c| c.name == name).unwrap()
}

#[test]
fn psi_is_what_a_hand_computes() {
    // (0.25 - 0.5) ln(0.25 / 0.5) + (0.75 - 0.5) ln(0.75 / 0.5) = 0.17329 + 0.10137
    assert!((psi(&[0.5, 0.5], &[0.25, 0.75], 1e12, 1e12) - 0.274_653).abs() < 1e-6);
    assert_eq!(psi(&[0.5, 0.5], &[0.5, 0.5], 10.0, 10.0), 0.0);
    assert_eq!(psi(&[0.5, 0.5, 0.0], &[0.5, 0.5, 0.0], 10.0, 7.0), 0.0, "a bin that both lack is none");
    // One row each, in another bin, with half a row in each: (1.5 / 2, 0.5 / 2) against the opposite.
    assert!((psi(&[1.0, 0.0], &[0.0, 1.0], 1.0, 1.0) - 3f64.ln()).abs() < 1e-12);
    // Chi-squared of 10 degrees at 1 - 1e-4: 35.564.
    let noise = psi_noise(&[1.0 / 11.0; 11], &[1.0 / 11.0; 11], 1000.0, 500.0);
    assert!((noise / (35.564 * 0.003) - 1.0).abs() < 0.02, "{noise}");
    assert!(psi_noise(&[1.0], &[1.0], 0.0, 9.0).is_infinite(), "nothing says nothing");
}

/// Ten items with 0 to 9 views, and one request of each by users u (three of four) and v, who alone has a level.
fn ten() -> Vec<Event> {
    let mut log: Vec<Event> =
        (0..10).map(|i| item(&format!("i{i}"), [i as f32, 0.0, 0.0, 0.0], f64::from(i))).collect();
    log.push(user("v", "high"));
    for i in 0..10 {
        let (user, of) = (if i % 4 == 3 { "v" } else { "u" }, format!("i{i}"));
        let request = format!("r{i}");
        log.push(Event::Impression(impression(&request, user, &[&of], i64::from(i) * 100)));
        log.push(action(user, &of, "seen", i64::from(i) * 100 + 1, &request));
    }
    log.push(action("u", "i0", "click", 5, "r0"));
    log
}

#[test]
fn a_profile_is_what_a_hand_counts() {
    let d = joined(ten());
    let p = Profile::of(&d.all());
    assert_eq!((p.requests, p.rows, p.left_out), (10, 10, 0));
    assert_eq!(
        p.rates,
        [("click".to_owned(), 0.1), ("hide".to_owned(), 0.0), ("save".to_owned(), 0.0)].into()
    );
    let level = column(&p, "user.level");
    // v's two requests of ten, the one known bucket, none other, eight missing.
    assert_eq!((level.shares.clone(), level.coverage()), (vec![0.2, 0.0, 0.8], 1.0 - 0.8));
    assert_eq!(level.independent, 1.5, "(8 + 2)^2 / (64 + 4) = 1.47");
    let views = column(&p, "item.views");
    assert_eq!(views.bins, Bins::Edges((1..10).map(|x| x as f32).collect()));
    assert_eq!((views.shares[..10].to_vec(), views.shares[10]), (vec![0.1; 10], 0.0));
    assert_eq!(views.independent, 10.0, "ten items");
    assert_eq!(column(&p, "item.vector").coverage(), 0.9, "that of item 0 is all zeros");
    let length = column(&p, "sequence.length");
    assert_eq!(length.coverage(), 0.8, "the first request of each user has no sequence");
    let labels = column(&p, "label.actions");
    assert_eq!(labels.shares[..2], [0.90909, 0.09091], "ten seen, one click");
    assert_eq!(column(&p, "request.surface").shares, [1.0, 0.0, 0.0]);
}

#[test]
fn a_number_that_is_nearly_always_the_same_has_a_bin_of_its_own() {
    let views = |i: i64| if i < 8 { 5.0 } else { 7.0 };
    let log = |from: f64| {
        let mut log: Vec<Event> =
            (0..10).map(|i| item(&format!("i{i}"), [1.0; 4], from + views(i))).collect();
        let shown = |i: i64| Event::Impression(impression(&format!("r{i}"), "u", &[&format!("i{i}")], i));
        log.extend((0..10).map(shown));
        joined(log)
    };
    let before = log(0.0);
    let p = Profile::of(&before.all());
    let views = column(&p, "item.views");
    assert_eq!(views.bins, Bins::Edges(vec![5.0, 5f32.next_up(), 7.0, 7f32.next_up()]));
    assert_eq!(views.shares, [0.0, 0.8, 0.0, 0.2, 0.0, 0.0]);
    let after = log(0.5);
    assert_eq!(column(&p.again(&after.all()), "item.views").shares, [0.0, 0.0, 0.8, 0.0, 0.2, 0.0]);
}

#[test]
fn a_profile_comes_back_from_a_manifest_and_a_newer_one_is_refused() {
    let d = joined(ten());
    let p = Profile::of(&d.all());
    let mut json = p.to_json().unwrap();
    let text = serde_json::to_string(&json).unwrap();
    assert_eq!(Profile::from_json(&serde_json::from_str(&text).unwrap()).unwrap(), p);
    assert_eq!(p.again(&d.all()), p, "the same rows are the same picture");
    json["version"] = 2.into();
    assert!(matches!(Profile::from_json(&json), Err(ProfileError::Version(2))));
    json["version"] = 1.into();
    json["columns"] = 3.into();
    assert!(matches!(Profile::from_json(&json), Err(ProfileError::Form(_))));
}

#[test]
fn what_changes_is_named_and_nothing_else() {
    // 300 people and 300 items with some views; later people have no level any more, and all views are ten times as
    // many: alone, together, and not at all.
    let log = |level: bool, times: f64| {
        let mut log = Vec::new();
        for n in 0..300i64 {
            let (of, id, request) = (format!("u{n}"), format!("i{n}"), format!("r{n}"));
            log.push(item(&id, [1.0, 0.5, (n % 7) as f32, 0.0], times * (10.0 + (n * 37 % 100) as f64)));
            if level {
                log.push(user(&of, ["low", "middle", "high"][n as usize % 3]));
            }
            log.push(action(&of, &id, "seen", 10 * n, ""));
            log.push(Event::Impression(impression(&request, &of, &[&id], 10 * n + 1)));
            log.push(action(&of, &id, "click", 10 * n + 2, &request));
        }
        joined(log)
    };
    let trained = log(true, 1.0);
    let profile = Profile::of(&trained.all());
    let crossed = |d: &Dataset| {
        let drift = profile.drift(&profile.again(&d.all()), &BOUNDS);
        assert!(drift.is_sorted_by(|a, b| a.badness(&BOUNDS) >= b.badness(&BOUNDS)));
        let crossed = drift.iter().filter(|d| d.crossed(&BOUNDS));
        crossed.map(|c| (c.name.clone(), c.moved(&BOUNDS), c.uncovered(&BOUNDS))).collect::<Vec<_>>()
    };
    assert_eq!(crossed(&log(true, 1.0)), []);
    assert_eq!(crossed(&log(false, 1.0)), [("user.level".to_owned(), true, true)]);
    assert_eq!(crossed(&log(true, 10.0)), [("item.views".to_owned(), true, false)]);
    assert_eq!(crossed(&log(false, 10.0)).len(), 2);
    let nothing = trained.slice(crate::DateRange { start_ms: 0, end_ms: 1 });
    assert_eq!(profile.drift(&profile.again(&nothing), &BOUNDS), [], "no row says nothing");
}

#[test]
fn a_profile_stays_small() {
    let feature = |i: usize| match i % 2 {
        0 => format!("{{ kind = \"numeric\", name = \"a_number_with_a_name_{i}\" }}"),
        _ => format!("{{ kind = \"categorical\", name = \"a_text_with_a_name_{i}\", buckets = 16777216 }}"),
    };
    let many = (0..200).map(feature).collect::<Vec<_>>().join(", ");
    let text = format!(
        "item_embedding = \"v\"\nactions = [{{ name = \"click\", polarity = \"positive\" }}]\n\
         heads = [{{ name = \"click\", actions = [\"click\"] }}]\nuser_features = [{many}]\n\
         item_features = [{{ kind = \"embedding\", name = \"v\", dim = 2 }}]"
    );
    let schema = Arc::new(Schema::from_toml(&text).unwrap());
    let mut log = Vec::new();
    for n in 0..200 {
        let mut features = lately_features::event::FeatureValues::new();
        for i in 0..200 {
            let name = schema.user_features[i].name().to_owned();
            let value = match i % 2 {
                0 => lately_features::FeatureValue::Number(f64::from(n) / 7.0 + i as f64),
                _ => lately_features::FeatureValue::Text(format!("{}", n % 40)),
            };
            features.insert(name, value);
        }
        let Event::User(mut u) = user(&format!("u{n}"), "x") else { panic!("no user") };
        u.features = features;
        log.push(Event::User(u));
        let shown = impression(&format!("r{n}"), &format!("u{n}"), &["i"], i64::from(n));
        log.push(Event::Impression(Impression { surface: None, ..shown }));
    }
    let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    let d = join(&schema, log, JoinOptions::default()).unwrap();
    let p = Profile::of(&d.all());
    assert_eq!((p.columns.len(), p.left_out), (160, 45));
    let bytes = serde_json::to_vec(&p).unwrap().len();
    assert!(bytes < 64 << 10, "{bytes} bytes");
}

#[test]
fn calibration_by_head_and_hour_is_what_a_hand_computes() {
    // Two hours of 40 requests of one item by as many users; half of them are clicked. In the first hour the model said
    // 0.5, in the second 0.9. Of saves, whose labels take 10 minutes, it said 0.25 and none came.
    let (mut log, mut logged) = (Vec::new(), HashMap::new());
    for n in 0..80i64 {
        let (hour, of, request) = (n / 40, format!("u{n}"), format!("r{n}"));
        let mut shown = impression(&request, &of, &["a"], hour * 3600 + n);
        shown.model = Some("m".into());
        shown.items[0].heads = vec![if hour == 0 { 0.5 } else { 0.9 }, 0.25, 0.0];
        logged.insert(log.len() as u64, Logged::new(&shown).unwrap());
        log.push(Event::Impression(shown));
        if n % 2 == 0 {
            log.push(action(&of, "a", "click", hour * 3600 + n + 1, &request));
        }
    }
    let d = joined(log);
    let start = T0.div_euclid(3_600_000) * 3_600_000;
    let end = T0 + 2 * 3_600_000;
    let heads = calibration(&d.all(), &logged, end, 2 * 3_600_000, &served::label_delay_ms(&d.schema));
    let click = &heads[0];
    assert_eq!((click.head.as_str(), click.all.rows, click.all.observed), ("click", 80, 40.0));
    assert!((click.all.ratio - 56.0 / 40.0).abs() < 1e-6);
    let (first, second) = (&click.hours[&start], &click.hours[&(start + 3_600_000)]);
    assert_eq!((first.rows, second.rows), (40, 40));
    assert!((first.ratio - 1.0).abs() < 1e-6 && (second.ratio - 1.8).abs() < 1e-6);
    // Users are independent: 20 residuals of 0.1 and 20 of -0.9 over 20 positives.
    let spread = (20.0 * 0.01 + 20.0 * 0.81f64).sqrt() / 20.0;
    assert!((second.low - 1.8 * (-1.96 * spread).exp()).abs() < 1e-5, "{second:?}");
    assert!((second.high - 1.8 * (1.96 * spread).exp()).abs() < 1e-5, "{second:?}");
    assert!(!first.is_off(0.8, 1.25) && !click.all.is_off(0.8, 1.39) && second.is_off(0.8, 1.2));
    // The newest ten minutes are not ripe for saves: none of these is that new. Of 20 expected none came: too few to say.
    let save = &heads[1];
    assert_eq!((save.all.rows, save.all.observed, save.all.ratio), (80, 0.0, 40.0));
    assert!(!save.all.is_off(0.8, 1.25));
    // Half an hour later the attribution windows of the second hour are over; at its start they were not.
    let delay = served::label_delay_ms(&d.schema);
    assert_eq!(
        delay,
        [60_000, 1_800_000, 1_800_000],
        "share counts for saves, with the default of half an hour"
    );
    let early = calibration(&d.all(), &logged, T0 + 3_600_000 + 100_000, 2 * 3_600_000, &delay);
    assert_eq!((early[0].all.rows, early[1].all.rows), (41, 40));
}
