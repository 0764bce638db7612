//! Trains and measures every configuration with every seed, one after the other: one model and its scores are in
//! memory at a time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::HumanDuration;
use lately_train::ablation::{Contender, measure};
use lately_train::chunks::Chunks;
use lately_train::predict::by_model;
use lately_train::{EvalOptions, Slice, TrainConfig};

use super::kept::{Folder, Kept, program};
use super::suite::Entry;
use crate::device::TrainingDevice;
use crate::learn::{Plan, learn};

/// What all runs share.
#[derive(Debug)]
pub struct Bench<'a> {
    /// Rows to train on.
    pub train: Slice<'a>,
    /// Rows to evaluate.
    pub test: Slice<'a>,
    /// Lists of `test`.
    pub chunks: Chunks,
    /// How to evaluate.
    pub options: EvalOptions,
    /// Results of earlier runs.
    pub kept: Folder,
    /// Whether those are taken.
    pub resume: bool,
}

/// All runs of a configuration.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration.
    pub entry: Entry,
    /// The seeds, in order.
    pub seeds: Vec<u64>,
    /// Seconds of training, by seed.
    pub seconds: Vec<f64>,
    /// The numbers.
    pub contender: Contender,
}

/// Runs all entries with `seeds` seeds each, from the one of their settings on. `say` is told of each run.
pub fn run(
    bench: &Bench<'_>,
    entries: Vec<Entry>,
    seeds: u64,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<Outcome>> {
    let mut pace = Pace::new(entries.len() as u64 * seeds);
    let (mut outcomes, own, mut foreign) = (Vec::new(), program(), 0);
    for entry in entries {
        let mut contender =
            Contender { name: entry.name.clone(), seeds: Vec::new(), claims: entry.claims.clone() };
        let (mut numbers, mut seconds) = (Vec::new(), Vec::new());
        for number in 0..seeds {
            let seed = entry.train.seed + number;
            let train = TrainConfig { seed, ..entry.train.clone() };
            let found = if bench.resume { bench.kept.find(&entry.model, &train)? } else { None };
            let trained = found.is_none();
            let kept = match found {
                Some(kept) => kept,
                None => one(bench, &entry, train).with_context(|| format!("{}, seed {seed}", entry.name))?,
            };
            foreign += usize::from(kept.program != own);
            let what = if trained { format!("trained in {:.1} s", kept.seconds) } else { "kept".to_owned() };
            say(&format!("{}, seed {seed}: {what}{}", entry.name, pace.tick(trained)));
            numbers.push(seed);
            seconds.push(kept.seconds);
            contender.seeds.push(kept.measured);
        }
        outcomes.push(Outcome { entry, seeds: numbers, seconds, contender });
    }
    if foreign > 0 {
        say(&format!(
            "warning: {foreign} results were made by another build of this program: --fresh trains them again"
        ));
    }
    Ok(outcomes)
}

/// Trains, scores, measures and keeps one.
fn one(bench: &Bench<'_>, entry: &Entry, train: TrainConfig) -> Result<Kept> {
    let state = bench.kept.state(&entry.model, &train)?;
    let (model, device) = (entry.model.clone(), TrainingDevice::open(train.device)?);
    let plan = Plan { model, train, device, start: None, parent: None, state: Some(&state) };
    let trained = learn(&bench.train, &plan, true)?;
    let threads = plan.train.threads;
    let scores = by_model(&entry.name, &bench.test, &bench.chunks, &trained.model, threads)?;
    let measured = measure(&bench.test, &bench.chunks, &scores, &bench.options)?;
    let kept = Kept::new(plan.model.clone(), plan.train.clone(), trained.report.seconds, measured);
    bench.kept.keep(&kept)?;
    trained.done()?;
    Ok(kept)
}

/// How many runs are done, and how long the rest may take.
struct Pace {
    all: u64,
    done: u64,
    trained: u32,
    last: Instant,
    spent: Duration,
}

impl Pace {
    fn new(all: u64) -> Self {
        Self { all, done: 0, trained: 0, last: Instant::now(), spent: Duration::ZERO }
    }

    /// Counts a run; gives words on what is left, of runs that were trained, not of those that were found.
    fn tick(&mut self, trained: bool) -> String {
        self.done += 1;
        if trained {
            self.trained += 1;
            self.spent += self.last.elapsed();
        }
        self.last = Instant::now();
        let left = self.all - self.done;
        let time = match self.spent.checked_div(self.trained) {
            Some(each) if left > 0 => {
                let seconds = (each * left as u32).as_secs();
                format!(", at most {} left", HumanDuration(Duration::from_secs(seconds)))
            }
            _ => String::new(),
        };
        format!(" ({} of {}{time})", self.done, self.all)
    }
}
