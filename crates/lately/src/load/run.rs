//! All phases of a run, in order.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::phase::Bench;
use super::report::{FORMAT, Phase, Report, short};
use super::source::Subject;
use super::verdict::{self, Verdict};
use super::{capacity, overload, swaps};

/// Which phases, besides warming up and one at a time.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// Rankings/s; `None`: found out.
    pub(crate) capacity: Option<f64>,
    /// Steps of the latency-throughput curve; 0: none.
    pub(crate) curve: u32,
    /// Share of capacity of the steady load.
    pub(crate) steady: Option<f64>,
    /// How many times capacity.
    pub(crate) overload: Option<f64>,
    /// Swaps of models.
    pub(crate) swaps: u64,
    /// Share of capacity during swaps.
    pub(crate) swaps_at: f64,
}

/// How long phases last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) warm_up: Duration,
    pub(crate) unloaded: Duration,
    /// A step of the search for the capacity, and one of the curve.
    pub(crate) step: Duration,
    pub(crate) curve: Duration,
    pub(crate) steady: Duration,
    pub(crate) overload: overload::Times,
}

impl Times {
    pub(crate) const WHOLE: Self = Self {
        warm_up: Duration::from_secs(5),
        unloaded: Duration::from_secs(10),
        step: Duration::from_secs(5),
        curve: Duration::from_secs(15),
        steady: Duration::from_secs(300),
        overload: overload::Times {
            before: Duration::from_secs(10),
            during: Duration::from_secs(30),
            after: Duration::from_secs(20),
        },
    };
    pub(crate) const QUICK: Self = Self {
        warm_up: Duration::from_millis(500),
        unloaded: Duration::from_millis(1_000),
        step: Duration::from_millis(500),
        curve: Duration::from_millis(500),
        steady: Duration::from_millis(1_500),
        overload: overload::Times {
            before: Duration::from_millis(500),
            during: Duration::from_millis(1_000),
            after: Duration::from_millis(2_500),
        },
    };
}

/// Runs the phases.
pub(crate) struct Run<'a> {
    bench: Bench,
    report: Report,
    times: Times,
    most_lag_ms: f64,
    say: &'a mut dyn FnMut(&str),
}

/// Runs all chosen phases on a subject. A phase whose requests were sent later than `most_lag_ms` (p99) makes the
/// report invalid. Stops the server at the end.
pub(crate) fn run(
    mut subject: Subject,
    chosen: &Chosen,
    times: Times,
    events_per_second: f64,
    most_lag_ms: f64,
    options: Value,
    say: &mut dyn FnMut(&str),
) -> Result<Report> {
    let (server, data) = (subject.server.take(), subject.data.clone());
    let workload = subject.workload.clone();
    let bench = Bench::new(server, &data, workload, subject.deadline, events_per_second, 1)?;
    let mut run = Run { bench, report: Report::new(options), times, most_lag_ms, say };
    let unloaded_ms = run.unloaded()?;
    let capacity = run.capacity(chosen.capacity)?;
    for step in 1..=chosen.curve {
        let share = f64::from(step) / f64::from(chosen.curve);
        let name = format!("curve {:.0} %", 100.0 * share);
        let phase = run.bench.steady(&name, share * capacity, times.curve)?;
        run.keep(phase, Vec::new());
    }
    let steady_p99 = run.steady(chosen.steady, capacity, unloaded_ms)?;
    if chosen.swaps > 0 {
        run.swaps(&subject, chosen.swaps, chosen.swaps_at * capacity)?;
    }
    if let Some(factor) = chosen.overload {
        run.overload(capacity, factor, steady_p99)?;
    }
    let Run { bench, report, .. } = run;
    if let Some(server) = bench.server {
        server.stop()?;
    }
    Ok(report)
}

