//! `[rank.guardrails]` of `lately.toml`: when a new version counts as worse than the one before it.

use serde::{Deserialize, Serialize};

use crate::error::RankConfigError;

/// Bounds within which a new version may differ, and how sure a breach must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardrailConfig {
    /// Whether new versions are watched, and taken back where one breaches a bound. Default true.
    pub enabled: bool,
    /// Time between looks, s. Default 5.
    pub look_seconds: u64,
    /// For how long a version is watched after its swap; then it is what the next one is compared with. Also the length
    /// of the windows in which numbers are kept. Minutes. Default 60.
    pub watch_minutes: u64,
    /// Most probability that a version which is within all bounds is taken back all the same, over all looks of a watch
    /// and all guardrails. Default 0.01.
    pub alpha: f64,
    /// How long after a ranking its actions are waited for, s. Default 60.
    pub maturity_seconds: u64,
    /// Rankings of each of the two versions before they are compared. Default 100.
    pub min_rankings: u64,
    /// Actions of a head that must be expected of the new version, and seen of the other, before they are compared.
    /// Default 50.
    pub min_events: u64,
    /// How much larger the share of the rankings on which the model fails may be. Default 0.01.
    pub error_rate: f64,
    /// How much larger the share of the rankings that it cannot score in time may be, in a canary. Default 0.05.
    pub deadline_rate: f64,
    /// How far a head's mean logit may shift, in standard deviations of the other version's logits. Default 1.5.
    pub score_shift: f64,
    /// How many times further from 1 a head's ratio of observed to predicted actions may be. Default 1.5.
    pub calibration: f64,
    /// How many times more often a head with a negative weight may come. Default 1.5.
    pub negative_rise: f64,
    /// How many times more rarely a head with a positive weight may come. Default 2.
    pub positive_drop: f64,
}

impl Default for GuardrailConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            look_seconds: 5,
            watch_minutes: 60,
            alpha: 0.01,
            maturity_seconds: 60,
            min_rankings: 100,
            min_events: 50,
            error_rate: 0.01,
            deadline_rate: 0.05,
            score_shift: 1.5,
            calibration: 1.5,
            negative_rise: 1.5,
            positive_drop: 2.0,
        }
    }
}

impl GuardrailConfig {
    /// Checks the ranges of the numbers.
    pub(crate) fn check(&self) -> Result<(), RankConfigError> {
        // A bound of nothing would make each version that differs at all a breach.
        let all = [
            ("look_seconds", self.look_seconds as f64, 1.0, 600.0),
            ("watch_minutes", self.watch_minutes as f64, 1.0, 10_080.0),
            ("alpha", self.alpha, 1e-6, 0.5),
            ("maturity_seconds", self.maturity_seconds as f64, 0.0, 86_400.0),
            ("min_rankings", self.min_rankings as f64, 50.0, 1e9),
            ("min_events", self.min_events as f64, 10.0, 1e9),
            ("error_rate", self.error_rate, 1e-4, 1.0),
            ("deadline_rate", self.deadline_rate, 1e-4, 1.0),
            ("score_shift", self.score_shift, 0.01, 100.0),
            ("calibration", self.calibration, 1.01, 1e3),
            ("negative_rise", self.negative_rise, 1.01, 1e3),
            ("positive_drop", self.positive_drop, 1.01, 1e3),
        ];
        for (name, value, low, high) in all {
            if !(low..=high).contains(&value) {
                return Err(RankConfigError::Guardrail { name, value, low, high });
            }
        }
        Ok(())
    }

    /// The length of a watch, ms.
    pub fn watch_ms(&self) -> i64 {
        i64::try_from(self.watch_minutes).unwrap_or(i64::MAX).saturating_mul(60_000)
    }

    pub(super) fn maturity_ms(&self) -> i64 {
        i64::try_from(self.maturity_seconds).unwrap_or(i64::MAX).saturating_mul(1_000)
    }
}
