//! A lake holds what the join of the whole log gives, by random logs, cuts, clocks and crashes.

use std::sync::atomic::Ordering;

use lately_features::Impression;
use proptest::prelude::*;

use super::*;

/// One draw of a log: what, who, on what, when (s), and two choices.
type Draw = (u8, u8, u8, i64, u8, u8);

fn event(at: usize, draw: &Draw, shown: &mut Vec<(String, u8)>) -> Event {
    let (kind, who, what, seconds, a, b) = *draw;
    let (user_id, item_id) = (format!("u{}", who % 3), format!("i{}", what % 5));
    match kind % 16 {
        0..6 => {
            let name = ["seen", "click", "save", "hide", "share", "no_such"][usize::from(a) % 6];
            let mine: Vec<_> = shown.iter().filter(|(_, u)| *u == who % 3).collect();
            let request = match (b % 3, mine.is_empty()) {
                (0, _) | (_, true) => String::new(),
                (n, _) => mine[usize::from(n) * usize::from(a) % mine.len()].0.clone(),
            };
            action(&user_id, &item_id, name, seconds, &request)
        }
        6..13 => {
            let request = format!("r{}", if b % 11 == 0 { at / 2 } else { at });
            shown.push((request.clone(), who % 3));
            let items: Vec<String> = (0..1 + a % 4).map(|n| format!("i{}", (what % 5 + n) % 5)).collect();
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            let watermark = Some((at as u64).saturating_sub(u64::from(b % 4)));
            let degraded = if b % 7 == 1 { vec!["no_sequence".to_owned()] } else { Vec::new() };
            Event::Impression(Impression {
                watermark,
                degraded,
                ..impression(&request, &user_id, &items, seconds)
            })
        }
        13 => item(&item_id, [f32::from(a); 4], f64::from(b)),
        14 => user(&user_id, if a % 2 == 0 { "high" } else { "low" }),
        _ if a % 4 == 0 => forget(&user_id),
        _ => action(&user_id, &item_id, "seen", seconds, ""),
    }
}

fn events(draws: &[Draw]) -> Vec<Event> {
    let mut shown = Vec::new();
    // Time goes on by half a minute a record; each may be late or early by ten.
    let event = |(at, draw): (usize, &Draw)| {
        event(at, &(draw.0, draw.1, draw.2, 30 * at as i64 + draw.3, draw.4, draw.5), &mut shown)
    };
    draws.iter().enumerate().map(event).collect()
}

fn logs() -> impl Strategy<Value = Vec<Event>> {
    let draw = (any::<u8>(), any::<u8>(), any::<u8>(), -600..600i64, any::<u8>(), any::<u8>());
    prop::collection::vec(draw, 1..80).prop_map(|draws| events(&draws))
}

/// How far the log is read, by which clock (s), how many changes of objects there are before the process dies, and
/// whether there is maintenance.
fn cuts() -> impl Strategy<Value = Vec<(usize, i64, Option<u8>, bool)>> {
    prop::collection::vec((0..80usize, -2_000..6_000i64, prop::option::of(0..16u8), any::<bool>()), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lake_holds_what_the_join_gives_whatever_the_cuts_the_clocks_and_the_crashes(
        log in logs(),
        cuts in cuts(),
        slack in 0..3usize,
    ) {
        let config = LakeConfig { slack, ..small() };
        let objects = Arc::new(Memory::default());
        let mut lake = open(&objects, &config).unwrap();
        let (mut end, mut clock) = (0, T0);
        for (to, seconds, dies, maintain) in cuts {
            end = end.max(to.min(log.len()));
            clock = clock.max(T0 + seconds * 1000);
            objects.left.store(dies.map_or(i64::MAX, i64::from), Ordering::Relaxed);
            let mut failed = lake.advance(&mut pages(&log, end), clock).is_err();
            if !failed && maintain {
                failed = lake.maintain(clock).is_err();
            }
            objects.left.store(i64::MAX, Ordering::Relaxed);
            if failed || dies.is_some() {
                lake = open(&objects, &config).unwrap();
            }
        }
        lake.advance(&mut pages(&log, log.len()), T0 + 1_000_000_000).unwrap();
        prop_assert_eq!(lake.summary().open_requests, 0);
        let want = joined(&log, JoinOptions { slack, ..JoinOptions::default() });
        let got = lake.read(DateRange::ALL, None).unwrap();
        prop_assert_eq!(rows(&got), rows(&want));
        prop_assert_eq!(got.all().fingerprint(), want.all().fingerprint());
        lake.maintain(T0 + 1_000_000_000).unwrap();
        prop_assert_eq!(rows(&lake.read(DateRange::ALL, None).unwrap()), rows(&want));
        prop_assert_eq!(lake.summary().forgotten, 0);
        // No object is left that no manifest names.
        let lake = open(&objects, &config).unwrap();
        let former = Manifest::numbered(&*objects, 0, lake.manifest.number.saturating_sub(1)).unwrap();
        let named: HashSet<&str> = lake.manifest.names().chain(former.iter().flat_map(|m| m.names())).collect();
        let orphan = |name: &String| !name.starts_with("manifests/") && !named.contains(name.as_str());
        prop_assert_eq!(objects.names().into_iter().filter(orphan).collect::<Vec<_>>(), Vec::<String>::new());
    }
}
