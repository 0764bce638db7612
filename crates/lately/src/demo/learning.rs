//! The whole loop for minutes: people act, and a model is retrained every so often in the same process. What it costs those
//! who are served, and how long it takes until a model has learned from what somebody did.
//!
//! Three phases on one server: without training, with it, and without it again, so that a machine that changes its pace
//! shows. A person waits for a page before asking for the next (closed loop), so a server that stalls is asked less;
//! several act at a time to keep that small.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::crowd::{Crowd, Seen};
use super::summary::Latency;
use super::{Demo, DemoOptions};
use crate::interrupt::Interrupt;
use crate::retrain::{Learner, Turn};
use crate::wire_up::now_ms;

/// What is run.
#[derive(Debug, Clone)]
pub struct LearningOptions {
    /// World, directory and doors.
    pub demo: DemoOptions,
    /// People who act at a time.
    pub people: usize,
    /// What each waits between two pages.
    pub pause: Duration,
    /// How long they act before anything is measured.
    pub warm_up: Duration,
    /// How long each of the two phases without training lasts.
    pub quiet: Duration,
    /// How long the phase with training lasts.
    pub learning: Duration,
    /// From the start of a turn to that of the next.
    pub every: Duration,
    /// Niceness of training.
    pub nice: u8,
}

/// What was seen in one phase.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// `before`, `learning` or `after`.
    pub name: &'static str,
    /// How long it lasted, s.
    pub seconds: f64,
    /// Events acknowledged.
    pub events: u64,
    /// Pages ranked.
    pub pages: u64,
    /// Requests that failed.
    pub errors: u64,
    /// A page over HTTP.
    pub rank: Latency,
    /// From sending an action to holding a ranking that knew it.
    pub freshness: Latency,
}

/// One turn, and how old what it learned was when its model began to serve.
#[derive(Debug, Clone, Serialize)]
pub struct Learned {
    /// The turn.
    #[serde(flatten)]
    pub turn: Turn,
    /// From a ranking to a served model that learned from what followed it, s: median, 99th percentile, longest; `None`
    /// where no model was promoted.
    pub lag_seconds: Option<[f64; 3]>,
}

/// The figures.
#[derive(Debug, Clone, Serialize)]
pub struct Learning {
    /// The three phases.
    pub phases: Vec<Phase>,
    /// All turns.
    pub turns: Vec<Learned>,
    /// p99 of a page while learning, over that of the phases without.
    pub p99_ratio: f64,
    /// The same for the median.
    pub p50_ratio: f64,
    /// Over all promoted turns, from a ranking to a served model that learned from it, s: median, 99th percentile.
    pub lag_seconds: Option<[f64; 2]>,
    /// The first reasons of failed requests.
    pub first_errors: Vec<String>,
}

/// Runs the phases. `say` is told what is being done.
///
/// # Errors
/// Where the server cannot be started, a turn fails, or the process is asked to end.
pub fn run(options: &LearningOptions, interrupt: &Interrupt, say: &mut dyn FnMut(&str)) -> Result<Learning> {
    let mut demo = Demo::start(&options.demo, say)?;
    demo.dir.config.retrain.nice = options.nice;
    let base = format!("http://{}", demo.server.address);
    let seed = options.demo.world.seed;
    let crowd = Crowd::start(&demo.world, &base, options.people, options.pause, seed)?;
    let wait = |time| {
        ensure!(!interrupt.wait(Some(time)), "asked to end");
        Ok(())
    };
    wait(options.warm_up)?;
    crowd.tally.take()?;
    let mut run = Run { crowd, phases: Vec::new(), turns: Vec::new(), lags: Vec::new(), say };
    run.phase("before", || wait(options.quiet))?;
    (run.turns, run.lags) = run.learn(&demo, options, interrupt)?;
    run.phase("after", || wait(options.quiet))?;
    let learning = run.finish()?;
    demo.server.stop()?;
    Ok(learning)
}

struct Run<'a> {
    crowd: Crowd,
    phases: Vec<(Phase, Histogram<u64>)>,
    turns: Vec<Learned>,
    /// Of all promoted turns, s.
    lags: Vec<f64>,
    say: &'a mut dyn FnMut(&str),
}

