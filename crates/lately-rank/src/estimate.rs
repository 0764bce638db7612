//! How many candidates can be scored in the time that is left.

use std::time::Duration;

/// Share of the time left that an estimate may fill: half of all tiles take longer than the mean.
const SAFE_SHARE: f64 = 0.8;
/// Candidates that are scored however short the time looks: an estimate that has gone wrong is put right only by scoring.
pub(crate) const FEWEST: usize = 16;

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
