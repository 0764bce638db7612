//! The population stability index, and what chance alone makes of it.

/// Normal quantile of 1 - 1/10,000: with 50 features, looked at each hour, a false alarm in eight days at most.
const Z: f64 = 3.719;
/// Of a row, into each bin, so that an empty one has a logarithm (Jeffreys' prior).
const SMOOTHING: f64 = 0.5;

/// Sum over bins of (a - e) ln(a / e), in nats: the symmetric Kullback-Leibler divergence of two distributions over the
/// same bins, known as PSI (Siddiqi, Credit Risk Scorecards, 2006). Its usual reading there: below 0.1 the same, from
/// 0.25 on another population. `n` and `m` are the independent rows behind `expected` and `actual`. Bins that both
/// lack are left out.
pub fn psi(expected: &[f64], actual: &[f64], n: f64, m: f64) -> f64 {
    let bins = used(expected, actual);
    let smooth = |share: f64, n: f64| (share * n + SMOOTHING) / (n + SMOOTHING * bins as f64);
    let pairs = expected.iter().zip(actual).filter(|(e, a)| **e > 0.0 || **a > 0.0);
    pairs
        .map(|(e, a)| {
            let (e, a) = (smooth(*e, n), smooth(*a, m));
            (a - e) * (a / e).ln()
        })
        .sum()
}

/// What [`psi`] exceeds once in 10,000 where both are samples of one population: it is then nearly (1/n + 1/m) times
/// a chi-squared number of `bins` - 1 degrees of freedom (Yurdakul and Naranjo, Journal of Risk Model Validation 2020).
pub fn psi_noise(expected: &[f64], actual: &[f64], n: f64, m: f64) -> f64 {
    let degrees = used(expected, actual).saturating_sub(1).max(1) as f64;
    if n <= 0.0 || m <= 0.0 {
        return f64::INFINITY;
    }
    // The quantile by Wilson and Hilferty 1931.
    let part = 2.0 / (9.0 * degrees);
    degrees * (1.0 - part + Z * part.sqrt()).powi(3) * (1.0 / n + 1.0 / m)
}

/// The same for the difference of two shares.
pub(super) fn share_noise(before: f64, now: f64, n: f64, m: f64) -> f64 {
    if n <= 0.0 || m <= 0.0 {
        return f64::INFINITY;
    }
    let pooled = (before * n + now * m + SMOOTHING) / (n + m + 2.0 * SMOOTHING);
    Z * (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt()
}

fn used(expected: &[f64], actual: &[f64]) -> usize {
    expected.iter().zip(actual).filter(|(e, a)| **e > 0.0 || **a > 0.0).count()
}
