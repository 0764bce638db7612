//! Whether people were split as planned: where they were not, nothing else in a report can be believed.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, ContinuousCDF};
use statrs::function::gamma::ln_gamma;

/// How many people's worth the mixture's prior believes in the planned shares. With 100 a split of 50:50 that is really
/// 52:48 is found after about 12,000 people.
const PRIOR_PEOPLE: f64 = 100.0;

/// How far people's split is from the planned one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mismatch {
    /// Pearson's statistic.
    pub chi_square: f64,
    /// Probability of such a split at one look, by the chi-square distribution.
    pub p: f64,
    /// The same over any number of looks as people come in: one over the likelihood ratio of a Dirichlet mixture of
    /// shares against the planned ones (Lindon and Malek 2022).
    pub p_sequential: f64,
    /// Whether `p` is below the bound.
    pub suspected: bool,
}

/// Compares counts of people with planned shares, in whatever unit.
pub fn mismatch(users: &[u64], shares: &[f64], bound: f64) -> Mismatch {
    let n = users.iter().sum::<u64>() as f64;
    let planned = shares.iter().sum::<f64>();
    let cells: Vec<(f64, f64)> =
        users.iter().zip(shares).map(|(users, share)| (*users as f64, share / planned)).collect();
    let distance = |(users, share): &(f64, f64)| {
        let expected = n * share;
        if expected > 0.0 { (users - expected).powi(2) / expected } else { 0.0 }
    };
    let chi_square = cells.iter().map(distance).sum();
    let p = match ChiSquared::new(cells.len().saturating_sub(1) as f64) {
        Ok(distribution) => distribution.sf(chi_square),
        // One variant alone is split as planned.
        Err(_) => 1.0,
    };
    Mismatch { chi_square, p, p_sequential: (-evidence(&cells, n)).exp().min(1.0), suspected: p < bound }
}

/// Logarithm of the likelihood ratio.
fn evidence(cells: &[(f64, f64)], n: f64) -> f64 {
    let of = |(users, share): &(f64, f64)| {
        let prior = PRIOR_PEOPLE * share;
        if prior > 0.0 { ln_gamma(prior + users) - ln_gamma(prior) - users * share.ln() } else { 0.0 }
    };
    ln_gamma(PRIOR_PEOPLE) - ln_gamma(PRIOR_PEOPLE + n) + cells.iter().map(of).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_broken_split_is_suspected_and_a_fair_one_is_not() {
        // scipy.stats.chisquare([10200, 9800]).pvalue
        let slight = mismatch(&[10_200, 9_800], &[0.5, 0.5], 0.001);
        assert!((slight.p - 0.004_677_7).abs() < 1e-6 && !slight.suspected, "{slight:?}");
        assert!((slight.chi_square - 8.0).abs() < 1e-12);
        let broken = mismatch(&[10_400, 9_600], &[1.0, 1.0], 0.001);
        assert!(broken.suspected && broken.p_sequential < 0.001, "{broken:?}");
        assert!(!mismatch(&[9_000, 500, 500], &[90.0, 5.0, 5.0], 0.001).suspected);
        assert!(!mismatch(&[0, 0], &[0.5, 0.5], 0.001).suspected);
        assert!(!mismatch(&[7], &[1.0], 0.001).suspected);
    }

    #[test]
    fn looks_at_every_person_cost_nothing_more() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let (mut sequential, mut fixed) = (0, 0);
        for _ in 0..300 {
            let (mut users, mut seen) = ([0_u64; 2], [false; 2]);
            for _ in 0..2_000 {
                users[usize::from(random.random::<bool>())] += 1;
                let of = mismatch(&users, &[0.5, 0.5], 0.05);
                seen = [seen[0] || of.p_sequential < 0.05, seen[1] || of.p < 0.05];
            }
            sequential += usize::from(seen[0]);
            fixed += usize::from(seen[1]);
        }
        assert!(sequential <= 19, "{sequential} of 300 is above 5 % by more than chance");
        assert!(fixed > 90, "the chi-square test does not survive looking: {fixed}");
    }
}
