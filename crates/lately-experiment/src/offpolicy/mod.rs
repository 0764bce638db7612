//! What another policy would have earned, from a log with propensities.
//!
//! Three estimates of the reward of a shown item under a target policy, by weights target / propensity: IPS (Horvitz and
//! Thompson 1952) is unbiased, SNIPS (Swaminathan and Joachims 2015) divides by the weights and not by their number,
//! doubly robust (Dudik, Langford and Li 2011) weighs only what a model of the reward gets wrong. Rows are items at places:
//! what an item earns at a place is taken not to depend on the items around it (the item-position model of Li et al.
//! 2018). Intervals are between people.

mod estimates;
mod exploration;
mod overlap;

use serde::{Deserialize, Serialize};

pub use estimates::{Evaluation, Value, off_policy};
pub use exploration::Exploration;
pub use overlap::Overlap;

/// One shown item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logged {
    /// Hash of the person: rows of one person are one observation.
    pub user: u64,
    /// Probability that it stood at its place, by the policy that served it.
    pub propensity: f64,
    /// The same by the policy that is asked about.
    pub target: f64,
    /// What came of it: 1 for a save.
    pub reward: f64,
    /// What a model of the reward says, for the doubly robust estimate. It must not have seen this row.
    pub model: Option<Predicted>,
}

/// What a model of the reward says of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// Expected reward of the item that was shown, at its place.
    pub shown: f64,
    /// Expected reward of what the target policy shows at this place.
    pub expected: f64,
}

/// How to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OffPolicySettings {
    /// Probability with which an interval covers. Default 0.95.
    pub confidence: f64,
    /// Weights above this count as this: less variance for a bias, which the overlap tells. Default: none are clipped.
    pub max_weight: Option<f64>,
}

impl Default for OffPolicySettings {
    fn default() -> Self {
        Self { confidence: 0.95, max_weight: None }
    }
}

/// Why nothing is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum OffPolicyError {
    /// A row that cannot have been shown.
    #[error(
        "row {row} has the propensity {got}: it must be above 0 and at most 1; leave out what was not randomised"
    )]
    Propensity {
        /// Which.
        row: usize,
        /// Its propensity.
        got: f64,
    },
    /// A target that is no probability.
    #[error("row {row} has the target probability {got}: it must be from 0 to 1")]
    Target {
        /// Which.
        row: usize,
        /// Its probability.
        got: f64,
    },
    /// A number that is none.
    #[error("row {row} has a reward or prediction that is not finite")]
    NotFinite {
        /// Which.
        row: usize,
    },
    /// A setting outside of its range.
    #[error("confidence {0} is not between 0 and 1, or the largest weight is not above 0")]
    Settings(f64),
    /// Too few people.
    #[error("{0} people: intervals are between people, so it takes two")]
    People(usize),
}
