//! What a look comes to: numbers for `/metrics`, warnings for the log, and whether to train again.
//!
//! Names of features, heads, actions and rungs come from the schema and the code: label sets are bounded, and ids are
//! never among them.

use std::fmt;

use serde::Serialize;

use super::config::WatchConfig;
use super::look::{Findings, NO_CHAMPION};
use lately_features::Schema;

/// A look, with what it was judged by.
#[derive(Debug, Clone, Serialize)]
pub struct WatchReport {
    /// What was found.
    pub findings: Findings,
    /// The bounds.
    pub config: WatchConfig,
}

/// Why a model should be trained.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// A feature is another one than in training.
    Drift {
        /// Which.
        feature: String,
        /// Its population stability index.
        psi: f64,
        /// The bound: that of the configuration, or what chance does on so few rows.
        bound: f64,
    },
    /// A feature is missing that was there, or the other way round.
    Coverage {
        /// Which.
        feature: String,
        /// Share of the rows that had it in training.
        before: f64,
        /// Share that has it now.
        now: f64,
    },
    /// The model has not seen the last days.
    Age {
        /// Hours since the newest row that it was trained on.
        hours: f64,
        /// The bound.
        bound: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drift { feature, psi, bound } => {
                write!(f, "{feature} is distributed as another one: PSI {psi:.2}, bound {bound:.2}")
            }
            Self::Coverage { feature, before, now } => {
                write!(
                    f,
                    "{feature} is there in {:.1} % of the rows, in training {:.1} %",
                    100.0 * now,
                    100.0 * before
                )
            }
            Self::Age { hours, bound } => {
                write!(f, "the newest row of the model's training is {hours:.0} h old, bound {bound} h")
            }
        }
    }
}

impl WatchReport {
    /// All reasons to train again, the worst first.
    pub fn reasons(&self) -> Vec<Reason> {
        let bounds = self.config.bounds();
        let mut reasons = Vec::new();
        for drift in self.findings.drift.iter().filter(|d| d.crossed(&bounds)) {
            let feature = drift.name.clone();
            reasons.push(if drift.uncovered(&bounds) {
                Reason::Coverage { feature, before: drift.coverage_before, now: drift.coverage }
            } else {
                Reason::Drift { feature, psi: drift.psi, bound: bounds.psi.max(drift.psi_noise) }
            });
        }
        let bound = self.config.age_hours;
        if let Some(hours) = self.data_age_hours()
            && bound > 0
            && hours > f64::from(bound)
        {
            reasons.push(Reason::Age { hours, bound });
        }
        reasons
    }

    /// Whether a model should be trained, and why first of all.
    pub fn demands_retrain(&self) -> Option<Reason> {
        self.reasons().into_iter().next()
    }

    /// Hours from the newest row that the champion was trained on to the look.
    pub(crate) fn data_age_hours(&self) -> Option<f64> {
        let (_, last) = self.findings.champion.as_ref()?.data_range_ms?;
        Some((self.findings.end_ms - last) as f64 / super::census::HOUR_MS as f64)
    }

    /// What is out of bounds, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.reasons().iter().map(ToString::to_string).collect();
        if let (None, Some(why)) = (&self.findings.champion, &self.findings.no_drift)
            && why != NO_CHAMPION
        {
            lines.push(why.clone());
        }
        let (low, high) = (self.config.calibration_low, self.config.calibration_high);
        for head in self.findings.calibration.iter().filter(|h| h.all.is_off(low, high)) {
            let c = &head.all;
            lines.push(format!(
                "{}: predicted over observed is {:.2} ({:.2} to {:.2}), bounds {low} to {high}",
                head.head, c.ratio, c.low, c.high
            ));
        }
        for (version, report) in self.findings.replay.iter().filter(|(_, r)| !r.holds()) {
            lines.push(format!(
                "{version:.12}: {} of {} served items cannot be made again from the log, by up to {:.1e}",
                report.beyond + report.unknown,
                report.rows + report.unknown,
                report.worst
            ));
        }
        lines
    }

    /// Sets the metrics.
    pub(super) fn publish(&self, schema: &Schema, now_ms: i64) {
        let f = &self.findings;
        for drift in &f.drift {
            metrics::gauge!("lately_drift_psi", "feature" => drift.name.clone()).set(drift.psi);
            metrics::gauge!("lately_feature_coverage", "feature" => drift.name.clone()).set(drift.coverage);
        }
        for (action, share) in f.census.shares(schema) {
            metrics::gauge!("lately_action_share", "action" => action).set(share);
        }
        for head in f.calibration.iter().filter(|h| h.all.rows > 0) {
            metrics::gauge!("lately_calibration_ratio", "head" => head.head.clone()).set(head.all.ratio);
        }
        if let Some(champion) = &f.champion {
            let age = |since: i64| (now_ms - since) as f64 / 1e3;
            metrics::gauge!("lately_model_age_seconds", "since" => "published")
                .set(age(champion.published_ms));
            if let Some((_, last)) = champion.data_range_ms {
                metrics::gauge!("lately_model_age_seconds", "since" => "data").set(age(last));
            }
        }
        if let Some(vectors) = &f.vectors {
            let share = vectors.without as f64 / vectors.items.max(1) as f64;
            metrics::gauge!("lately_items_without_vector_share").set(share);
        }
        let (mut requests, mut mismatches) = (0, 0);
        for report in f.replay.values() {
            requests += report.requests;
            mismatches += report.beyond + report.unknown;
        }
        metrics::counter!("lately_replay_requests_total").increment(requests as u64);
        metrics::counter!("lately_replay_mismatches_total").increment(mismatches as u64);
        metrics::gauge!("lately_watch_warnings").set(self.warnings().len() as f64);
        metrics::gauge!("lately_watch_time_seconds").set(now_ms as f64 / 1e3);
    }
}
