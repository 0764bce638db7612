//! `lately bench serve`: how a server holds up under load.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::demo::parse_time;
use super::train::write_json;
use crate::demo::DemoOptions;
use crate::demo::learning::{self, LearningOptions};
use crate::interrupt::Interrupt;
use crate::load::report::{Phase, Report, short, table};
use crate::load::{Chosen, History, Preset, Subject, SubjectOptions, Times, plot, run as run_phases};
use crate::world::WorldConfig;

/// Steps of the curve.
const STEPS: u32 = 10;
const QUICK_STEPS: u32 = 4;
/// Load and overload where none is named, as shares of capacity.
const STEADY: f64 = 0.7;
const OVERLOAD: f64 = 10.0;
/// How long people act before the loop is measured: connections are open then, and sequences in memory.
const LOOP_WARM_UP: Duration = Duration::from_secs(15);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load a server in open loop: its capacity, its latency over throughput, steady load, overload, swaps of models.
    Serve(Box<Args>),
    /// Let people act for minutes while a model is retrained every so often in the same process.
    Loop(LoopArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LoopArgs {
    /// How long people act while models are trained.
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    learning: Duration,
    /// How long they act without training, before it and after it.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_time)]
    quiet: Duration,
    /// From the start of a turn of learning to that of the next.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    every: Duration,
    /// Niceness of training, 0 to 19; 19: it takes only what nobody else wants.
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(u8).range(0..=19))]
    nice: u8,
    /// People of the world.
    #[arg(long, default_value_t = 400)]
    users: usize,
    /// People who act at a time.
    #[arg(long, default_value_t = 4)]
    people: usize,
    /// What each waits between two pages, ms.
    #[arg(long, default_value_t = 250)]
    pause_ms: u64,
    /// Seed of the world and its people.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Fail where a request failed, p99 is more than a fifth above that without training, or no model was promoted.
    #[arg(long)]
    assert: bool,
    /// Write all figures as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    #[command(flatten)]
    phases: PhaseArgs,
    /// Actions a second that flow in beside the rankings; 0: none.
    #[arg(long, default_value_t = 50.0, value_parser = parse_rate)]
    events_per_second: f64,
    /// Largest p99 of the lag of sent requests, ms: with more the run is invalid.
    #[arg(long, default_value_t = 10.0, value_parser = parse_rate)]
    max_lag_ms: f64,
    /// Fail where a bound is not held: p99 at most 4 unloaded medians and no failure under the steady load; goodput at
    /// least 90 % of capacity, refusals with Retry-After, recovery within 5 s under overload; no failed or mixed answer
    /// during swaps.
    #[arg(long)]
    assert: bool,
    /// Write all figures as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Write the latency-throughput curve as SVG.
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
}

/// What is loaded.
#[derive(Debug, ClapArgs)]
struct SubjectArgs {
    /// A server that runs, such as http://127.0.0.1:7000; `--data` then names its directory. Actions and impressions go
    /// into its log. Default: a server is started.
    #[arg(long, requires = "data")]
    url: Option<String>,
    /// A data directory whose users, histories, items and champion are used, in a copy. Default: one is made.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Geometry of the directory that is made, with a model of random weights.
    #[arg(long, value_enum, default_value = "default", conflicts_with = "data")]
    preset: Preset,
    /// A setting over lately.toml, such as rank.precision=bf16; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "url")]
    set: Vec<String>,
    /// Users of the directory that is made.
    #[arg(long, default_value_t = 2_000, conflicts_with = "data")]
    users: usize,
    /// Items of the directory that is made.
    #[arg(long, default_value_t = 20_000, conflicts_with = "data")]
    items: usize,
    /// Actions of each user of the directory that is made: log-normal (median 36, at most as many as there are tokens),
    /// or a number.
    #[arg(long, default_value = "log-normal", conflicts_with = "data")]
    history: History,
    /// Exponent of Zipf's law by which users ask; 0: all alike.
    #[arg(long, default_value_t = 1.0)]
    zipf: f64,
    /// Candidates of a ranking.
    #[arg(long, default_value_t = 256)]
    candidates: usize,
    /// Deadline that requests name, ms; an answer after it is not good. Default: the server's.
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
    /// Seed of the data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Which phases. Where none is named: curve, steady and overload.
#[derive(Debug, ClapArgs)]
struct PhaseArgs {
    /// All phases that are chosen, in seconds instead of minutes: to see that everything works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Latency at tenths of capacity, 10 % to 100 %.
    #[arg(long)]
    curve: bool,
    /// A steady load, as a share of capacity.
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "70%", value_parser = parse_share)]
    steady: Option<f64>,
    /// How long the steady load lasts (or the overload, where it is named and the steady load is not), such as 5m.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    time: Option<Duration>,
    /// An overload, in times of capacity.
    #[arg(long, value_name = "FACTOR", num_args = 0..=1, default_missing_value = "10x", value_parser = parse_factor)]
    overload: Option<f64>,
    /// How long the overload lasts, such as 30s.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    overload_for: Option<Duration>,
    /// Swap two models so many times under the steady load, and check every fourth answer against their scores.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "url")]
    swaps: u64,
    /// Capacity, rankings/s; default: it is found out.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    capacity: Option<f64>,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|n| n.parse::<f64>().ok());
    let share = number.filter(|n| *n > 0.0 && *n <= 100.0);
    share.map(|n| n / 100.0).ok_or_else(|| format!("`{text}` is no share: write it like 70%"))
}

