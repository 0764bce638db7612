//! What is kept of the requests of one phase: a histogram for each outcome, and how it went over time.
//!
//! Memory is bounded by the phase's time and the histograms' size, whatever the number of requests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Significant digits of a phase's histograms, and of those of its bins.
const DIGITS: u8 = 3;
const BIN_DIGITS: u8 = 2;
/// Largest latency that is told apart, us: longer than any request is waited for.
const MOST_US: u64 = 60_000_000;
/// Reasons told apart, and messages kept, at most.
const REASONS: usize = 32;
const MESSAGES: usize = 5;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Answered in time and in full.
    Ok,
    /// Answered in full, after its deadline.
    Late,
    /// Answered on a lower rung.
    Degraded,
    /// Refused with 429 or 503.
    Shed,
    /// Anything else that is no answer.
    Error,
    /// Given up by the client.
    Timeout,
}

impl Outcome {
    pub(crate) const ALL: [Self; 6] =
        [Self::Ok, Self::Late, Self::Degraded, Self::Shed, Self::Error, Self::Timeout];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Late => "late",
            Self::Degraded => "degraded",
            Self::Shed => "shed",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }
}

/// How one request went.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    /// From the time at which it was to be sent to the whole answer, or to giving up.
    pub(crate) latency: Duration,
    /// Status and code of what was no answer.
    pub(crate) reason: Option<String>,
    /// Whether a refusal named `Retry-After`.
    pub(crate) retry_after: bool,
    /// Version and generation of the model that ranked.
    pub(crate) model: Option<(String, u64)>,
}

/// A stretch of time of a phase.
#[derive(Debug, Clone)]
pub(crate) struct Bin {
    /// By outcome, in the order of [`Outcome::ALL`]; requests count where they were to be sent.
    pub(crate) counts: [u64; 6],
    /// Latency of what was not refused, us.
    pub(crate) latency: Histogram<u32>,
}

impl Bin {
    pub(crate) fn new() -> Self {
        Self { counts: [0; 6], latency: histogram(BIN_DIGITS) }
    }

    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize]
    }
}

/// All that is known of a phase's requests.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Latency by outcome, us, in the order of [`Outcome::ALL`].
    pub(crate) by_outcome: [Histogram<u64>; 6],
    /// Latency of all that was not refused, us: errors and time-outs count until they ended.
    pub(crate) latency: Histogram<u64>,
    /// How late requests were sent, us.
    pub(crate) lag: Histogram<u64>,
    /// Requests that were not sent, as more than the client may have in work were.
    pub(crate) unsent: u64,
    /// Refusals that named `Retry-After`.
    pub(crate) retry_after: u64,
    /// How often what was no answer said what.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// First messages of what went wrong.
    pub(crate) messages: Vec<String>,
    /// Version by generation, as answers name them.
    pub(crate) models: BTreeMap<u64, String>,
    /// Answers whose generation another answer had given another version.
    pub(crate) mixed: u64,
    /// Length of a bin.
    pub(crate) bin: Duration,
    pub(crate) bins: Vec<Bin>,
}

