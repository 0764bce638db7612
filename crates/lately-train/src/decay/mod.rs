//! The decay lab: what a model loses by standing still, and what retraining gives back.
//!
//! A model is trained at the end of each day, on the days of a window, and scores every later day; so any habit of
//! retraining ([`Schedule`]) is a choice among trained models, compared row by row on the same impressions. Another line
//! of models goes on from the first one, day by day, with the new rows and a sample of the old
//! ([`crate::incremental`]). Intervals are over users, who are resampled for all days together.
//!
//! Read in this order: `schedule` (who uses which model when), `lab` (the work), `report` (what comes of it), `table` and
//! `plot`.

mod lab;
mod plot;
mod report;
mod schedule;
mod table;

pub use lab::{Arm, DecayError, DecayOptions, run};
pub use plot::curves;
pub use report::{AgeLine, Cell, DayLine, DecayReport, HeadReport, Training};
pub use schedule::Schedule;
pub use table::{ages, cost, days, gap};
