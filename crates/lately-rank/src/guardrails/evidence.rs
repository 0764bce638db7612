//! How sure it is that something lies beyond a bound, at whatever moment one looks.
//!
//! The evidence is a likelihood ratio of a mixture of effects beyond the bound, normal about it with the standard
//! deviation `scale`, against no effect beyond it (Robbins 1970; as mSPRT in Johari et al. 2017). Under what lies within
//! the bound it is, over time, a supermartingale of mean at most 1, so the probability that it **ever** passes 1 / alpha
//! is at most alpha: any number of looks costs nothing more. That holds too where the other side is a fixed past, as its
//! error is known to be the same at each look. Several guardrails at once share alpha by Bonferroni.
//!
//! The variance is estimated from groups of people, so the ratio is that of Student's t: with few groups its tails are
//! thick and evidence is small.

/// Logarithm of the evidence that a value lies beyond a bound by more than nothing, of how far beyond it was measured, the
/// variance of that, the size of an effect that matters, and the degrees of freedom of the variance. 0 where it is not
/// beyond.
pub(super) fn evidence(beyond: f64, variance: f64, scale: f64, freedom: f64) -> f64 {
    // Not of a NaN either.
    if !(beyond > 0.0 && variance > 0.0 && scale > 0.0 && freedom > 0.0) {
        return 0.0;
    }
    let t2 = beyond * beyond / variance / freedom;
    let wider = 1.0 + scale * scale / variance;
    let fit = (1.0 + t2).ln() - (1.0 + t2 / wider).ln();
    (0.5 * (freedom + 1.0) * fit - 0.5 * wider.ln()).max(0.0)
}

/// The logarithm of the evidence at which one of so many tests is sure.
pub(super) fn sure(alpha: f64, tests: usize) -> f64 {
    (tests.max(1) as f64 / alpha).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn normal(random: &mut ChaCha8Rng) -> f64 {
        (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
    }

    /// Share of 2,000 walks of 1,000 looks in which a mean ever was surely above 0; the other side is a fixed past of
    /// `past` such steps, or none.
    fn alarms(effect: f64, past: f64, alpha: f64) -> f64 {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut walk = || {
            let (mut sum, mut n) = (0.0, 0.0);
            let (other, of_other) =
                if past > 0.0 { (normal(&mut random) / past.sqrt(), 1.0 / past) } else { (0.0, 0.0) };
            (0..1_000).any(|_| {
                sum += effect + normal(&mut random);
                n += 1.0;
                evidence(sum / n - other, 1.0 / n + of_other, 0.3, 1e6) >= sure(alpha, 1)
            })
        };
        (0..2_000).filter(|_| walk()).count() as f64 / 2_000.0
    }

    #[test]
    fn whoever_looks_a_thousand_times_is_wrong_no_oftener_than_alpha() {
        for past in [0.0, 100.0, 2_000.0] {
            let wrong = alarms(0.0, past, 0.05);
            assert!(wrong <= 0.05, "{wrong} of a past of {past}");
        }
        assert!(alarms(0.0, 0.0, 0.05) > 0.005, "and so seldom only as it must be");
        assert!(alarms(0.3, 0.0, 0.05) > 0.999, "what is there is found");
    }

    #[test]
    fn few_degrees_of_freedom_are_little_evidence() {
        let of = |freedom| evidence(5.0, 1.0, 1.0, freedom);
        assert!(of(4.0) < of(16.0) && of(16.0) < of(64.0), "{} {} {}", of(4.0), of(16.0), of(64.0));
        // 25 / 2 x 1 / 2 - ln(2) / 2: the normal limit.
        assert!((of(1e9) - (6.25 - 0.5 * 2f64.ln())).abs() < 1e-6);
        assert_eq!(evidence(-5.0, 1.0, 1.0, 64.0), 0.0);
        assert_eq!(evidence(f64::NAN, 1.0, 1.0, 64.0), 0.0);
        assert!((sure(0.01, 10) - 1_000f64.ln()).abs() < 1e-12);
    }
}
