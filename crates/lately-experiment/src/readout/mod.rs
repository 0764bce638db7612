//! From an experiment's design and the log to a report.
//!
//! [`Design`] says what is compared. [`Readout`] reads the log and keeps sums of each person; a simulator that has them
//! already hands [`PersonSums`] to [`Report::of`]. A person counts from the first exposure on, in its variant, with all
//! that is done since, on all surfaces: what a variant does to one surface may be taken from another.

mod design;
mod facts;
mod log;
mod people;
mod report;
mod segment;
mod series;
mod table;
mod tallies;

pub use design::{Better, Design, DesignError, Experiment, Metric, Role, Settings, Variant};
pub use log::{Readout, exposed};
pub use report::{Comparison, Cuped, Report, VariantUsers};
pub use segment::{Group, Segment};
pub use series::{Day, DayPoint};
pub use tallies::PersonSums;

/// A day, ms.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
