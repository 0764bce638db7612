//! Habits of retraining.

use serde::Serialize;

/// How often a model is retrained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Not at all: the model of the first cut serves for good.
    Never,
    /// Every seventh day.
    Weekly,
    /// After three days, then after four, as Pinterest does.
    TwiceWeekly,
    /// At the end of each day, from new on the window.
    Daily,
    /// At the end of each day, going on from the day before.
    Incremental,
}

/// A trained model: at the end of which day, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cut {
    /// Position of its last day of training.
    pub(super) day: usize,
    pub(super) incremental: bool,
}

impl Schedule {
    /// All of them, the idle one first.
    pub const EACH: [Self; 5] =
        [Self::Never, Self::Weekly, Self::TwiceWeekly, Self::Daily, Self::Incremental];

    /// Its name in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Weekly => "weekly",
            Self::TwiceWeekly => "twice a week",
            Self::Daily => "daily",
            Self::Incremental => "daily, incremental",
        }
    }

    /// The model that serves on `day`, where the first one was trained at the end of the day `freeze` before it.
    pub(super) fn cut(self, freeze: usize, day: usize) -> Cut {
        let since = day - 1 - freeze;
        let after = match self {
            Self::Never => 0,
            Self::Weekly => since / 7 * 7,
            Self::TwiceWeekly => since / 7 * 7 + if since % 7 >= 3 { 3 } else { 0 },
            Self::Daily | Self::Incremental => since,
        };
        // The line of incremental models begins with the first full one.
        Cut { day: freeze + after, incremental: self == Self::Incremental && after > 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_habit_serves_its_newest_model() {
        let cuts = |schedule: Schedule| (4..14).map(|day| schedule.cut(3, day).day - 3).collect::<Vec<_>>();
        assert_eq!(cuts(Schedule::Never), [0; 10]);
        assert_eq!(cuts(Schedule::Weekly), [0, 0, 0, 0, 0, 0, 0, 7, 7, 7]);
        assert_eq!(cuts(Schedule::TwiceWeekly), [0, 0, 0, 3, 3, 3, 3, 7, 7, 7]);
        assert_eq!(cuts(Schedule::Daily), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(Schedule::Incremental.cut(3, 4), Cut { day: 3, incremental: false });
        assert_eq!(Schedule::Incremental.cut(3, 5), Cut { day: 4, incremental: true });
        // What is served on a day has never seen it.
        for (schedule, day) in Schedule::EACH.into_iter().flat_map(|s| (4..40).map(move |d| (s, d))) {
            assert!(schedule.cut(3, day).day < day);
        }
    }
}
