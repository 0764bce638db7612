//! Chance that belongs to a request, or to a person: the same id, the same lot.

use lately_features::{RequestId, UserId};

use crate::request::Rung;

/// What is drawn for; each draw is independent of the others.
const EXERCISE: u64 = 1;
const RUNG: u64 = 2;
const SHADOW: u64 = 3;
const CANARY: u64 = 4;
const GROUP: u64 = 5;
const SALTED: u64 = 6;
const EXPLORE: u64 = 7;

/// The rung on which a ranking is put on purpose; `None` for all but a `share`.
pub(crate) fn exercise(request: &RequestId, share: f64) -> Option<Rung> {
    let at = (uniform(request.hash64(), RUNG) * Rung::LADDER.len() as f64) as usize;
    (uniform(request.hash64(), EXERCISE) < share).then(|| Rung::LADDER[at.min(Rung::LADDER.len() - 1)])
}

/// Whether a ranking is explored.
pub(crate) fn explore(request: &RequestId, share: f64) -> bool {
    uniform(request.hash64(), EXPLORE) < share
}

/// Whether the challenger scores a ranking too.
pub(crate) fn shadow(request: &RequestId, share: f64) -> bool {
    uniform(request.hash64(), SHADOW) < share
}

/// A person's lot of a purpose and a name, 0 to below 1; lots of two names have nothing to do with each other.
pub(crate) fn salted(user: &UserId, purpose: &str, name: &str) -> f64 {
    let salt = fnv(purpose.bytes().chain([0]).chain(name.bytes()));
    uniform(user.hash64() ^ salt, SALTED)
}

/// FNV-1a.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Whether the challenger ranks for a person. Of each challenger it is other people, so that nobody always gets what is
/// new; of one challenger it is the same people on every server, and those of a smaller share are among a larger one's.
pub(crate) fn canary(user: &UserId, challenger: &str, share: f64) -> bool {
    // The version is the salt.
    uniform(user.hash64() ^ fnv(challenger.bytes()), CANARY) < share
}

/// Where a person stands among those whose weights may be changed, from 0 to below 1.
pub(crate) fn perturbed(user: &UserId, salt: &str) -> f64 {
    salted(user, "perturbed", salt)
}

/// A person's coin for a head.
pub(crate) fn coin(user: &UserId, salt: &str, head: &str) -> bool {
    salted(user, "coin", &format!("{salt}/{head}")) < 0.5
}

/// The group of a person, of so many, for the spread of what is measured.
pub(crate) fn group(user: &UserId, groups: usize) -> usize {
    ((uniform(user.hash64(), GROUP) * groups as f64) as usize).min(groups.saturating_sub(1))
}

/// From 0 to below 1. The id's hash goes through SplitMix64's finaliser (Steele et al. 2014) once more, so that draws for
/// two purposes have nothing to do with each other.
fn uniform(hash: u64, purpose: u64) -> f64 {
    let x = hash ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
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
    fn a_canary_has_its_share_of_the_people_and_the_next_one_has_others() {
        let people: Vec<_> = (0..20_000).map(|i| UserId::new(format!("u{i}")).unwrap()).collect();
        let share = |drawn: &dyn Fn(&UserId) -> bool| {
            people.iter().filter(|u| drawn(u)).count() as f64 / people.len() as f64
        };
        // Six standard deviations.
        assert!((share(&|u| canary(u, "a", 0.05)) - 0.05).abs() < 0.01);
        assert!(people.iter().all(|u| !canary(u, "a", 0.05) || canary(u, "a", 0.2)), "a share grows");
        let both = share(&|u| canary(u, "a", 0.2) && canary(u, "b", 0.2));
        assert!((both - 0.04).abs() < 0.01, "{both}");
        assert!(people.iter().all(|u| !canary(u, "a", 0.0) && group(u, 64) < 64));
        let of_a_group = share(&|u| canary(u, "a", 0.2) && group(u, 64) < 32);
        assert!((of_a_group - 0.1).abs() < 0.02, "{of_a_group}");
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