impl Run<'_> {
    fn phase<T>(&mut self, name: &'static str, during: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let done = during()?;
        let Seen { events, pages, errors, rank_us, freshness_us } = self.crowd.tally.take()?;
        let phase = Phase {
            name,
            seconds: begun.elapsed().as_secs_f64(),
            events,
            pages,
            errors,
            rank: Latency::from(&rank_us),
            freshness: Latency::from(&freshness_us),
        };
        (self.say)(&phase.to_string());
        self.phases.push((phase, rank_us));
        Ok(done)
    }

    fn learn(
        &mut self,
        demo: &Demo,
        options: &LearningOptions,
        interrupt: &Interrupt,
    ) -> Result<(Vec<Learned>, Vec<f64>)> {
        let mut learner = Learner::new(&demo.dir, &demo.server.store, &demo.server.registry)?;
        let (mut turns, mut all) = (Vec::new(), Vec::new());
        self.phase("learning", || {
            let begun = Instant::now();
            while begun.elapsed() < options.learning {
                let start = Instant::now();
                demo.server.flush_impressions();
                let turn = learner.turn(None)?;
                demo.server.reload()?;
                println!("{turn}");
                let now = now_ms();
                let lag = |time: &i64| (now - time) as f64 / 1e3;
                let mut lags: Vec<f64> = match turn.promoted() {
                    true => turn.learned_ms.iter().map(lag).collect(),
                    false => Vec::new(),
                };
                lags.sort_by(f64::total_cmp);
                let lag_seconds =
                    lags.last().map(|longest| [quantile(&lags, 0.5), quantile(&lags, 0.99), *longest]);
                all.extend(lags);
                turns.push(Learned { turn, lag_seconds });
                let left = options.learning.saturating_sub(begun.elapsed());
                let pause = options.every.saturating_sub(start.elapsed()).min(left);
                ensure!(!interrupt.wait(Some(pause)), "asked to end");
            }
            Ok(())
        })?;
        Ok((turns, all))
    }

    fn finish(mut self) -> Result<Learning> {
        let tally = self.crowd.stop();
        self.lags.sort_by(f64::total_cmp);
        let (mut quiet, mut learning) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
        for (phase, histogram) in &self.phases {
            let side = if phase.name == "learning" { &mut learning } else { &mut quiet };
            side.add(histogram)?;
        }
        let ratio = |q: f64| learning.value_at_quantile(q) as f64 / quiet.value_at_quantile(q) as f64;
        let first_errors =
            tally.first_errors.lock().map_err(|_| anyhow!("a thread of the crowd panicked"))?;
        let lag_seconds =
            (!self.lags.is_empty()).then(|| [quantile(&self.lags, 0.5), quantile(&self.lags, 0.99)]);
        Ok(Learning {
            p99_ratio: ratio(0.99),
            p50_ratio: ratio(0.5),
            lag_seconds,
            first_errors: first_errors.clone(),
            phases: self.phases.into_iter().map(|(phase, _)| phase).collect(),
            turns: self.turns,
        })
    }
}

/// Of sorted numbers, at least one.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, seconds, events, pages, errors, rank, freshness } = self;
        write!(
            f,
            "{name:<9} {seconds:>5.0} s  {:>6.0} events/s  {:>6.1} pages/s  page p50 {:.1} ms, p99 {:.1} ms  freshness p50 \
             {:.1} ms, p99 {:.1} ms  {errors} failed",
            *events as f64 / seconds,
            *pages as f64 / seconds,
            rank.p50_ms,
            rank.p99_ms,
            freshness.p50_ms,
            freshness.p99_ms,
        )
    }
}

impl fmt::Display for Learning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in &self.phases {
            writeln!(f, "{phase}")?;
        }
        let promoted = self.turns.iter().filter(|t| t.turn.promoted()).count();
        let refused = self.turns.iter().filter(|t| t.turn.refused().is_some()).count();
        writeln!(f, "{} turns: {promoted} models promoted, {refused} refused", self.turns.len())?;
        writeln!(
            f,
            "a page while learning against without: p50 {:.3} times, p99 {:.3} times",
            self.p50_ratio, self.p99_ratio
        )?;
        match self.lag_seconds {
            Some([p50, p99]) => {
                write!(
                    f,
                    "from a page to a served model that learned from it: p50 {p50:.0} s, p99 {p99:.0} s"
                )
            }
            None => write!(f, "no model was promoted"),
        }
    }
}

impl Learning {
    /// Refuses what the loop must not do: fail a request, or slow pages down by more than a fifth.
    ///
    /// # Errors
    /// Names the number.
    pub fn check(&self) -> Result<()> {
        let errors: u64 = self.phases.iter().map(|p| p.errors).sum();
        ensure!(errors == 0, "{errors} requests failed: {}", self.first_errors.join("; "));
        ensure!(self.p99_ratio <= 1.2, "p99 while learning is {:.3} times that without", self.p99_ratio);
        let promoted = self.turns.iter().find(|t| t.turn.promoted());
        promoted.map(drop).context("no model was promoted")
    }
}
