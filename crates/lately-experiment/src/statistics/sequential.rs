//! Intervals that hold at every look at once.
//!
//! The boundary is Robbins' normal mixture (1970), in the form of the asymptotic confidence sequences of Waudby-Smith,
//! Arbour, Sinha, Kennedy and Ramdas (2021): a standardised estimate Z with the clock t ever passes
//! sqrt((1 + 1/t) (ln(1 + t) + 2 ln(1/alpha))) with probability alpha at most, where Z sqrt(t) is a Brownian motion.
//!
//! **People accumulate.** What is compared are people's sums as of now, and a person seen on Monday goes on acting on
//! Tuesday, so the estimates are no stream of independent terms, and 1/variance is no clock: with the same people it
//! even falls as their sums grow. The clock here is Q, the sum over people of the squared distance of each one's sum from
//! the mean. Given everybody's sums, and no effect, only the draw of variants is random, and for s < t
//!
//! Corr(Z_s, Z_t) = sum c_i(s) c_i(t) / sqrt(Q_s Q_t) >= sqrt(Q_s / Q_t) if sum c_i(s) (c_i(t) - c_i(s)) >= 0,
//!
//! which says: who did more than others so far will not do less than others from now on. That is what differences between
//! people do (equality: there are none, and each day is independent). Slepian's inequality (1962) then makes the
//! probability of ever passing a boundary at most that of the Brownian motion with the clock Q. It fails for a sum that a
//! person can fill up (a flag that half of the people have set): no such metric is offered.
//!
//! A clock needs a unit that no look chooses: Q at the first look, which given everybody's sums is a constant.

use serde::{Deserialize, Serialize};

/// The clock at which the boundary for alpha 0.05 is nearest to the fixed one: 3.04 standard errors. Ten times later it
/// is 3.25, ten times earlier 3.82, so that a clock is better planned too slow than too fast.
pub const BEST_CLOCK: f64 = 8.2;

/// An interval and a p-value that hold at every look at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sequential {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Without an effect it is ever below p with probability p at most.
    pub p: f64,
}

/// Standard errors from an estimate to the end of its interval, at a clock.
pub fn boundary(clock: f64, alpha: f64) -> f64 {
    ((1.0 + 1.0 / clock) * (clock.ln_1p() - 2.0 * alpha.ln())).sqrt()
}

/// The interval about an estimate at a clock, which is in units of which [`BEST_CLOCK`] are planned in all.
pub fn sequential(value: f64, standard_error: f64, clock: f64, alpha: f64) -> Sequential {
    let reach = boundary(clock, alpha) * standard_error;
    let z2 = (value / standard_error).powi(2);
    let p = (-0.5 * (z2 * clock / (1.0 + clock) - clock.ln_1p())).exp().min(1.0);
    Sequential { low: value - reach, high: value + reach, p }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_is_nearest_at_its_best_clock_and_its_p_is_alpha_there() {
        assert!((boundary(BEST_CLOCK, 0.05) - 3.0352).abs() < 1e-3, "{}", boundary(BEST_CLOCK, 0.05));
        for clock in [0.1, 0.82, 8.0, 8.4, 82.0, 1e6] {
            assert!(boundary(clock, 0.05) > boundary(BEST_CLOCK, 0.05), "{clock}");
            let at = sequential(boundary(clock, 0.01), 1.0, clock, 0.01);
            assert!((at.p - 0.01).abs() < 1e-12 && at.low.abs() < 1e-12, "{at:?}");
        }
        assert!(sequential(f64::NAN, 1.0, 1.0, 0.05).low.is_nan(), "nothing is said of what is not known");
    }
}
