//! When a turn is due, and of which kind.

use std::fmt;
use std::time::Duration;

use lately_model::Manifest;

use super::RetrainConfig;
use crate::data_dir::DataDir;
use crate::learn::FULL_MS;

const HOUR_MS: f64 = 3_600_000.0;

/// How a model is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// From new, on the window.
    Full,
    /// From the champion, on the new rows and a sample of the window.
    Incremental,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "from new",
            Self::Incremental => "incrementally",
        })
    }
}

/// The kind that a turn takes: from new where there is nothing to go on from, or it is another model, or the last
/// training from new is too long ago.
pub(super) fn kind(dir: &DataDir, champion: Option<&Manifest>, now_ms: i64) -> Kind {
    let config = &dir.config.retrain;
    let Some(champion) = champion else { return Kind::Full };
    let same = champion.config == dir.config.model && champion.schema == *dir.schema;
    let since = champion.metrics.get(FULL_MS).map_or(f64::INFINITY, |full| (now_ms as f64 - full) / HOUR_MS);
    if same && since < config.full_every_hours { Kind::Incremental } else { Kind::Full }
}

/// Why a turn is due.
#[derive(Debug, Clone, PartialEq)]
pub enum Due {
    /// It is time.
    Interval,
    /// The champion has not seen the last hours.
    Age {
        /// Hours since its newest row.
        hours: f64,
    },
    /// What is served no longer looks like what it was trained on; in words.
    Drift(String),
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interval => f.write_str("it is time"),
            Self::Age { hours } => write!(f, "the champion's newest row is {hours:.1} h old"),
            Self::Drift(words) => f.write_str(words),
        }
    }
}

impl RetrainConfig {
    /// Whether a turn is due, `since` the last one; `drift` says what the watch found. Without an interval none ever is. A
    /// demand before its time waits for a tenth of the interval since the last turn: one that a turn could not still must
    /// not make it run without a pause.
    pub fn due(
        &self,
        since: Duration,
        newest_row_ms: Option<i64>,
        now_ms: i64,
        drift: Option<String>,
    ) -> Option<Due> {
        let interval = Duration::from_secs(self.every_seconds);
        if interval.is_zero() || since < interval / 10 {
            return None;
        }
        if since >= interval {
            return Some(Due::Interval);
        }
        let hours = newest_row_ms.map(|newest| (now_ms - newest) as f64 / HOUR_MS);
        if let Some(hours) = hours.filter(|hours| self.max_age_hours > 0.0 && *hours > self.max_age_hours) {
            return Some(Due::Age { hours });
        }
        drift.filter(|_| self.on_drift).map(Due::Drift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_due_by_time_by_age_and_by_drift() {
        let config = RetrainConfig { every_seconds: 100, max_age_hours: 2.0, ..RetrainConfig::default() };
        let hour = 3_600_000;
        let due = |seconds, age_ms: i64, drift: Option<&str>| {
            config.due(
                Duration::from_secs(seconds),
                Some(10 * hour - age_ms),
                10 * hour,
                drift.map(Into::into),
            )
        };
        assert_eq!(due(100, 0, None), Some(Due::Interval));
        assert_eq!(due(99, 0, None), None);
        assert_eq!(due(10, 3 * hour, None), Some(Due::Age { hours: 3.0 }));
        assert_eq!(due(9, 3 * hour, Some("x")), None, "no turn without a pause");
        assert_eq!(due(10, 2 * hour, Some("psi")), Some(Due::Drift("psi".into())));
        let half = Duration::from_secs(50);
        assert_eq!(config.due(half, None, 10 * hour, None), None, "without a model there is no age");
        let calm = RetrainConfig { on_drift: false, ..config.clone() };
        assert_eq!(calm.due(half, Some(10 * hour), 10 * hour, Some("psi".into())), None);
        let idle = RetrainConfig { every_seconds: 0, ..config };
        assert_eq!(idle.due(100 * half, Some(0), 10 * hour, Some("psi".into())), None, "never by itself");
    }
}
