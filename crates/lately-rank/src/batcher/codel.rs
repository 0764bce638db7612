//! Whether a queue stands: CoDel's (RFC 8289) measure of it, the least sojourn of an interval.
//!
//! A burst makes a queue that is gone a moment later, and hurts nobody. A queue that never falls below `target` during
//! a whole `interval` only makes everybody wait: arrivals exceed capacity. CoDel then drops one packet at a growing
//! rate until senders slow down. Rankings come from people who do not slow down, so what waited longer than twice the
//! target is shed at once ("Fail at Scale", Maurer 2015), and nothing is let in that would have to wait that long.

use std::time::{Duration, Instant};

/// An interval is at least so many targets: RFC 8289, 4.3, takes a target of 5 to 10 % of the interval.
const TARGETS: u32 = 10;
/// How many usual requests' time a burst may be, whatever the target: a queue of one packet is no queue (RFC 8289,
/// 4.4), and at 70 % load three requests of a hundred wait longer than for four others (M/D/1).
const BURST: u32 = 4;

#[derive(Debug)]
pub(super) struct CoDel {
    target: Duration,
    interval: Duration,
    /// Time for a usual request with all threads on it.
    usual: Duration,
    least: Duration,
    ends: Option<Instant>,
    standing: bool,
}

impl CoDel {
    pub(super) fn new(target: Duration, interval: Duration) -> Self {
        let (usual, least) = (Duration::ZERO, Duration::MAX);
        Self { target, interval, usual, least, ends: None, standing: false }
    }

    /// A request left the queue after `sojourn`, zero where nothing was left in it; a usual one takes `usual`.
    pub(super) fn left(&mut self, now: Instant, sojourn: Duration, usual: Duration) {
        self.usual = usual;
        let interval = self.interval.max(self.target() * TARGETS);
        match self.ends {
            Some(ends) if now < ends => {
                self.least = self.least.min(sojourn);
                // What is over is over: the end of an overload need not wait for the end of its interval.
                self.standing &= self.least > self.target();
                return;
            }
            // Where nothing came for an interval, nothing stands.
            Some(ends) if now < ends + interval => self.standing = self.least > self.target(),
            _ => self.standing = false,
        }
        self.ends = Some(now + interval);
        self.least = sojourn;
    }

    /// Whether the queue stands.
    pub(super) fn standing(&self) -> bool {
        self.standing
    }

    /// How long a request may wait in a standing queue.
    pub(super) fn patience(&self) -> Duration {
        self.target() * 2
    }

    fn target(&self) -> Duration {
        self.target.max(self.usual * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn codel() -> (CoDel, Instant) {
        (CoDel::new(5 * MS, 100 * MS), Instant::now())
    }

    /// Requests that leave every ms of `from..to` after `sojourn`.
    fn leave(
        codel: &mut CoDel,
        start: Instant,
        range: std::ops::Range<u32>,
        sojourn: impl Fn(u32) -> Duration,
    ) {
        range.for_each(|ms| codel.left(start + ms * MS, sojourn(ms), Duration::ZERO));
    }

    #[test]
    fn a_burst_is_no_standing_queue() {
        let (mut codel, start) = codel();
        // 90 ms of long waits, 10 ms of none, again and again.
        leave(&mut codel, start, 0..1_000, |ms| if ms % 100 < 90 { 50 * MS } else { MS });
        assert!(!codel.standing());
    }

    #[test]
    fn a_queue_that_never_empties_stands_after_an_interval_and_no_longer_once_it_has_emptied() {
        let (mut codel, start) = codel();
        leave(&mut codel, start, 0..100, |_| 6 * MS);
        assert!(!codel.standing(), "an interval is not over");
        leave(&mut codel, start, 100..101, |_| 6 * MS);
        assert!(codel.standing());
        assert_eq!(codel.patience(), 10 * MS);
        leave(&mut codel, start, 101..300, |_| 6 * MS);
        assert!(codel.standing());
        leave(&mut codel, start, 300..301, |_| Duration::ZERO);
        leave(&mut codel, start, 301..302, |_| 6 * MS);
        assert!(!codel.standing(), "one that did not wait ends it");
    }

    #[test]
    fn after_a_time_without_requests_nothing_stands() {
        let (mut codel, start) = codel();
        leave(&mut codel, start, 0..150, |_| 50 * MS);
        assert!(codel.standing());
        leave(&mut codel, start, 1_000..1_001, |_| 50 * MS);
        assert!(!codel.standing());
    }

    #[test]
    fn where_requests_take_long_the_target_is_some_of_them() {
        let (mut codel, start) = codel();
        for ms in 0..5_000 {
            codel.left(start + ms * MS, 70 * MS, 20 * MS);
        }
        assert!(!codel.standing(), "three requests of 20 ms are in front");
        for ms in 5_000..7_000 {
            codel.left(start + ms * MS, 90 * MS, 20 * MS);
        }
        assert!(codel.standing());
        assert_eq!(codel.patience(), 160 * MS);
    }
}
