//! The gate: whether a challenger may take the champion's place, and if not, which number failed by how much.
//!
//! Two questions. [`judge_rows`] asks, before anything is trained, whether the new rows can be learned from: rows whose
//! labels were turned round train a model that looks well on rows whose labels were turned round too, so no comparison of
//! models finds them; the champion, which was judged on good ones, does. [`judge`] then holds the trained challenger
//! against the champion on the newest rows, which neither has seen.

mod config;
mod failure;
mod latency;
mod model;
mod rows;

use lately_model::ModelError;
use serde::Serialize;

pub use config::GateConfig;
pub use failure::Failure;
pub use latency::{Latency, latency};
pub use model::{Contest, judge};
pub use rows::judge_rows;

use crate::eval::{EvalError, EvalReport, Group};

/// Why the gate cannot judge.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A bound is outside its range.
    #[error("[gate] {name} is {value}: it must be {range}")]
    Range {
        /// The key.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The allowed range in words.
        range: &'static str,
    },
    /// The champion refuses the rows.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The rows cannot be evaluated.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// What the gate says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// All that failed; empty: passed.
    pub failures: Vec<Failure>,
    /// Heads that had too few positives to be judged.
    pub not_judged: Vec<String>,
}

impl Verdict {
    /// Whether the challenger may be promoted, or the rows be trained on.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Prefix of the metrics in a manifest that hold a model's AUC on the rows on which it was judged.
const JUDGED_AUC: &str = "gate.auc.";

/// What a manifest should keep of the challenger's evaluation: by it the champion that it becomes is known later.
pub fn judged_metrics(report: &EvalReport) -> Vec<(String, f64)> {
    let of = |head: &crate::eval::HeadReport| {
        let own = report.group(&head.head, Group::All)?.scorers.first()?;
        Some((format!("{JUDGED_AUC}{}", head.head), own.metrics.auc.value?))
    };
    report.heads.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests;