impl Run<'_> {
    fn keep(&mut self, phase: Phase, verdicts: Vec<Verdict>) {
        let r = &phase.rankings;
        (self.say)(&format!("{}: {} good/s, p99 {} ms", phase.name, short(r.goodput), short(r.latency.p99)));
        self.report.invalid.extend(verdict::invalid(&phase, self.most_lag_ms));
        self.report.verdicts.extend(verdicts);
        self.report.phases.push(phase);
    }

    /// One request at a time, after a warm-up; its median, ms.
    fn unloaded(&mut self) -> Result<f64> {
        let warm = self.bench.closed("warm-up", 2, self.times.warm_up, false)?;
        self.keep(warm, Vec::new());
        let unloaded = self.bench.closed("one at a time", 1, self.times.unloaded, false)?;
        let median = unloaded.rankings.latency.p50;
        let reasons = format!("{:?} {:?}", unloaded.rankings.reasons, unloaded.rankings.messages);
        self.keep(unloaded, Vec::new());
        ensure!(median > 0.0, "no ranking was answered: {reasons}");
        self.report.unloaded_ms = Some(median);
        Ok(median)
    }

    fn capacity(&mut self, given: Option<f64>) -> Result<f64> {
        let capacity = match given {
            Some(rate) => rate,
            None => {
                let mut steps = Vec::new();
                let best = capacity::search(&mut self.bench, self.times.step, &mut steps);
                steps.into_iter().for_each(|step| self.keep(step, Vec::new()));
                let best = best?;
                let rate = best.rankings.goodput;
                let candidates = self.bench.workload.candidates() as f64;
                self.report.candidates_per_core_second =
                    best.server.filter(|s| s.cores > 0.0).map(|s| rate * candidates / s.cores);
                self.keep(best, Vec::new());
                rate
            }
        };
        self.report.capacity = capacity;
        Ok(capacity)
    }

    /// The p99 of the steady load, ms, where it is chosen.
    fn steady(&mut self, share: Option<f64>, capacity: f64, unloaded_ms: f64) -> Result<Option<f64>> {
        let Some(share) = share else { return Ok(None) };
        let name = format!("steady {:.0} %", 100.0 * share);
        let phase = self.bench.steady(&name, share * capacity, self.times.steady)?;
        let (p99, verdicts) = (phase.rankings.latency.p99, verdict::of_steady(&phase, unloaded_ms));
        self.keep(phase, verdicts);
        Ok(Some(p99))
    }

    fn swaps(&mut self, subject: &Subject, count: u64, rate: f64) -> Result<()> {
        let admin = self.bench.server.as_ref().map(|s| s.admin.clone()).unwrap_or_default();
        let promoter = subject.promoter(&admin)?;
        let (source, probes) = promoter.probed(&self.bench.workload)?;
        let time = self.times.steady;
        let work = || promoter.swap(count, time);
        let (phase, took) = self.bench.during("swaps", &source, rate, work)?;
        let found = swaps::found(&took, &probes);
        let verdicts = verdict::of_swaps(&found, &phase);
        self.keep(phase, verdicts);
        self.report.swaps = Some(found);
        Ok(())
    }

    fn overload(&mut self, capacity: f64, factor: f64, steady_p99: Option<f64>) -> Result<()> {
        let (found, phases) =
            overload::run(&mut self.bench, capacity, factor, self.times.overload, steady_p99)?;
        let mut verdicts = verdict::of_overload(&found, phases.get(1).context("a phase is missing")?);
        for phase in phases {
            let its = if phase.name == "overload" { std::mem::take(&mut verdicts) } else { Vec::new() };
            self.keep(phase, its);
        }
        self.report.overload = Some(found);
        Ok(())
    }
}

impl Report {
    fn new(options: Value) -> Self {
        Self {
            format: FORMAT,
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            program: env!("CARGO_PKG_VERSION"),
            machine: machine(),
            options,
            unloaded_ms: None,
            capacity: 0.0,
            candidates_per_core_second: None,
            phases: Vec::new(),
            overload: None,
            swaps: None,
            verdicts: Vec::new(),
            invalid: Vec::new(),
        }
    }
}

/// Name of the processor, where the system says it, and cores.
pub(crate) fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpus.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    json!({ "cpu": cpu, "cores": cores })
}
