//! Swaps under load.

use super::*;
use std::sync::atomic::AtomicUsize;

/// Score of each candidate by one model, in the order of the candidates, as bits.
fn expected(seed: u64, asked: &[ItemId]) -> Vec<u32> {
    let house = house(patient());
    house.slot.swap(model(seed)).unwrap();
    bits(&house.ranker.rank(RankRequest::new(user("u"), asked.to_vec())).unwrap(), asked)
}

fn bits(response: &RankResponse, asked: &[ItemId]) -> Vec<u32> {
    let score = |id: &ItemId| response.items.iter().find(|i| i.item == *id).unwrap().score.to_bits();
    asked.iter().map(score).collect()
}

#[test]
fn a_hundred_swaps_under_load_give_no_failed_and_no_mixed_ranking() {
    // Several tiles: a mixed ranking would have them from two models.
    let house = house(RankConfig { tile_rows: 16, ..patient() });
    let asked = candidates(40);
    let by_version = [1, 2].map(|seed| expected(seed, &asked));
    assert!(by_version[0].iter().zip(&by_version[1]).all(|(a, b)| a != b), "any mixture would show");
    house.slot.swap(model(1)).unwrap();
    let (stop, rankings) = (AtomicBool::new(false), AtomicUsize::new(0));
    let served = std::thread::scope(|scope| {
        let ranker = || {
            let (mut served, mut last) = ([0usize; 2], 0);
            while !stop.load(Ordering::Relaxed) {
                let response = house.ranker.rank(RankRequest::new(user("u"), asked.clone())).unwrap();
                let model = response.model.as_ref().unwrap();
                assert_eq!(response.degraded, []);
                assert!(model.generation >= last, "never back to an older one");
                last = model.generation;
                let at = usize::from(model.version == "m2");
                assert_eq!(
                    bits(&response, &asked),
                    by_version[at],
                    "exactly the scores of {}",
                    model.version
                );
                served[at] += 1;
                rankings.fetch_add(1, Ordering::Relaxed);
            }
            served
        };
        let rankers: Vec<_> = (0..3).map(|_| scope.spawn(ranker)).collect();
        for swap in 1..=100 {
            let before = rankings.load(Ordering::Relaxed);
            house.slot.swap(model(1 + swap % 2)).unwrap();
            // Each generation is met by a ranking before the next one comes.
            while rankings.load(Ordering::Relaxed) < before + 2 && !rankers.iter().any(|r| r.is_finished()) {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        let mut all = [0, 0];
        for ranker in rankers {
            let served = ranker.join().unwrap();
            all = [all[0] + served[0], all[1] + served[1]];
        }
        all
    });
    assert!(served.iter().all(|n| *n >= 40), "{served:?}");
    assert_eq!(house.slot.current().unwrap().generation(), 101);
    // The scoring threads let go of the last work a moment after the answer.
    while house.slot.live_generations() > 2 {
        std::thread::yield_now();
    }
    assert_eq!(house.slot.live_generations(), 2, "the current one and the last good one");
}

#[test]
fn a_generation_lives_as_long_as_somebody_holds_it() {
    let slot = ModelSlot::new(Arc::new(schema()));
    slot.swap(model(1)).unwrap();
    let held = slot.current().unwrap();
    for seed in 2..=5 {
        slot.swap(model(seed)).unwrap();
    }
    assert_eq!((slot.live_generations(), held.version()), (3, "m1"));
    assert_eq!(slot.other(5).unwrap().version(), "m4");
    assert_eq!(slot.other(4).unwrap().version(), "m5", "whoever still has the former one gets the new one");
    drop(held);
    assert_eq!(slot.live_generations(), 2);
    drop(slot);
}
