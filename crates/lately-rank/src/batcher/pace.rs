//! What a unit of work takes, as measured: the base of every estimate of when a request will be done.

use std::time::Duration;

/// Share of what was measured that the next measurement leaves in force: about the last twenty calls count.
const KEEP: f64 = 0.95;
/// A call counts as at most so many times what was expected of it: a process that was stopped for a minute must not
/// have its next requests refused for the next hundred calls.
const LEAP: f64 = 4.0;

/// A ratio of sums, so that a long call counts for more than a short one, with its fixed costs, does.
#[derive(Debug, Default)]
pub(super) struct Pace {
    seconds: f64,
    units: f64,
    /// Units of a usual request; 0 before the first.
    request: f64,
}

impl Pace {
    /// A call of `units` took a thread so long.
    pub(super) fn measure(&mut self, units: u64, took: Duration) {
        if units == 0 {
            return;
        }
        let took = if self.units > 0.0 { took.min(self.of(units).mul_f64(LEAP)) } else { took };
        self.seconds = self.seconds * KEEP + took.as_secs_f64();
        self.units = self.units * KEEP + units as f64;
    }

    /// A request of `units` came.
    pub(super) fn request(&mut self, units: u64) {
        let units = units as f64;
        self.request = if self.request > 0.0 { self.request * KEEP + units * (1.0 - KEEP) } else { units };
    }

    /// As if a unit took a thread so long.
    #[cfg(test)]
    pub(crate) fn pretend(&mut self, unit: Duration) {
        (self.seconds, self.units) = (unit.as_secs_f64(), 1.0);
    }

    /// Seconds a unit on one thread; 0 before anything was measured.
    pub(super) fn unit_seconds(&self) -> f64 {
        if self.units > 0.0 { self.seconds / self.units } else { 0.0 }
    }

    /// Time of one thread for `units`; zero before anything was measured.
    pub(super) fn of(&self, units: u64) -> Duration {
        seconds(self.unit_seconds() * units as f64)
    }

    /// Time of one thread for a usual request.
    pub(super) fn usual(&self) -> Duration {
        seconds(self.unit_seconds() * self.request)
    }
}

/// An hour at most: estimates are added to clocks.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 3_600.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_is_measured_by_work_and_not_by_calls() {
        let mut pace = Pace::default();
        assert_eq!((pace.of(1_000), pace.usual()), (Duration::ZERO, Duration::ZERO), "nothing is known");
        pace.measure(0, Duration::from_secs(1));
        assert_eq!(pace.of(1_000), Duration::ZERO, "a call of nothing says nothing");
        for _ in 0..200 {
            pace.measure(10_000, Duration::from_millis(10)); // 1 us a unit
            pace.measure(10, Duration::from_micros(20)); // 2 us, of little weight
        }
        let us = pace.unit_seconds() * 1e6;
        assert!((us - 1.0).abs() < 0.01, "{us} us");
        for _ in 0..200 {
            pace.measure(10_000, Duration::from_millis(30));
        }
        assert!((pace.unit_seconds() * 1e6 - 3.0).abs() < 0.01, "three times slower is found out");
    }

    #[test]
    fn a_pause_of_the_process_is_soon_forgotten() {
        let mut pace = Pace::default();
        (0..50).for_each(|_| pace.measure(1_000, Duration::from_millis(1)));
        pace.measure(1_000, Duration::from_secs(60));
        assert!(pace.unit_seconds() < 1.2e-6, "{}", pace.unit_seconds());
    }
}
