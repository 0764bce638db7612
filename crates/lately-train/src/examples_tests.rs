use std::convert::Infallible;

use super::*;
use crate::dataset::Dataset;
use crate::fixtures::*;
use crate::join::{JoinOptions, join};
use crate::sampler::Epoch;
use lately_features::Event;

fn joined(log: Vec<Event>) -> Dataset {
    let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
    join(&schema(), log, JoinOptions::default()).unwrap()
}

/// 40 users with actions 1, 2, ... 8 hours before a request of 1 to 5 items.
fn dataset() -> Dataset {
    let mut log = Vec::new();
    for u in 0..40 {
        let name = format!("u{u}");
        log.extend((1..=8).map(|h| action(&name, "a", "seen", -3600 * h, "")));
        log.push(Event::Impression(impression(&name, &name, &["a", "b", "c", "d", "e"][..1 + u % 5], 0)));
    }
    joined(log)
}

/// 5 users; each sees 6 single items a minute apart, every second on no surface, and clicks each at once.
fn streams() -> Dataset {
    let mut log = Vec::new();
    for at in 0..6 {
        for u in 0..5 {
            let (user, request) = (format!("u{u}"), format!("u{u}/{at}"));
            let surface = (at % 2 == 0).then(|| "home".to_owned());
            let shown = impression(&request, &user, &["a"], 60 * at);
            log.push(Event::Impression(lately_features::Impression { surface, ..shown }));
            log.push(action(&user, "a", "click", 60 * at + 1, &request));
        }
    }
    joined(log)
}

fn with<T>(d: &Dataset, config: &TrainConfig, f: impl FnOnce(&Examples<'_>) -> T) -> T {
    f(&Examples::new(&d.all(), config).unwrap())
}

/// Without windows and the like.
fn plain() -> TrainConfig {
    TrainConfig { sequence_dropout: 0.0, window_probability: 0.0, ..TrainConfig::default() }
}

#[test]
fn an_epoch_holds_every_request_once_in_whole_batches() {
    let d = dataset();
    let config = TrainConfig { batch_rows: 16, ..TrainConfig::default() };
    with(&d, &config, |examples| {
        let (a, b) = (Epoch::new(examples, 0), Epoch::new(examples, 1));
        assert_ne!(a.groups, b.groups);
        let mut sorted = a.groups.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, examples.slice.requests);
        assert_eq!(a.batches.iter().map(|b| a.size(b).rows).sum::<usize>(), examples.slice.rows());
        assert!(a.batches[..a.batches.len() - 1].iter().all(|b| (16..21).contains(&a.size(b).rows)));
    });
}

#[test]
fn the_window_hides_the_newest_actions_of_some_examples() {
    let d = dataset();
    let shown = |config: TrainConfig| -> Vec<usize> {
        let of = |examples: &Examples<'_>, at: &u32| {
            let request = &d.requests[*at as usize];
            let tokens = examples.hidden(0, *at).of(request);
            // What is hidden is the newest.
            let newest = tokens.first().map_or(9, |t| (request.time_ms - t.time_ms) / 3_600_000);
            assert_eq!(newest as usize, 9 - tokens.len());
            tokens.len()
        };
        with(&d, &config, |examples| d.all().requests.iter().map(|at| of(examples, at)).collect())
    };
    let base = TrainConfig { sequence_dropout: 0.0, window_probability: 1.0, ..TrainConfig::default() };
    assert_eq!(shown(TrainConfig { window_hours: 0.0, ..base.clone() }), [8; 40]);
    assert_eq!(shown(TrainConfig { window_probability: 0.0, ..base.clone() }), [8; 40]);
    assert_eq!(shown(TrainConfig { sequence_dropout: 1.0, ..base.clone() }), [0; 40]);
    // T uniform in 0 to 24 h hides 8 of 8 in two thirds of the examples.
    let hidden = shown(base).iter().filter(|n| **n == 0).count();
    assert!((18..36).contains(&hidden), "{hidden}");
}

#[test]
fn weights_are_scaled_and_labels_stand_beside_them() {
    let d = dataset();
    with(&d, &TrainConfig::default(), |examples| {
        let mut part = Part::default();
        examples.assemble(0, &[0, 1], 0.5, &mut part);
        let (rows, requests) = (part.batch.rows(), part.batch.requests());
        assert_eq!((requests, part.weights.len(), part.batch.label.len()), (2, 3 * rows, 3 * rows));
        assert!(part.weights.iter().all(|w| *w == 0.5));
        assert!(part.objective(&[1.0; 3]).lists.is_none());
    });
}