fn histogram<T: hdrhistogram::Counter>(digits: u8) -> Histogram<T> {
    Histogram::new_with_bounds(1, MOST_US, digits)
        .expect("the bounds are in order, 1 to 5 digits are allowed")
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Record {
    fn new(bin: Duration) -> Self {
        Self {
            by_outcome: std::array::from_fn(|_| histogram(DIGITS)),
            latency: histogram(DIGITS),
            lag: histogram(DIGITS),
            unsent: 0,
            retry_after: 0,
            reasons: BTreeMap::new(),
            messages: Vec::new(),
            models: BTreeMap::new(),
            mixed: 0,
            bin,
            bins: Vec::new(),
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.by_outcome[outcome as usize].len()
    }

    /// All that was to be sent.
    pub(crate) fn requests(&self) -> u64 {
        Outcome::ALL.iter().map(|o| self.count(*o)).sum::<u64>() + self.unsent
    }

    fn add(&mut self, at: Duration, ended: Ended) {
        let us = micros(ended.latency);
        self.by_outcome[ended.outcome as usize].saturating_record(us);
        let bin = (at.as_nanos() / self.bin.as_nanos().max(1)) as usize;
        while self.bins.len() <= bin {
            self.bins.push(Bin::new());
        }
        self.bins[bin].counts[ended.outcome as usize] += 1;
        if ended.outcome != Outcome::Shed {
            self.latency.saturating_record(us);
            self.bins[bin].latency.saturating_record(us);
        }
        self.retry_after += u64::from(ended.retry_after);
        if let Some(reason) = ended.reason {
            self.reason(ended.outcome, &reason);
        }
        if let Some((version, generation)) = ended.model {
            let known = self.models.entry(generation).or_insert_with(|| version.clone());
            self.mixed += u64::from(*known != version);
        }
    }

    fn reason(&mut self, outcome: Outcome, reason: &str) {
        let known = self.reasons.len();
        match self.reasons.get_mut(reason) {
            Some(count) => *count += 1,
            None if known < REASONS => drop(self.reasons.insert(reason.to_owned(), 1)),
            None => *self.reasons.entry("others".to_owned()).or_default() += 1,
        }
        if outcome != Outcome::Shed {
            self.message(reason);
        }
    }

    fn message(&mut self, text: &str) {
        if self.messages.len() < MESSAGES && !self.messages.iter().any(|m| m == text) {
            self.messages.push(text.to_owned());
        }
    }
}

/// A record that many requests write to.
#[derive(Debug)]
pub(crate) struct Recorder(Mutex<Record>);

impl Recorder {
    /// With bins of the given length.
    pub(crate) fn new(bin: Duration) -> Self {
        Self(Mutex::new(Record::new(bin)))
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that was to be sent `at` after the phase's start was sent so late.
    pub(crate) fn sent(&self, lag: Duration) {
        self.lock().lag.saturating_record(micros(lag));
    }

    /// A request that could not be sent, and why.
    pub(crate) fn unsent(&self, why: &str) {
        let mut record = self.lock();
        record.unsent += 1;
        record.message(why);
    }

    pub(crate) fn ended(&self, at: Duration, ended: Ended) {
        self.lock().add(at, ended);
    }

    pub(crate) fn get(&self) -> Record {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(outcome: Outcome, ms: u64) -> Ended {
        Ended { outcome, latency: Duration::from_millis(ms), reason: None, retry_after: false, model: None }
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let recorder = Recorder::new(Duration::from_secs(1));
        (1..=1_000).for_each(|ms| recorder.ended(Duration::ZERO, ended(Outcome::Ok, ms)));
        let record = recorder.get();
        for (quantile, ms) in [(0.5, 500), (0.9, 900), (0.99, 990), (0.999, 999), (1.0, 1_000)] {
            let us = record.latency.value_at_quantile(quantile);
            assert!(us.abs_diff(ms * 1_000) <= ms, "{quantile}: {us} us, three digits of {ms} ms");
        }
    }

    #[test]
    fn refusals_do_not_flatter_the_latency_and_time_outs_do_not_vanish_from_it() {
        let recorder = Recorder::new(Duration::from_secs(1));
        (0..90).for_each(|_| recorder.ended(Duration::ZERO, ended(Outcome::Shed, 0)));
        (0..5).for_each(|_| recorder.ended(Duration::ZERO, ended(Outcome::Ok, 10)));
        (0..5).for_each(|_| recorder.ended(Duration::ZERO, ended(Outcome::Timeout, 9_000)));
        recorder.unsent("no file left");
        let record = recorder.get();
        assert_eq!((record.requests(), record.latency.len(), record.count(Outcome::Shed)), (101, 10, 90));
        assert!(record.latency.value_at_quantile(0.99) > 8_000_000);
    }

    #[test]
    fn bins_hold_requests_by_the_time_at_which_they_were_to_be_sent() {
        let recorder = Recorder::new(Duration::from_millis(250));
        recorder.ended(Duration::from_millis(249), ended(Outcome::Ok, 5_000));
        recorder.ended(Duration::from_millis(800), ended(Outcome::Degraded, 1));
        let bins = recorder.get().bins;
        assert_eq!(bins.len(), 4);
        assert_eq!((bins[0].count(Outcome::Ok), bins[3].count(Outcome::Degraded)), (1, 1));
        assert_eq!((bins[1].latency.len(), bins[3].latency.len()), (0, 1));
    }

    #[test]
    fn reasons_are_counted_and_bounded() {
        let recorder = Recorder::new(Duration::from_secs(1));
        for n in 0..200 {
            let reason = Some(format!("error {}", n % 100));
            recorder.ended(Duration::ZERO, Ended { reason, ..ended(Outcome::Error, 1) });
        }
        let record = recorder.get();
        assert_eq!(record.reasons.values().sum::<u64>(), 200);
        assert_eq!((record.reasons.len(), record.messages.len()), (REASONS + 1, MESSAGES));
    }

    #[test]
    fn one_generation_is_one_version() {
        let recorder = Recorder::new(Duration::from_secs(1));
        for (version, generation) in [("a", 1), ("b", 2), ("a", 3), ("b", 2), ("a", 2)] {
            let model = Some((version.to_owned(), generation));
            recorder.ended(Duration::ZERO, Ended { model, ..ended(Outcome::Ok, 1) });
        }
        assert_eq!(recorder.get().mixed, 1);
    }
}
