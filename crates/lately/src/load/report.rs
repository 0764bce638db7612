//! A run in figures: what is written as JSON and printed as a table.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::{Counter, Histogram};
use serde::Serialize;
use serde_json::Value;

use super::overload::Overload;
use super::record::{Bin, Outcome, Record};
use super::server::Usage;
use super::swaps::Swaps;
use super::verdict::Verdict;

/// Version of the JSON's form.
pub(crate) const FORMAT: u32 = 1;

/// Percentiles of a histogram, ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// Of a histogram in us.
    pub(crate) fn of<T: Counter>(h: &Histogram<T>) -> Self {
        let at = |q| h.value_at_quantile(q) as f64 / 1e3;
        Self {
            count: h.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: h.max() as f64 / 1e3,
        }
    }
}

/// One stream of requests of a phase: rankings, or events.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Stream {
    /// All that was to be sent.
    pub(crate) requests: u64,
    /// Answered in time and in full, a second.
    pub(crate) goodput: f64,
    /// Latency in ms of all that was not refused.
    pub(crate) latency: Latency,
    /// By outcome, of those that occurred.
    pub(crate) outcomes: BTreeMap<&'static str, Latency>,
    /// Refusals that named `Retry-After`.
    pub(crate) retry_after: u64,
    /// How often what was no full answer said what.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// First messages of what went wrong.
    pub(crate) messages: Vec<String>,
    /// How late requests were sent, ms; nothing in closed loop.
    pub(crate) lag: Latency,
    /// Requests that could not be sent.
    pub(crate) unsent: u64,
}

impl Stream {
    pub(crate) fn of(record: &Record, seconds: f64) -> Self {
        let of = |o: &Outcome| (o.name(), Latency::of(&record.by_outcome[*o as usize]));
        Self {
            requests: record.requests(),
            goodput: record.count(Outcome::Ok) as f64 / seconds,
            latency: Latency::of(&record.latency),
            outcomes: Outcome::ALL.iter().filter(|o| record.count(**o) > 0).map(of).collect(),
            retry_after: record.retry_after,
            reasons: record.reasons.clone(),
            messages: record.messages.clone(),
            lag: Latency::of(&record.lag),
            unsent: record.unsent,
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome.name()).map_or(0, |l| l.count)
    }

    /// What was no answer, of whatever kind.
    pub(crate) fn failed(&self) -> u64 {
        [Outcome::Shed, Outcome::Error, Outcome::Timeout].map(|o| self.count(o)).iter().sum()
    }
}

/// What the server used in a phase.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Used {
    /// Cores, on average.
    pub(crate) cores: f64,
    /// Memory at the start and the end, and the most of the samples between, bytes.
    pub(crate) rss_start: u64,
    pub(crate) rss_end: u64,
    pub(crate) rss_most: u64,
}

impl Used {
    /// Of samples by time, s; `None` of fewer than two.
    pub(crate) fn of(samples: &[(f64, Usage)]) -> Option<Self> {
        let ((from, first), (to, last)) = (samples.first()?, samples.last()?);
        Some(Self {
            cores: (last.cpu_seconds - first.cpu_seconds) / Some(to - from).filter(|s| *s > 0.0)?,
            rss_start: first.rss,
            rss_end: last.rss,
            rss_most: samples.iter().map(|(_, u)| u.rss).max()?,
        })
    }
}

/// One second of a phase.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Second {
    /// Requests that were to be sent in it, by what became of them.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
    /// Of those that were not refused, ms.
    pub(crate) p99: f64,
    /// The server's memory, bytes.
    pub(crate) rss: Option<u64>,
}

/// One phase.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// Rankings a second that were to be sent; `None` in closed loop.
    pub(crate) rate: Option<f64>,
    /// Clients of a closed loop.
    pub(crate) clients: Option<usize>,
    pub(crate) seconds: f64,
    pub(crate) rankings: Stream,
    pub(crate) events: Option<Stream>,
    /// `None` where the server is not ours or the system does not say.
    pub(crate) server: Option<Used>,
    /// Cores that this program took to send and to judge, on average over the whole of which the phase is a part.
    pub(crate) generator_cores: Option<f64>,
    /// Answers whose generation another answer had given another version.
    pub(crate) mixed: u64,
    pub(crate) series: Vec<Second>,
}

/// Seconds of a phase, of bins that may be shorter; `samples` are of the server's memory by time, s.
pub(crate) fn seconds(record: &Record, samples: &[(f64, Usage)]) -> Vec<Second> {
    let a_second = (Duration::from_secs(1).as_nanos() / record.bin.as_nanos().max(1)).max(1) as usize;
    let one = |(n, bins): (usize, &[Bin])| {
        let whole = merged(bins);
        let rss = samples.iter().rev().find(|(at, _)| *at <= (n + 1) as f64).map(|(_, u)| u.rss);
        let outcomes = Outcome::ALL.iter().filter(|o| whole.count(**o) > 0);
        Second {
            outcomes: outcomes.map(|o| (o.name(), whole.count(*o))).collect(),
            p99: Latency::of(&whole.latency).p99,
            rss,
        }
    };
    record.bins.chunks(a_second).enumerate().map(one).collect()
}

