//! `[watch]` of `lately.toml`.

use serde::{Deserialize, Serialize};

/// How often a running server looks at its log, and what it warns of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchConfig {
    /// Minutes between looks; 0: never.
    pub minutes: u32,
    /// Hours of the log that are held against the model's training rows, 1 to 720.
    pub hours: u32,
    /// Population stability index from which a feature counts as another one, above 0.
    pub psi: f64,
    /// Difference of a coverage that counts, as a share of the rows, above 0 to 1.
    pub coverage: f64,
    /// Age of the newest row that the model was trained on, hours; 0: any.
    pub age_hours: u32,
    /// Lowest mean probability over the observed rate.
    pub calibration_low: f64,
    /// Highest.
    pub calibration_high: f64,
    /// Newest rankings that are made again from the log; 0: none.
    pub replay_requests: usize,
    /// Actions of one user in an hour that no person makes.
    pub user_actions_per_hour: u32,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            minutes: 60,
            hours: 24,
            psi: 0.25,
            coverage: 0.1,
            age_hours: 168,
            calibration_low: 0.8,
            calibration_high: 1.25,
            replay_requests: 1_000,
            user_actions_per_hour: 1_000,
        }
    }
}

/// A bound of the watch that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("[watch] {name} is {got}: it must be {range}")]
pub struct WatchConfigError {
    name: &'static str,
    got: f64,
    range: &'static str,
}

impl WatchConfig {
    /// Refuses what is out of range.
    ///
    /// # Errors
    /// [`WatchConfigError`] names the key.
    pub fn check(&self) -> Result<(), WatchConfigError> {
        let within = |name, got: f64, holds: bool, range| {
            if holds { Ok(()) } else { Err(WatchConfigError { name, got, range }) }
        };
        within("hours", self.hours.into(), (1..=720).contains(&self.hours), "1 to 720")?;
        within("psi", self.psi, self.psi > 0.0 && self.psi.is_finite(), "above 0")?;
        within("coverage", self.coverage, self.coverage > 0.0 && self.coverage <= 1.0, "above 0 to 1")?;
        let (low, high) = (self.calibration_low, self.calibration_high);
        within("calibration_low", low, low > 0.0 && low < 1.0, "above 0, below 1")?;
        within("calibration_high", high, high > 1.0 && high.is_finite(), "above 1")
    }

    /// The bounds of drift.
    pub(crate) fn bounds(&self) -> lately_train::drift::Bounds {
        lately_train::drift::Bounds { psi: self.psi, coverage: self.coverage }
    }
}