#[test]
fn a_list_of_single_items_stays_whole_and_sees_its_own_sequences() {
    let d = streams();
    let list_sequence = ListSequence::Own;
    let config = TrainConfig { list_weight: 1.0, list_sequence, batch_rows: 7, ..plain() };
    with(&d, &config, |examples| {
        let epoch = Epoch::new(examples, 0);
        assert_eq!(epoch.batches.iter().map(|b| epoch.size(b).rows).collect::<Vec<_>>(), [12, 12, 6]);
        let mut part = Part::default();
        examples.assemble(0, &epoch.groups[epoch.batches[0].clone()], 1.0, &mut part);
        assert_eq!(part.objective(&[1.0; 3]).lists.unwrap().offsets, [0, 6, 12]);
        let tokens: Vec<u32> = part.batch.token_offsets.windows(2).map(|w| w[1] - w[0]).collect();
        assert_eq!(tokens, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
    });
    // One draw for all rows of a list.
    let config = TrainConfig { sequence_dropout: 0.5, ..config };
    let lists: Vec<Vec<u32>> = with(&d, &config, |examples| {
        let of = |group: u32| {
            let mut part = Part::default();
            examples.assemble(0, &[group], 1.0, &mut part);
            part.batch.token_offsets
        };
        (0..5).map(of).collect()
    });
    let (whole, none) = (vec![0, 0, 1, 3, 6, 10, 15], vec![0; 7]);
    assert!(lists.iter().all(|l| *l == whole || *l == none), "{lists:?}");
    assert!(lists.contains(&whole) && lists.contains(&none));
}

#[test]
fn the_start_of_a_list_fixes_its_sequence() {
    let d = streams();
    let config = TrainConfig { list_weight: 1.0, ..plain() };
    with(&d, &config, |examples| {
        let mut part = Part::default();
        let members: Vec<u32> = examples.groups.get(0)[1..].to_vec(); // its start has one token
        for page in examples.pages(0, &members) {
            examples.push(&page, Hidden::Nothing, 1.0, &mut part);
        }
        let batch = &part.batch;
        // A page for each surface, both with the one token that was known, as old as it was at the start.
        assert_eq!((&*batch.surface, batch.rows()), (&[0, 1][..], 5));
        assert_eq!((&*batch.token_offsets, &*batch.row_offsets), (&[0, 1, 2][..], &[0, 3, 5][..]));
        assert_eq!(batch.token_age_ms, [59_000; 2]);
    });
}

#[test]
fn long_requests_make_several_lists() {
    let d = dataset();
    let config = TrainConfig { list_weight: 1.0, list_rows: 2, ..plain() };
    with(&d, &config, |examples| {
        let mut part = Part::default();
        examples.assemble(0, &[0, 4, 1], 1.0, &mut part); // 1, 5 and 2 items
        assert_eq!(part.objective(&[1.0; 3]).lists.unwrap().offsets, [0, 1, 2, 4, 6, 8]);
    });
}

#[test]
fn kept_negatives_stand_for_all_and_positives_are_never_dropped() {
    let mut log = Vec::new();
    for u in 0..500 {
        let name = format!("u{u}");
        log.push(Event::Impression(impression(&name, &name, &["a", "b", "c", "d"], 0)));
        log.push(action(&name, "b", "click", 1, &name));
    }
    let d = joined(log);
    let config = TrainConfig { negative_rate: 0.25, list_weight: 1.0, batch_rows: 64, ..plain() };
    with(&d, &config, |examples| {
        let kept = |epoch| {
            let (epoch, mut part) = (Epoch::new(examples, epoch), Part::default());
            examples.assemble(epoch.number, &epoch.groups, 1.0, &mut part);
            let size = epoch.size(&(0..epoch.groups.len()));
            let sum: f64 = part.copies.iter().map(|c| f64::from(*c)).sum();
            assert_eq!((size.rows, size.stands_for), (part.batch.rows(), sum));
            (part.batch.label, part.weights, part.copies)
        };
        let (label, weights, copies) = kept(0);
        for ((y, w), copies) in label.chunks(3).zip(weights.chunks(3)).zip(&copies) {
            assert_eq!((w[0], *copies), if y[0] == 1.0 { (1.0, 1.0) } else { (4.0, 4.0) });
        }
        assert_eq!(label.chunks(3).filter(|y| y[0] == 1.0).count(), 500);
        let stands_for: f32 = copies.iter().sum();
        assert!((stands_for - 2000.0).abs() < 200.0, "{stands_for}"); // 3.2 standard deviations
        assert_eq!((&label, &copies), (&kept(0).0, &kept(0).2));
        assert_ne!(copies, kept(1).2, "another epoch sees others");
    });
}

#[test]
fn a_kept_negative_of_a_thinned_request_stands_for_those_that_went_on_top_of_what_an_epoch_drops() {
    let mut log = Vec::new();
    for u in 0..400 {
        let name = format!("u{u}");
        log.push(Event::Impression(impression(&name, &name, &["a", "b"], 0)));
        log.push(action(&name, "b", "click", 1, &name));
    }
    let mut d = joined(log);
    for candidate in d.requests.iter_mut().flat_map(|r| &mut r.candidates) {
        candidate.stands_for = if candidate.observed == 0 { 4.0 } else { 1.0 };
    }
    for (negative_rate, weighs) in [(1.0, 4.0), (0.5, 8.0)] {
        let config = TrainConfig { negative_rate, list_weight: 1.0, ..plain() };
        with(&d, &config, |examples| {
            let (epoch, mut part) = (Epoch::new(examples, 0), Part::default());
            examples.assemble(epoch.number, &epoch.groups, 1.0, &mut part);
            for ((y, w), copies) in part.batch.label.chunks(3).zip(part.weights.chunks(3)).zip(&part.copies) {
                assert_eq!((w[0], *copies), if y[0] == 1.0 { (1.0, 1.0) } else { (weighs, weighs) });
            }
            let sum: f32 = part.copies.iter().sum();
            assert!((sum / 2_000.0 - 1.0).abs() < 0.15, "{sum}"); // 3.8 standard deviations at a rate of one half
        });
    }
}
