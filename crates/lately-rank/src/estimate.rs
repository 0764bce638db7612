//! How long scoring takes: a moving mean of what the last tiles took.

use std::sync::Mutex;
use std::time::Duration;

use crate::batcher::lock;

/// What a candidate costs besides its tokens, in tokens.
const FIXED_TOKENS: usize = 8;
/// Weight of the newest tile in the mean.
const NEWEST: f64 = 0.05;
/// Most that one tile counts, as a multiple of the mean: one that was held up by the system says nothing of the next.
const LONGEST: f64 = 4.0;
/// Share of the time left that an estimate may fill: half of all tiles take longer than the mean.
const SAFE_SHARE: f64 = 0.8;
/// Candidates that are scored however short the time looks: an estimate that has gone wrong is put right only by scoring.
pub(crate) const FEWEST: usize = 16;

/// What scoring costs, in candidates x tokens.
pub(crate) fn cost(rows: usize, tokens: usize) -> f64 {
    (rows * (tokens + FIXED_TOKENS)) as f64
}

/// Seconds that one thread takes for one unit of [`cost`].
#[derive(Debug, Default)]
pub(crate) struct Estimate(Mutex<Option<f64>>);

impl Estimate {
    pub(crate) fn seconds(&self) -> Option<f64> {
        *lock(&self.0)
    }

    /// Takes in a tile. The first ones count fully: a guess must come from somewhere.
    pub(crate) fn learn(&self, cost: f64, took: Duration) {
        if cost <= 0.0 {
            return;
        }
        let one = took.as_secs_f64() / cost;
        let mut mean = lock(&self.0);
        *mean = Some(mean.map_or(one, |m| m + NEWEST * (one.min(m * LONGEST) - m)));
    }

    #[cfg(test)]
    pub(crate) fn pretend(&self, unit: Duration) {
        *lock(&self.0) = Some(unit.as_secs_f64());
    }
}

/// How many of `rows` candidates can be scored in the time `left`, at least [`FEWEST`] of them, where none would be there
/// after `none` and all after `all`.
pub(crate) fn rows_within(left: Duration, none: Duration, all: Duration, rows: usize) -> usize {
    let left = left.mul_f64(SAFE_SHARE);
    if all <= left {
        return rows;
    }
    let of_rows = all.saturating_sub(none).as_secs_f64();
    let fit = rows as f64 * left.saturating_sub(none).as_secs_f64() / of_rows.max(1e-9);
    (fit as usize).clamp(FEWEST.min(rows), rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_the_tiles_and_one_that_was_held_up_hardly_counts() {
        let estimate = Estimate::default();
        assert_eq!(estimate.seconds(), None);
        let learn = |ms| estimate.learn(1_000.0, Duration::from_millis(ms));
        learn(10);
        assert!((estimate.seconds().unwrap() - 1e-5).abs() < 1e-12);
        learn(60_000);
        assert!(estimate.seconds().unwrap() < 1.2e-5, "{:?}", estimate.seconds());
        (0..200).for_each(|_| learn(20));
        assert!((estimate.seconds().unwrap() - 2e-5).abs() < 1e-7, "{:?}", estimate.seconds());
        estimate.learn(0.0, Duration::from_secs(1));
        assert!(estimate.seconds().unwrap() < 2.1e-5, "a tile of nothing teaches nothing");
    }

    #[test]
    fn as_many_candidates_as_fit_and_never_too_few_to_learn_from() {
        let within = |left, none, all, rows| {
            let [left, none, all] = [left, none, all].map(Duration::from_millis);
            rows_within(left, none, all, rows)
        };
        assert_eq!(within(100, 0, 80, 500), 500);
        assert_eq!(within(100, 0, 160, 500), 250);
        assert_eq!(within(100, 40, 120, 500), 250, "the queue is waited for first");
        assert_eq!(within(100, 90, 200, 500), FEWEST);
        assert_eq!(within(0, 0, 0, 500), 500);
        assert_eq!(within(0, 1, 2, 500), FEWEST);
        assert_eq!(within(1, 5, 9, 3), 3, "no more than there are");
        assert_eq!(within(100, 200, 200, 500), FEWEST, "without a difference nothing is divided by it");
    }
}
