//! Who is in what: a salted hash of the user's id, so that any server says the same, at any time, without asking.
//!
//! Each question has a salt of its own: an answer to one says nothing about another. A person within a share is within
//! every larger one, so that a ramp takes nobody out.

use lately_features::UserId;

use crate::draw::salted;

/// Whether a person is kept out of all experiments.
pub(super) fn held_out(user: &UserId, share: f64) -> bool {
    salted(user, "holdout", "") < share
}

/// A person's place in a layer, 0 to below 1.
pub(super) fn place(user: &UserId, layer: &str) -> f64 {
    salted(user, "layer", layer)
}

/// Whether a person is among the share for whom an experiment runs by now.
pub(super) fn ramped(user: &UserId, experiment: &str, share: f64) -> bool {
    salted(user, "ramp", experiment) < share
}

/// The variant of a person, of shares that need not sum to 1.
pub(super) fn variant(user: &UserId, experiment: &str, shares: &[f64]) -> usize {
    let total: f64 = shares.iter().sum();
    let mut left = salted(user, "variant", experiment) * total;
    for (at, share) in shares.iter().enumerate() {
        left -= share;
        if left < 0.0 {
            return at;
        }
    }
    // Rounding: the last that anybody is in.
    shares.iter().rposition(|share| *share > 0.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(n: usize) -> Vec<UserId> {
        (0..n).map(|i| UserId::new(format!("user-{i}")).unwrap()).collect()
    }

    /// Shares of people for whom something holds.
    fn share(people: &[UserId], holds: impl Fn(&UserId) -> bool) -> f64 {
        people.iter().filter(|u| holds(u)).count() as f64 / people.len() as f64
    }

    #[test]
    fn variants_have_their_shares_and_another_experiment_deals_anew() {
        let people = people(50_000);
        let shares = [0.5, 0.3, 0.2, 0.0];
        for (at, expected) in shares.iter().enumerate() {
            let got = share(&people, |u| variant(u, "a", &shares) == at);
            // Six standard deviations.
            assert!((got - expected).abs() < 6.0 * (0.25f64 / 50_000.0).sqrt(), "{at}: {got}");
        }
        let both = share(&people, |u| variant(u, "a", &[1.0, 1.0]) == 1 && variant(u, "b", &[1.0, 1.0]) == 1);
        assert!((both - 0.25).abs() < 0.012, "{both}: independent");
        assert!(people.iter().all(|u| variant(u, "a", &shares) == variant(u, "a", &shares)));
        assert!(people.iter().all(|u| variant(u, "a", &[0.0, 1.0, 0.0]) == 1));
    }

    #[test]
    fn a_ramp_takes_nobody_out_and_says_nothing_of_the_variant() {
        let people = people(50_000);
        let mut before = 0.0;
        for step in [0.01, 0.1, 0.5, 1.0] {
            let got = share(&people, |u| ramped(u, "a", step));
            assert!((got - step).abs() < 0.014, "{got} of {step}");
            assert!(got > before);
            assert!(people.iter().all(|u| !ramped(u, "a", step / 2.0) || ramped(u, "a", step)));
            before = got;
        }
        let treated = share(&people, |u| ramped(u, "a", 0.2) && variant(u, "a", &[1.0, 1.0]) == 1);
        assert!((treated - 0.1).abs() < 0.01, "{treated}");
        let held = share(&people, |u| held_out(u, 0.1) && place(u, "x") < 0.5);
        assert!((held - 0.05).abs() < 0.008, "{held}");
        assert!(!people.iter().any(|u| held_out(u, 0.0)) && people.iter().all(|u| ramped(u, "a", 1.0)));
    }
}
