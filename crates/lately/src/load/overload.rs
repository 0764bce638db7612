//! Many times more than the server can do: what it still does, what it refuses, and how soon it is itself again.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::arrivals::Segment;
use super::phase::Bench;
use super::record::{Bin, Outcome, Record};
use super::report::{Phase, merged};

/// Load before and after, as a share of capacity.
const AROUND: f64 = 0.5;
/// Length of a bin after the load drops, and bins of the window whose p99 is looked at.
const BIN: Duration = Duration::from_millis(250);
const WINDOW: usize = 4;
/// The p99 must be back within so many of the one to compare with.
const BACK: f64 = 2.0;
/// And so many of the window's requests answered in time and in full: a lower rung is fast, too.
const WHOLE: f64 = 0.9;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Overload {
    /// How many times capacity.
    pub(crate) factor: f64,
    /// Goodput under overload as a share of capacity.
    pub(crate) share_of_capacity: f64,
    /// Most memory of the server before, during and after, bytes.
    pub(crate) rss: Option<[u64; 3]>,
    /// The p99 to come back to, ms, doubled.
    pub(crate) bound_ms: f64,
    /// From the drop of the load until the p99 of a second is within the bound, nine tenths of its requests are answered
    /// in time and in full, and none failed; `None`: never.
    pub(crate) recovery_seconds: Option<f64>,
}

/// Times of the three parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) before: Duration,
    pub(crate) during: Duration,
    pub(crate) after: Duration,
}

/// Half the capacity, `factor` times the capacity, half again, without a pause between. `steady_p99` is the p99 to come
/// back to, ms; without it that of the first part.
pub(crate) fn run(
    bench: &mut Bench,
    capacity: f64,
    factor: f64,
    times: Times,
    steady_p99: Option<f64>,
) -> Result<(Overload, Vec<Phase>)> {
    let segment = |share: f64, time| Segment { rate: share * capacity, time };
    let parts = [
        (segment(AROUND, times.before), Duration::from_secs(1)),
        (segment(factor, times.during), Duration::from_secs(1)),
        (segment(AROUND, times.after), BIN),
    ];
    let names = ["before overload", "overload", "after overload"];
    let watched = bench.open(&parts)?;
    let phases = watched.phases(&names, &parts.map(|(segment, _)| segment));
    let bound_ms = BACK * steady_p99.unwrap_or(phases[0].rankings.latency.p99);
    let recovery = watched.records.last().and_then(|after| recovery(after, bound_ms));
    let overload = Overload {
        factor,
        share_of_capacity: phases[1].rankings.goodput / capacity,
        rss: memory(&phases),
        bound_ms,
        recovery_seconds: recovery.map(|time| time.as_secs_f64()),
    };
    Ok((overload, phases))
}

fn memory(phases: &[Phase]) -> Option<[u64; 3]> {
    let most = |n: usize| phases.get(n)?.server.map(|used| used.rss_most);
    Some([most(0)?, most(1)?, most(2)?])
}

/// The start of the first window that is as it should be.
fn recovery(after: &Record, bound_ms: f64) -> Option<Duration> {
    let good = |bins: &[Bin]| {
        let whole = merged(bins);
        let failed = [Outcome::Shed, Outcome::Error, Outcome::Timeout].map(|o| whole.count(o));
        let p99 = whole.latency.value_at_quantile(0.99) as f64 / 1e3;
        let all: u64 = whole.counts.iter().sum();
        let in_full = whole.count(Outcome::Ok) as f64 >= WHOLE * all as f64;
        all > 0 && in_full && failed == [0; 3] && p99 <= bound_ms
    };
    let first = after.bins.windows(WINDOW).position(good)?;
    Some(after.bin * first as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::tests::record;

    /// A request every 50 ms for 4 s; until `until` ms it goes badly.
    fn after(until: u64, bad: (Outcome, u64)) -> Record {
        let ended = |at| if at < until { (at, bad.0, bad.1) } else { (at, Outcome::Ok, 10) };
        record(250, &(0..80).map(|n| ended(n * 50)).collect::<Vec<_>>())
    }

    #[test]
    fn recovered_is_when_a_whole_second_is_fast_and_without_failure() {
        let at = |until, bad| recovery(&after(until, bad), 20.0).map(|t| t.as_millis());
        assert_eq!(at(0, (Outcome::Ok, 10)), Some(0));
        assert_eq!(at(1_300, (Outcome::Ok, 500)), Some(1_500), "slow until 1.3 s");
        assert_eq!(at(1_000, (Outcome::Shed, 1)), Some(1_000), "refused, if ever so fast");
        assert_eq!(at(600, (Outcome::Timeout, 1)), Some(750));
        assert_eq!(at(1_000, (Outcome::Degraded, 1)), Some(1_000), "fast, but on a lower rung");
        assert_eq!(at(3_500, (Outcome::Ok, 500)), None, "no whole second is left");
        assert_eq!(recovery(&record(250, &[]), 20.0), None);
    }
}
