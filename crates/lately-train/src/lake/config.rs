//! What a lake is set to.

use serde::{Deserialize, Serialize};

/// Settings of a lake, `[lake]` in `lately.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LakeConfig {
    /// Where it is: a URI of a bucket; empty: `lake/` in the data directory. Read by the command, not by the lake.
    pub uri: String,
    /// Partition of the log that it joins: it names its objects.
    pub partition: u32,
    /// Share of the actions that must have come before a row is written, by the delays measured so far. 0.5 to 1.
    pub wait_quantile: f64,
    /// Shortest wait, s.
    pub min_wait_seconds: u32,
    /// Longest wait, s: what comes later within its attribution window is a correction.
    pub max_wait_seconds: u32,
    /// How much later than its attribution window an action may arrive, s.
    pub late_seconds: u32,
    /// Actions of one user kept beyond `sequence.stored`: as many may be logged between a request's watermark and its
    /// impression.
    pub slack: usize,
    /// Actions of one user in an hour above which their requests are marked `bot`.
    pub bot_actions_per_hour: u32,
    /// Candidates that a commit writes while it catches up with the log.
    pub commit_candidates: usize,
    /// Requests that may wait for their labels; where more do, the oldest are written early.
    pub open_requests: usize,
    /// Log records after which the state is written again: as many, at most, are joined again after a crash.
    pub snapshot_records: u64,
    /// How long after its end an hour is compacted, s.
    pub hour_grace_seconds: u32,
    /// Most candidates of a file.
    pub file_candidates: u64,
    /// How long objects that were replaced are kept for those who are reading, s.
    pub reader_grace_seconds: u32,
    /// Age from which negatives are thinned, days; 0: never.
    pub thin_after_days: u32,
    /// Share of the negatives that thinning keeps, above 0 to 1.
    pub negative_rate: f64,
    /// Age from which files are dropped, days; 0: never.
    pub retention_days: u32,
    /// Most rows (candidates) of a dataset in memory.
    pub max_rows: usize,
    /// Most tokens of a dataset in memory.
    pub max_tokens: usize,
}

impl Default for LakeConfig {
    fn default() -> Self {
        Self {
            uri: String::new(),
            partition: 0,
            wait_quantile: 0.99,
            min_wait_seconds: 60,
            max_wait_seconds: 3_600,
            late_seconds: 86_400,
            slack: 1_024,
            bot_actions_per_hour: 3_600,
            commit_candidates: 1_000_000,
            open_requests: 100_000,
            snapshot_records: 200_000,
            hour_grace_seconds: 600,
            file_candidates: 4_000_000,
            reader_grace_seconds: 600,
            thin_after_days: 0,
            negative_rate: 1.0,
            retention_days: 0,
            max_rows: 20_000_000,
            max_tokens: 100_000_000,
        }
    }
}

/// Why settings are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LakeConfigError {
    /// A number is out of range.
    #[error("[lake] {key} is {value}: it must be {range}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        range: &'static str,
    },
}

impl LakeConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first key that is out of range.
    pub fn check(&self) -> Result<(), LakeConfigError> {
        let Self { wait_quantile, negative_rate, .. } = *self;
        let wait = f64::from(self.max_wait_seconds);
        for (key, value, holds, range) in [
            ("wait_quantile", wait_quantile, (0.5..=1.0).contains(&wait_quantile), "0.5 to 1"),
            (
                "max_wait_seconds",
                wait,
                self.max_wait_seconds >= self.min_wait_seconds,
                "min_wait_seconds or more",
            ),
            (
                "negative_rate",
                negative_rate,
                negative_rate > 0.0 && negative_rate <= 1.0,
                "above 0, 1 at most",
            ),
            ("commit_candidates", self.commit_candidates as f64, self.commit_candidates > 0, "1 or more"),
            ("open_requests", self.open_requests as f64, self.open_requests > 0, "1 or more"),
            ("snapshot_records", self.snapshot_records as f64, self.snapshot_records > 0, "1 or more"),
            ("file_candidates", self.file_candidates as f64, self.file_candidates > 0, "1 or more"),
        ] {
            if !holds {
                return Err(LakeConfigError::Range { key, value, range });
            }
        }
        Ok(())
    }
}