fn parse_factor(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').and_then(|n| n.parse::<f64>().ok());
    number
        .filter(|n| *n > 0.0 && *n <= 1e3)
        .ok_or_else(|| format!("`{text}` is no factor: write it like 10x"))
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|n| *n >= 0.0 && *n <= 1e7);
    number.ok_or_else(|| format!("`{text}` is no number from 0 on"))
}

impl PhaseArgs {
    fn chosen(&self, plot: bool) -> Chosen {
        let named = self.curve || self.steady.is_some() || self.overload.is_some() || self.swaps > 0;
        let steps = if self.quick { QUICK_STEPS } else { STEPS };
        Chosen {
            capacity: self.capacity,
            curve: if self.curve || plot || !named { steps } else { 0 },
            steady: self.steady.or((!named).then_some(STEADY)),
            overload: self.overload.or((!named).then_some(OVERLOAD)),
            swaps: self.swaps,
            swaps_at: self.steady.unwrap_or(STEADY),
        }
    }

    fn times(&self) -> Times {
        let mut times = if self.quick { Times::QUICK } else { Times::WHOLE };
        times.steady = self.time.unwrap_or(times.steady);
        let alone = self.time.filter(|_| self.overload.is_some() && self.steady.is_none() && self.swaps == 0);
        times.overload.during = self.overload_for.or(alone).unwrap_or(times.overload.during);
        times
    }
}

impl SubjectArgs {
    fn options(&self) -> SubjectOptions {
        SubjectOptions {
            url: self.url.clone(),
            data: self.data.clone(),
            preset: self.preset,
            set: self.set.clone(),
            users: self.users,
            items: self.items,
            history: self.history,
            zipf: self.zipf,
            candidates: self.candidates,
            deadline_ms: self.deadline_ms,
            seed: self.seed,
        }
    }
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Serve(args) => run_serve(args),
        Command::Loop(args) => run_loop(args),
    }
}

fn run_loop(args: &LoopArgs) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let world = WorldConfig { users: args.users, seed: args.seed, ..WorldConfig::default() };
    let free = || "127.0.0.1:0".to_owned();
    let options = LearningOptions {
        demo: DemoOptions { world, bind: free(), admin_bind: free(), ..DemoOptions::default() },
        people: args.people,
        pause: Duration::from_millis(args.pause_ms),
        warm_up: LOOP_WARM_UP,
        quiet: args.quiet,
        learning: args.learning,
        every: args.every,
        nice: args.nice,
    };
    let learning = learning::run(&options, &interrupt, &mut |line| println!("{line}"))?;
    println!("\n{learning}");
    if let Some(path) = &args.json {
        write_json(path, &serde_json::to_value(&learning)?)?;
    }
    if args.assert { learning.check() } else { Ok(()) }
}

