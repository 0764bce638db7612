//! What an experiment's numbers mean, pure: no IO, no clock, no async.
//!
//! Read in this order: [`statistics`] (sums over people in, estimates with intervals out), [`readout`] (from an
//! experiment's design and the log to a report) and [`offpolicy`] (what another policy would have earned, from a log with
//! propensities). Formulas and sources are in `docs/statistics.md`; each promise there is a test here.

pub mod offpolicy;
pub mod readout;
pub mod statistics;

pub use offpolicy::{
    Evaluation, Exploration, Logged, OffPolicyError, OffPolicySettings, Overlap, Predicted, Value, off_policy,
};
pub use readout::{
    Better, Comparison, Cuped, Day, DayPoint, Design, DesignError, Experiment, Group, Metric, PersonSums,
    Readout, Report, Role, Segment, Settings, Variant, VariantUsers, exposed,
};
pub use statistics::{Effect, Estimate, Mismatch, Observation, Plan, Sequential, Sums};