/// Several bins as one.
pub(crate) fn merged(bins: &[Bin]) -> Bin {
    let mut whole = Bin::new();
    for bin in bins {
        for (sum, n) in whole.counts.iter_mut().zip(&bin.counts) {
            *sum += n;
        }
        // Their bounds are the same.
        if let Err(error) = whole.latency.add(&bin.latency) {
            tracing::error!(%error, "a bin is lost");
        }
    }
    whole
}

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    /// UTC, RFC 3339.
    pub(crate) date: String,
    /// Version of this program.
    pub(crate) program: &'static str,
    /// CPU and cores.
    pub(crate) machine: Value,
    /// What was asked for.
    pub(crate) options: Value,
    /// Median of one ranking at a time, ms.
    pub(crate) unloaded_ms: Option<f64>,
    /// Largest goodput that was found, or that was given, rankings/s.
    pub(crate) capacity: f64,
    /// The same in candidates a second of the server's processor time.
    pub(crate) candidates_per_core_second: Option<f64>,
    pub(crate) phases: Vec<Phase>,
    pub(crate) overload: Option<Overload>,
    pub(crate) swaps: Option<Swaps>,
    pub(crate) verdicts: Vec<Verdict>,
    /// Why the figures are not to be used; empty is best.
    pub(crate) invalid: Vec<String>,
}

/// Columns of the table.
const COLUMNS: [&str; 16] = [
    "phase",
    "asked/s",
    "good/s",
    "degraded",
    "late",
    "shed",
    "error",
    "timeout",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "lag p99",
    "events p99",
    "cores",
    "MiB",
];

/// The phases as a table; times in ms.
pub(crate) fn table(phases: &[Phase]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(COLUMNS);
    for phase in phases {
        table.add_row(row(phase));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn row(phase: &Phase) -> [String; COLUMNS.len()] {
    let Phase { rankings: r, .. } = phase;
    let count = |o| r.count(o).to_string();
    let used = |f: fn(&Used) -> String| phase.server.as_ref().map_or("-".to_owned(), f);
    [
        phase.name.clone(),
        phase.rate.map_or("-".to_owned(), short),
        short(r.goodput),
        count(Outcome::Degraded),
        count(Outcome::Late),
        count(Outcome::Shed),
        count(Outcome::Error),
        count(Outcome::Timeout),
        short(r.latency.p50),
        short(r.latency.p90),
        short(r.latency.p99),
        short(r.latency.p999),
        if r.lag.count > 0 { short(r.lag.p99) } else { "-".to_owned() },
        phase.events.as_ref().map_or("-".to_owned(), |e| short(e.latency.p99)),
        used(|u| format!("{:.2}", u.cores)),
        used(|u| format!("{:.0}", u.rss_most as f64 / f64::from(1 << 20))),
    ]
}

/// Three digits or so.
pub(crate) fn short(x: f64) -> String {
    let digits = match x.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        _ => 2,
    };
    format!("{x:.digits$}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::record::{Ended, Recorder};

    pub(in super::super) fn record(bin_ms: u64, ended: &[(u64, Outcome, u64)]) -> Record {
        let recorder = Recorder::new(Duration::from_millis(bin_ms));
        for (at, outcome, ms) in ended {
            let latency = Duration::from_millis(*ms);
            let ended = Ended { outcome: *outcome, latency, reason: None, retry_after: false, model: None };
            recorder.ended(Duration::from_millis(*at), ended);
        }
        recorder.get()
    }

    fn usage(cpu_seconds: f64, rss: u64) -> Usage {
        Usage { cpu_seconds, rss, peak: rss }
    }

    #[test]
    fn seconds_put_bins_together_and_take_the_memory_of_their_time() {
        let ended = [(100, Outcome::Ok, 5), (900, Outcome::Shed, 1), (1_100, Outcome::Ok, 50)];
        let samples = [(0.0, usage(0.0, 10)), (1.0, usage(1.0, 20)), (2.0, usage(2.0, 30))];
        let series = seconds(&record(250, &ended), &samples);
        assert_eq!(series.len(), 2);
        assert_eq!(series[0].outcomes, BTreeMap::from([("ok", 1), ("shed", 1)]));
        assert_eq!((series[0].rss, series[1].rss), (Some(20), Some(30)));
        assert!((49.0..52.0).contains(&series[1].p99), "{series:?}");
    }

    #[test]
    fn a_table_has_a_row_a_phase() {
        let rankings = Stream::of(&record(1_000, &[(0, Outcome::Ok, 5), (0, Outcome::Error, 7)]), 2.0);
        assert_eq!((rankings.goodput, rankings.failed()), (0.5, 1));
        let server = Used::of(&[(0.0, usage(1.0, 5 << 20)), (2.0, usage(4.0, 3 << 20))]);
        let phase = Phase {
            name: "steady 70 %".to_owned(),
            rate: Some(35.0),
            clients: None,
            seconds: 2.0,
            rankings,
            events: None,
            server,
            generator_cores: None,
            mixed: 0,
            series: Vec::new(),
        };
        let text = table(&[phase]);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..10], ["steady", "70", "%", "35.0", "0.50", "0", "0", "0", "1", "0"], "{text}");
        assert_eq!(row[row.len() - 2..], ["1.50", "5"], "{text}");
    }
}
