//! `[retrain]`: when and how a model is retrained.

use serde::Deserialize;

/// When and how a model is retrained.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrainConfig {
    /// Seconds between turns; 0: none is taken, whatever drift and age demand.
    pub every_seconds: u64,
    /// Days of the log that a training from new reads, and from which an incremental one replays.
    pub window_days: u32,
    /// Hours after which a turn trains from new; between them it goes on from the champion. 0: always from new.
    pub full_every_hours: f64,
    /// Threads of training.
    pub threads: usize,
    /// Niceness of those threads, 0 to 19: by how much they give way to those who serve; 19: they take only what nobody
    /// else wants (SCHED_IDLE). Linux alone.
    pub nice: u8,
    /// Largest share of the rows that a challenger is judged on and not trained on: the newest.
    pub held_out: f64,
    /// New rows below which a turn does nothing.
    pub min_rows: usize,
    /// Whether a drift that the watch finds demands a turn before its time.
    pub on_drift: bool,
    /// Age of the champion's newest row that demands a turn before its time, hours; 0: none does.
    pub max_age_hours: f64,
    /// Whether a model that passes becomes the challenger, to be tried on a share of the people first, and not at once
    /// the champion.
    pub canary: bool,
}

impl Default for RetrainConfig {
    fn default() -> Self {
        Self {
            every_seconds: 0,
            window_days: 14,
            full_every_hours: 24.0,
            threads: 1,
            nice: 19,
            held_out: 0.15,
            min_rows: 200,
            on_drift: true,
            max_age_hours: 0.0,
            canary: false,
        }
    }
}

/// A setting is out of its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("[retrain] {name} is {value}: it must be {range}")]
pub struct RetrainConfigError {
    name: &'static str,
    value: f64,
    range: &'static str,
}

impl RetrainConfig {
    /// Checks all ranges.
    ///
    /// # Errors
    /// [`RetrainConfigError`], the first that is out of its range.
    pub fn check(&self) -> Result<(), RetrainConfigError> {
        let hours = |x: f64| (0.0..=87_600.0).contains(&x);
        for (name, value, good, range) in [
            (
                "window_days",
                f64::from(self.window_days),
                (1..=3660).contains(&self.window_days),
                "1 to 3,660",
            ),
            ("full_every_hours", self.full_every_hours, hours(self.full_every_hours), "0 to 87,600"),
            ("threads", self.threads as f64, (1..=256).contains(&self.threads), "1 to 256"),
            ("nice", f64::from(self.nice), self.nice <= 19, "0 to 19"),
            ("held_out", self.held_out, self.held_out > 0.0 && self.held_out <= 0.5, "above 0, to 0.5"),
            ("max_age_hours", self.max_age_hours, hours(self.max_age_hours), "0 to 87,600"),
        ] {
            if !good {
                return Err(RetrainConfigError { name, value, range });
            }
        }
        Ok(())
    }
}
