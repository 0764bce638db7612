//! Sigmoid and binary cross-entropy of rows; [`list`] holds the cross-entropy within lists.

pub mod list;

use crate::Real;

/// Probability of a logit.
pub fn sigmoid<R: Real>(x: R) -> R {
    if x >= R::ZERO {
        R::ONE / (R::ONE + (-x).exp())
    } else {
        let e = x.exp();
        e / (R::ONE + e)
    }
}

/// Sum of `weight * -(y ln p + (1 - y) ln(1 - p))` with p = sigmoid(logit), and its gradient for the logits
/// (overwritten). All of one length; exact for logits of any size.
pub fn cross_entropy<R: Real>(logits: &[R], label: &[f32], weight: &[f32], gradient: &mut [R]) -> f64 {
    let mut total = 0.0;
    for (((z, y), w), g) in logits.iter().zip(label).zip(weight).zip(gradient) {
        let (x, t, w) = (z.to_f64(), f64::from(*y), f64::from(*w));
        // max(x, 0) - x t + ln(1 + e^-|x|): no overflow, no logarithm of 0.
        total += w * (x.max(0.0) - x * t + (-x.abs()).exp().ln_1p());
        *g = (sigmoid(*z) - R::from_f64(t)) * R::from_f64(w);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_exact_for_extreme_logits_and_differentiates() {
        let mut g = [0f64; 4];
        let loss =
            cross_entropy(&[1e4, -1e4, 0.0, 2.0], &[1.0, 0.0, 1.0, 0.25], &[1.0, 1.0, 2.0, 0.5], &mut g);
        let p = 1.0 / (1.0 + (-2f64).exp());
        let last = -0.5 * (0.25 * p.ln() + 0.75 * (1.0 - p).ln());
        assert!((loss - 2.0 * 2f64.ln() - last).abs() < 1e-12, "{loss}");
        assert_eq!(g[..2], [0.0, 0.0]);
        assert!((g[2] + 1.0).abs() < 1e-12 && (g[3] - 0.5 * (p - 0.25)).abs() < 1e-12);
        assert!((cross_entropy(&[-1e4f32], &[1.0], &[1.0], &mut [0.0]) - 1e4).abs() < 1e-6);
    }
}
