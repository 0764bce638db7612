//! How two tables of logits agree.

use std::fmt;

use lately_features::FeatureBatch;
use serde::Serialize;

/// Largest error of a logit, as a share of the largest logit.
pub(crate) const ERROR: f64 = 1e-2;
/// Smallest Kendall tau of a head within a request.
pub(crate) const TAU: f64 = 0.999;
/// By how much more than the CPU's engine in bf16 a card may be off where that is beyond these bounds: of models of random
/// weights, whose logits lie close together, it has tau 0.995 for 500 candidates and errors to 1.2e-2 for single ones.
pub(crate) const SLACK: f64 = 2.0;
/// Fewest candidates of a request whose order is judged: of fewer one pair that is as good as equal is more than 0.001.
const ORDERED: usize = 500;

/// How they agree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Agreement {
    /// Largest difference over the largest expected magnitude; infinite where lengths differ or a number is none.
    pub(crate) error: f64,
    /// Smallest Kendall tau-b of a head within a request of at least 500 candidates; `None` where there is no such request.
    pub(crate) tau: Option<f64>,
}

impl Agreement {
    pub(crate) fn of(batch: &FeatureBatch, got: &[f32], want: &[f32]) -> Self {
        let error = error(got, want);
        if error.is_infinite() || batch.rows() == 0 {
            return Self { error, tau: None };
        }
        let heads = want.len() / batch.rows();
        let mut tau: Option<f64> = None;
        for request in batch.row_offsets.windows(2) {
            let rows = request[0] as usize..request[1] as usize;
            if rows.len() < ORDERED {
                continue;
            }
            for head in 0..heads {
                let column =
                    |x: &[f32]| -> Vec<f32> { rows.clone().map(|row| x[row * heads + head]).collect() };
                let found = kendall(&column(got), &column(want));
                tau = Some(tau.map_or(found, |tau| tau.min(found)));
            }
        }
        Self { error, tau }
    }

    /// Whether it is as good as rounding to bf16 lets it be; `bf16` is how the CPU's engine in bf16 agrees with the same.
    pub(crate) fn holds(&self, bf16: &Self) -> bool {
        let error = ERROR.max(SLACK * bf16.error);
        let tau = bf16.tau.map_or(TAU, |tau| TAU.min(1.0 - SLACK * (1.0 - tau)));
        bf16.error.is_finite() && self.error <= error && self.tau.is_none_or(|of| of >= tau)
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {:.1e}", self.error)?;
        self.tau.map_or(Ok(()), |tau| write!(f, ", tau {tau:.5}"))
    }
}

fn error(got: &[f32], want: &[f32]) -> f64 {
    if got.len() != want.len() || got.iter().chain(want).any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let scale = want.iter().fold(1e-30, |m, x| f64::from(x.abs()).max(m));
    got.iter().zip(want).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max) / scale
}

/// Kendall's tau-b over all pairs: of 2,000 candidates 2 million, some milliseconds.
fn kendall(a: &[f32], b: &[f32]) -> f64 {
    let (mut sum, mut of_a, mut of_b) = (0i64, 0i64, 0i64);
    for i in 1..a.len() {
        for j in 0..i {
            let sign = |x: &[f32]| i64::from(x[i] > x[j]) - i64::from(x[i] < x[j]);
            let (in_a, in_b) = (sign(a), sign(b));
            sum += in_a * in_b;
            of_a += in_a * in_a;
            of_b += in_b * in_b;
        }
    }
    let spread = (of_a as f64 * of_b as f64).sqrt();
    // Where one side is constant nothing is ordered.
    if spread > 0.0 { sum as f64 / spread } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_compared_by_pairs_and_ties_count_for_half() {
        assert_eq!(kendall(&[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0, 30.0, 40.0]), 1.0);
        assert_eq!(kendall(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0);
        // Of 6 pairs one is turned round.
        assert!((kendall(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 4.0, 3.0]) - 4.0 / 6.0).abs() < 1e-12);
        // 5 pairs agree, one is tied on the left alone: 5 / sqrt(5 x 6).
        assert!((kendall(&[1.0, 2.0, 3.0, 3.0], &[1.0, 2.0, 3.0, 4.0]) - 5.0 / 30f64.sqrt()).abs() < 1e-12);
        assert_eq!(kendall(&[1.0, 1.0], &[1.0, 2.0]), 1.0);
    }

    #[test]
    fn one_bad_number_one_missing_number_or_one_wrong_order_does_not_hold() {
        let rows = ORDERED as u32;
        let batch = FeatureBatch {
            row_offsets: vec![0, rows, rows + 1],
            item: lately_features::batch::Columns::default(),
            ..FeatureBatch::default()
        };
        let want: Vec<f32> = (0..2 * rows + 2).map(|i| i as f32 / 100.0).collect();
        let of = |got: &[f32]| Agreement::of(&batch, got, &want);
        let exact = of(&want);
        assert_eq!(exact, Agreement { error: 0.0, tau: Some(1.0) });
        assert!(of(&want).holds(&exact));
        let mut got = want.clone();
        got[3] = f32::NAN;
        assert!(of(&got).error.is_infinite() && !of(&got).holds(&exact));
        assert!(!of(&want[1..]).holds(&exact));
        got[3] = want[3] + 0.2; // of 10
        assert!(of(&got).error > ERROR && !of(&got).holds(&exact));
        let mut turned = want.clone();
        turned[..400].reverse(); // small numbers, so that the error is small
        turned.iter_mut().zip(&want).for_each(|(t, w)| *t = w + (*t - w) * 1e-3);
        assert!(of(&turned).holds(&exact), "{:?}", of(&turned));
        let shuffled: Vec<f32> =
            want.iter().enumerate().map(|(i, w)| w + (i * 7 % 11) as f32 * 9e-3).collect();
        let found = of(&shuffled);
        assert!(found.error <= ERROR && found.tau.unwrap() < TAU && !found.holds(&exact), "{found:?}");
        // Where the CPU in bf16 is as bad, that is what bf16 does; where it is not finite nothing is known.
        assert!(found.holds(&found) && !Agreement { error: 3.0 * found.error, ..found }.holds(&found));
        assert!(!exact.holds(&of(&want[1..])));
    }
}