fn run_serve(args: &Args) -> Result<()> {
    let mut say = |line: &str| eprintln!("{line}");
    let chosen = args.phases.chosen(args.plot.is_some());
    let options = args.subject.options();
    let program = std::env::current_exe().context("cannot find this program")?;
    let subject = Subject::open(&options, &program, &mut say)?;
    subject.clear_up_when_interrupted()?;
    let deadline_ms = subject.deadline.as_secs_f64() * 1e3;
    let described = describe(&options, &subject, args)?;
    let (times, events) = (args.phases.times(), args.events_per_second);
    let report = run_phases(subject, &chosen, times, events, args.max_lag_ms, described, &mut say)?;
    print(&report);
    if let Some(path) = &args.json {
        write_json(path, &serde_json::to_value(&report)?)?;
    }
    if let Some(path) = &args.plot {
        let curve: Vec<&Phase> = report.phases.iter().filter(|p| p.name.starts_with("curve ")).collect();
        let title = format!("latency over throughput, {} candidates", options.candidates);
        let svg = plot::curve(&curve, &title, deadline_ms)?;
        std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    conclude(&report, args.assert)
}

/// What was asked for and what was loaded, for the JSON.
fn describe(options: &SubjectOptions, subject: &Subject, args: &Args) -> Result<Value> {
    let mut value = serde_json::to_value(options)?;
    // Where it lay on this machine says nothing to a reader.
    value["data"] = options.data.is_some().into();
    value["deadline_ms"] = json!(subject.deadline.as_millis() as u64);
    value["events_per_second"] = json!(args.events_per_second);
    value["max_lag_ms"] = json!(args.max_lag_ms);
    value["quick"] = json!(args.phases.quick);
    value["model"] = subject.model.clone();
    Ok(value)
}

fn print(report: &Report) {
    println!("{}\n", table(&report.phases));
    println!("unloaded median {} ms", report.unloaded_ms.map_or("-".to_owned(), short));
    let a_core = report.candidates_per_core_second;
    println!(
        "capacity {} rankings/s{}",
        short(report.capacity),
        a_core
            .map(|c| format!(", {} candidates/s a core that the server used", short(c)))
            .unwrap_or_default()
    );
    if let Some(swaps) = &report.swaps {
        println!(
            "swaps: {}, median {} ms, longest {} ms",
            swaps.done,
            short(swaps.median_ms),
            short(swaps.longest_ms)
        );
    }
    if let Some(rss) = report.overload.as_ref().and_then(|o| o.rss) {
        let [before, during, after] = rss.map(|bytes| format!("{:.0}", bytes as f64 / f64::from(1 << 20)));
        println!(
            "memory of the server: {before} MiB before the overload, {during} during it, {after} after it"
        );
    }
    for phase in &report.phases {
        let reasons = &phase.rankings.reasons;
        if !reasons.is_empty() {
            let all: Vec<String> = reasons.iter().map(|(reason, n)| format!("{n} x {reason}")).collect();
            println!("{}: {}", phase.name, all.join(", "));
        }
    }
    for verdict in &report.verdicts {
        println!("{} {}", if verdict.holds { "holds:" } else { "FAILS:" }, verdict.text);
    }
}

fn conclude(report: &Report, assert: bool) -> Result<()> {
    if !report.invalid.is_empty() {
        bail!("the figures are invalid: {}", report.invalid.join("; "));
    }
    let failed: Vec<&str> = report.verdicts.iter().filter(|v| !v.holds).map(|v| v.text.as_str()).collect();
    if assert && !failed.is_empty() {
        bail!("not held: {}", failed.join("; "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn phases(line: &str) -> (Chosen, Times) {
        let args = Cli::parse_from(format!("x {line}").split_whitespace()).args;
        (args.phases.chosen(args.plot.is_some()), args.phases.times())
    }

    #[test]
    fn flags_choose_phases() {
        let seconds = |t: Duration| t.as_secs();
        let (all, times) = phases("");
        assert_eq!((all.curve, all.steady, all.overload, all.swaps), (10, Some(0.7), Some(10.0), 0));
        assert_eq!((seconds(times.steady), seconds(times.overload.during)), (300, 30));
        let (steady, times) = phases("--steady 50% --for 2m");
        assert_eq!((steady.curve, steady.steady, steady.overload), (0, Some(0.5), None));
        assert_eq!((seconds(times.steady), seconds(times.overload.during)), (120, 30));
        let (over, times) = phases("--overload --for 7s");
        assert_eq!((over.curve, over.steady, over.overload), (0, None, Some(10.0)));
        assert_eq!(seconds(times.overload.during), 7);
        let (both, times) = phases("--steady --overload 3x --for 9s --overload-for 4s --plot x.svg");
        assert_eq!((both.curve, both.steady, both.overload), (10, Some(0.7), Some(3.0)));
        assert_eq!((seconds(times.steady), seconds(times.overload.during)), (9, 4));
        let (swaps, _) = phases("--swaps 100 --steady 60%");
        assert_eq!((swaps.swaps, swaps.swaps_at, swaps.overload), (100, 0.6, None));
        assert!(phases("--quick").1.steady < Duration::from_secs(10));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--url http://127.0.0.1:7000",
            "--data x --users 5",
            "--steady 0.7",
            "--overload 10",
            "--events-per-second -1",
            "--history long",
            "--data x --url http://127.0.0.1:7000 --swaps 3",
        ] {
            let parsed = Cli::try_parse_from(format!("x {line}").split_whitespace());
            assert!(parsed.is_err(), "{line}");
        }
    }
}
