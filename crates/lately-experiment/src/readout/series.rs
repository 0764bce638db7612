//! A report a day, so that lifts can be drawn over time.

use serde::{Deserialize, Serialize};

use super::report::Report;
use super::segment::Group;

/// How it stood at the end of a day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Day {
    /// Days since the start; a whole number but for the last.
    pub days: f64,
    /// Lifts of everybody, with CUPED where there is a past.
    pub points: Vec<DayPoint>,
}

/// A lift at the end of a day, of all that was done since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DayPoint {
    /// The metric.
    pub metric: String,
    /// The variant.
    pub variant: String,
    /// The lift.
    pub lift: f64,
    /// Interval for one look.
    pub low: f64,
    /// Its other end.
    pub high: f64,
    /// Interval for every look: lower and upper end.
    pub sequential: Option<[f64; 2]>,
}

impl Day {
    pub(super) fn of(report: &Report) -> Self {
        let all = report.comparisons.iter().filter(|c| c.group == Group::All);
        let point = |c: &super::Comparison| {
            let lift = c.best().lift?;
            Some(DayPoint {
                metric: c.metric.clone(),
                variant: c.variant.clone(),
                lift: lift.value,
                low: lift.low,
                high: lift.high,
                sequential: lift.sequential.map(|s| [s.low, s.high]),
            })
        };
        Self { days: report.days, points: all.filter_map(point).collect() }
    }
}
