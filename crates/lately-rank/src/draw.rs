//! Chance that belongs to a request: the same id, the same lot.

use lately_features::RequestId;

use crate::request::Rung;

/// What is drawn for; each draw is independent of the others.
const EXERCISE: u64 = 1;
const RUNG: u64 = 2;
const SHADOW: u64 = 3;

/// The rung on which a ranking is put on purpose; `None` for all but a `share`.
pub(crate) fn exercise(request: &RequestId, share: f64) -> Option<Rung> {
    let at = (uniform(request, RUNG) * Rung::LADDER.len() as f64) as usize;
    (uniform(request, EXERCISE) < share).then(|| Rung::LADDER[at.min(Rung::LADDER.len() - 1)])
}

/// Whether the challenger scores a ranking too.
pub(crate) fn shadow(request: &RequestId, share: f64) -> bool {
    uniform(request, SHADOW) < share
}

/// From 0 to below 1. The id's hash goes through SplitMix64's finaliser (Steele et al. 2014) once more, so that draws for
/// two purposes have nothing to do with each other.
fn uniform(request: &RequestId, purpose: u64) -> f64 {
    let x = request.hash64() ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn requests(n: usize) -> impl Iterator<Item = RequestId> {
        (0..n).map(|i| RequestId::new(format!("r{i}")).unwrap())
    }

    #[test]
    fn the_exercised_share_is_what_it_says_evenly_over_the_rungs_and_the_same_for_a_request() {
        let n = 200_000;
        let mut rungs = HashMap::<Rung, f64>::new();
        for request in requests(n) {
            let drawn = exercise(&request, 0.05);
            assert_eq!(drawn, exercise(&request, 0.05));
            drawn.into_iter().for_each(|r| *rungs.entry(r).or_default() += 1.0);
        }
        let all: f64 = rungs.values().sum();
        // Six standard deviations.
        assert!((all - 10_000.0).abs() < 600.0, "{all}");
        for rung in Rung::LADDER {
            assert!((rungs[&rung] - all / 7.0).abs() < 6.0 * 36.0, "{rung:?}: {rungs:?}");
        }
        assert!(requests(n).all(|r| exercise(&r, 0.0).is_none()), "0 is off");
        assert!(requests(1_000).all(|r| exercise(&r, 1.0).is_some()));
    }

    #[test]
    fn who_is_exercised_does_not_say_who_is_shadowed() {
        let shadowed = |r: &RequestId| shadow(r, 0.5);
        let (mut both, mut exercised) = (0.0, 0.0);
        for request in requests(20_000).filter(|r| exercise(r, 0.5).is_some()) {
            exercised += 1.0;
            both += f64::from(u8::from(shadowed(&request)));
        }
        assert!((both / exercised - 0.5f64).abs() < 0.03, "{both} of {exercised}");
    }
}
