//! From a model's raw logits to calibrated ones: a rising function for each head, fitted after training on rows that
//! the weights have not seen. As it rises, it changes probabilities and never the order of a head's rows.

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::config::refused;

/// One head's function from logit to logit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum HeadCalibration {
    /// slope x logit + intercept (Platt 1999).
    Platt {
        /// Above 0.
        slope: f64,
        /// Of the logit.
        intercept: f64,
    },
    /// Straight lines between knots (logit, calibrated logit), both rising; beyond the ends of slope 1, so that rows
    /// there keep their order too.
    Isotonic {
        /// At least one.
        knots: Vec<(f64, f64)>,
    },
}

impl HeadCalibration {
    /// Changes nothing.
    pub const IDENTITY: Self = Self::Platt { slope: 1.0, intercept: 0.0 };

    /// The calibrated logit. Rising: a larger logit never gives a smaller one. Two that differ by a few units in the last
    /// place of f32 can give the same.
    pub fn apply(&self, logit: f32) -> f32 {
        let z = f64::from(logit);
        let out = match self {
            Self::Platt { slope, intercept } => slope * z + intercept,
            Self::Isotonic { knots } => interpolate(knots, z),
        };
        out as f32
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::Platt { slope, intercept } => slope.is_finite() && *slope > 0.0 && intercept.is_finite(),
            Self::Isotonic { knots } => {
                let finite = knots.iter().all(|(x, y)| x.is_finite() && y.is_finite());
                let rising = knots.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1);
                finite && rising && !knots.is_empty()
            }
        }
    }
}

fn interpolate(knots: &[(f64, f64)], z: f64) -> f64 {
    let after = knots.partition_point(|(x, _)| *x <= z);
    match (after.checked_sub(1).map(|before| knots[before]), knots.get(after)) {
        // The sum can exceed the right end by rounding, which would break the order at the knot.
        (Some((x0, y0)), Some((x1, y1))) => (y0 + (y1 - y0) * ((z - x0) / (x1 - x0))).min(*y1),
        (Some((x, y)), None) | (None, Some(&(x, y))) => y + (z - x),
        (None, None) => z,
    }
}

/// A model's calibration, head by head. It stands in the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// By the position of the head.
    pub heads: Vec<HeadCalibration>,
    /// Rows on which it was fitted.
    pub rows: u64,
}

impl Calibration {
    /// Calibrates logits N x H in place.
    pub fn apply(&self, logits: &mut [f32]) {
        for row in logits.chunks_exact_mut(self.heads.len().max(1)) {
            row.iter_mut().zip(&self.heads).for_each(|(logit, head)| *logit = head.apply(*logit));
        }
    }

    /// Refuses one that is not of `heads` heads, or not of rising functions.
    pub(crate) fn validate(&self, heads: usize) -> Result<(), ModelError> {
        ModelError::length("calibration", heads, self.heads.len())?;
        match self.heads.iter().find(|head| !head.is_valid()) {
            Some(head) => {
                let value = serde_json::to_string(head).unwrap_or_default();
                Err(refused("calibration", &value, "a rising function of finite numbers".into()))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn isotonic(knots: &[(f64, f64)]) -> HeadCalibration {
        HeadCalibration::Isotonic { knots: knots.to_vec() }
    }

    #[test]
    fn follows_its_lines_and_goes_on_beyond_the_ends() {
        let line = HeadCalibration::Platt { slope: 0.5, intercept: -1.0 };
        assert_eq!([-2.0, 0.0, 4.0].map(|z| line.apply(z)), [-2.0, -1.0, 1.0]);
        let bent = isotonic(&[(-1.0, -3.0), (0.0, -2.0), (2.0, 2.0)]);
        let got = [-5.0, -1.0, -0.5, 0.0, 1.0, 2.0, 10.0].map(|z| bent.apply(z));
        assert_eq!(got, [-7.0, -3.0, -2.5, -2.0, 0.0, 2.0, 10.0]);
        assert_eq!(isotonic(&[(1.0, 2.0)]).apply(5.0), 6.0);
        assert_eq!(
            [-1e30, 3.0, f32::MAX].map(|z| HeadCalibration::IDENTITY.apply(z)),
            [-1e30, 3.0, f32::MAX]
        );
    }

    #[test]
    fn each_head_has_its_own_and_bad_ones_are_refused() {
        let heads = vec![HeadCalibration::IDENTITY, HeadCalibration::Platt { slope: 2.0, intercept: 1.0 }];
        let calibration = Calibration { heads, rows: 9 };
        let mut logits = [1.0, 1.0, -1.0, -1.0];
        calibration.apply(&mut logits);
        assert_eq!(logits, [1.0, 3.0, -1.0, -1.0]);
        assert_eq!(calibration.validate(2), Ok(()));
        assert!(calibration.validate(3).is_err());
        let json = serde_json::to_string(&calibration).unwrap();
        assert_eq!(serde_json::from_str::<Calibration>(&json).unwrap(), calibration);
        for bad in [
            HeadCalibration::Platt { slope: 0.0, intercept: 0.0 },
            HeadCalibration::Platt { slope: 1.0, intercept: f64::NAN },
            isotonic(&[]),
            isotonic(&[(0.0, 1.0), (0.0, 2.0)]),
            isotonic(&[(0.0, 1.0), (1.0, 1.0)]),
        ] {
            assert!(Calibration { heads: vec![bad.clone()], rows: 1 }.validate(1).is_err(), "{bad:?}");
        }
    }
}
