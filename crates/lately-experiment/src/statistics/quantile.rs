//! Quantiles and tails of the normal and of Student's distribution.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Above so many degrees of freedom Student's quantile is taken for the normal one: they differ by 2e-6 there.
const MANY: f64 = 1e6;

/// The value that a standard normal variable stays below with probability `p`; NaN outside of (0, 1).
pub(crate) fn normal(p: f64) -> f64 {
    if p > 0.0 && p < 1.0 { Normal::standard().inverse_cdf(p) } else { f64::NAN }
}

/// The distance that Student's variable exceeds, either way, with probability `alpha`.
pub(crate) fn two_sided(alpha: f64, freedom: f64) -> f64 {
    let p = 1.0 - alpha / 2.0;
    match student(freedom) {
        Some(t) => t.inverse_cdf(p),
        None => normal(p),
    }
}

/// The probability that Student's variable is, either way, at least as far from 0 as `z`.
pub(crate) fn beyond(z: f64, freedom: f64) -> f64 {
    if z.is_nan() {
        return f64::NAN;
    }
    let tail = match student(freedom) {
        Some(t) => t.sf(z.abs()),
        None => Normal::standard().sf(z.abs()),
    };
    (2.0 * tail).min(1.0)
}

fn student(freedom: f64) -> Option<StudentsT> {
    if freedom < MANY { StudentsT::new(0.0, 1.0, freedom).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        assert!((normal(0.975) - 1.959_963_985).abs() < 1e-8);
        assert!((two_sided(0.05, 10.0) - 2.228_138_852).abs() < 1e-7, "{}", two_sided(0.05, 10.0));
        assert!((two_sided(0.05, f64::INFINITY) - 1.959_963_985).abs() < 1e-8);
        assert!((two_sided(0.01, 250.5) - 2.595_667).abs() < 1e-4, "{}", two_sided(0.01, 250.5));
        assert!((beyond(2.228_138_852, 10.0) - 0.05).abs() < 1e-9);
        assert!((beyond(-1.959_963_985, 1e9) - 0.05).abs() < 1e-9);
        assert!(beyond(f64::NAN, 5.0).is_nan() && normal(0.0).is_nan());
    }
}
