//! Bounds of the gate, `[gate]`.

use serde::{Deserialize, Serialize};

use super::GateError;

/// Bounds of the gate. A difference counts where it is larger than the bound, or proven (its 95 % interval over users
/// excludes zero) and larger than a tolerance: with many rows everything is proven, with few nothing is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateConfig {
    /// A head's AUC may be below the champion's by this much. Default 0.005: about twice the spread between seeds of
    /// one model on 100 k rows.
    pub auc_margin: f64,
    /// A proven fall of a head's AUC may be this large. Default 0.002.
    pub auc_tolerance: f64,
    /// A head's log loss may exceed the champion's by this share of it. Default 0.01.
    pub log_loss_margin: f64,
    /// A proven rise of a head's log loss may be this share of it. Default 0.003.
    pub log_loss_tolerance: f64,
    /// Lowest mean prediction over observed rate, of each head and segment; it fails where the whole interval is lower.
    /// Default 0.95.
    pub calibration_low: f64,
    /// The highest; it fails where the whole interval is higher. Default 1.05.
    pub calibration_high: f64,
    /// A head with fewer positives in the held-out rows is not judged on AUC and calibration: its numbers are noise.
    /// Default 100.
    pub min_positives: usize,
    /// Largest population stability index between the champion's and the challenger's probabilities on the same rows.
    /// Default 0.5, twice what is read as another population: retrained models of one configuration stay below 0.1.
    pub score_shift: f64,
    /// Largest logit, without sign. Default 30: beyond it a probability is 1 to f32, and bf16 is off by 0.1.
    pub max_logit: f64,
    /// Smallest standard deviation of a head's logits. Default 0.001: below it the model says the same of everything.
    pub min_spread: f64,
    /// Largest time for a candidate as a multiple of the champion's, measured in turns. Default 1.5.
    pub latency_ratio: f64,
    /// Largest time for a candidate on this machine, us; 0: no bound. Default 0.
    pub latency_us: f64,
    /// Largest difference between the new rows and those before in the share of rows that have a feature. Default 0.2.
    pub coverage_margin: f64,
    /// Largest share of the new rows that one user may have. Default 0.2.
    pub max_user_share: f64,
    /// Largest factor between a head's rate in the new rows and before. Default 5: a first model may triple the saves of the
    /// random order that it learned from.
    pub max_rate_factor: f64,
    /// The champion's own AUC on the new rows may be below what it had when it was judged by this much: where it falls
    /// deeper, it is the labels that are wrong. Default 0.1.
    pub max_auc_fall: f64,
    /// Resamples of users for the intervals. Default 200.
    pub resamples: usize,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            auc_margin: 0.005,
            auc_tolerance: 0.002,
            log_loss_margin: 0.01,
            log_loss_tolerance: 0.003,
            calibration_low: 0.95,
            calibration_high: 1.05,
            min_positives: 100,
            score_shift: 0.5,
            max_logit: 30.0,
            min_spread: 0.001,
            latency_ratio: 1.5,
            latency_us: 0.0,
            coverage_margin: 0.2,
            max_user_share: 0.2,
            max_rate_factor: 5.0,
            max_auc_fall: 0.1,
            resamples: 200,
        }
    }
}

impl GateConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// [`GateError::Range`].
    pub fn check(&self) -> Result<(), GateError> {
        let margin = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let calibrated = 0.0 < self.calibration_low && self.calibration_low <= 1.0;
        for (name, value, good, range) in [
            ("auc_margin", self.auc_margin, margin(self.auc_margin), "0 to 1"),
            ("auc_tolerance", self.auc_tolerance, margin(self.auc_tolerance), "0 to 1"),
            ("log_loss_margin", self.log_loss_margin, margin(self.log_loss_margin), "0 to 1"),
            ("log_loss_tolerance", self.log_loss_tolerance, margin(self.log_loss_tolerance), "0 to 1"),
            ("calibration_low", self.calibration_low, calibrated, "above 0, to 1"),
            ("calibration_high", self.calibration_high, self.calibration_high >= 1.0, "1 or more"),
            ("score_shift", self.score_shift, positive(self.score_shift), "above 0"),
            ("max_logit", self.max_logit, positive(self.max_logit), "above 0"),
            ("min_spread", self.min_spread, self.min_spread >= 0.0, "0 or more"),
            ("latency_ratio", self.latency_ratio, self.latency_ratio >= 1.0, "1 or more"),
            ("latency_us", self.latency_us, self.latency_us >= 0.0, "0 or more"),
            ("coverage_margin", self.coverage_margin, margin(self.coverage_margin), "0 to 1"),
            ("max_user_share", self.max_user_share, positive(self.max_user_share), "above 0"),
            ("max_rate_factor", self.max_rate_factor, self.max_rate_factor >= 1.0, "1 or more"),
            ("max_auc_fall", self.max_auc_fall, margin(self.max_auc_fall), "0 to 1"),
            ("resamples", self.resamples as f64, (20..=10_000).contains(&self.resamples), "20 to 10,000"),
        ] {
            if !good {
                return Err(GateError::Range { name, value, range });
            }
        }
        Ok(())
    }
}
