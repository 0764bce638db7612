//! The learning loop, as a server or `lately retrain` runs it: a turn joins what was served, asks whether the new rows
//! can be learned from, trains, holds the result against the champion on the newest rows, and promotes it.
//!
//! Read in this order: `config` (what is asked for), `schedule` (when a turn is due and of which kind), [`Learner`] in
//! `turn` (one turn), `low` (how it leaves the cores to those who serve).

mod config;
pub(crate) mod low;
mod schedule;
mod turn;

pub use config::{RetrainConfig, RetrainConfigError};
pub use schedule::{Due, Kind};
pub use turn::{Learner, Outcome, Turn, newest_row_ms};
