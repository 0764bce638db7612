//! The work of the lab: train at every cut, score every later day, measure on shared resamples of users.

use std::collections::BTreeMap;
use std::time::Instant;

use lately_model::{Model, ModelConfig, ModelError};

use super::report::{DecayReport, Training, build};
use super::schedule::{Cut, Schedule};
use crate::ablation::Measured;
use crate::ablation::measure::measure_in;
use crate::chunks::Chunks;
use crate::config::TrainConfig;
use crate::dataset::{Dataset, Slice};
use crate::dates::{DateRange, Day};
use crate::eval::{EvalError, EvalOptions, View};
use crate::predict::{by_model, own};
use crate::scores::Scores;
use crate::trainer::{Control, Outcome, Start, TrainError, train};

/// Rows of a chunk below which HIT@3 says nothing.
const CHUNK_ROWS: usize = 4;

/// A model that is put through all schedules.
#[derive(Debug, Clone)]
pub struct Arm {
    /// Name in reports.
    pub name: String,
    /// Its shape.
    pub model: ModelConfig,
}

/// What is to be found out.
#[derive(Debug, Clone)]
pub struct DecayOptions {
    /// With the sequence, and what it is compared with; the first is the one that is proven against the others.
    pub arms: Vec<Arm>,
    /// Settings of every training; their zone cuts the days.
    pub train: TrainConfig,
    /// Last day of training of the first model, such as 2022-04-28; `None`: the last day of the first window.
    pub freeze: Option<String>,
    /// Days that a training from new reads.
    pub window_days: usize,
    /// Of the intervals.
    pub eval: EvalOptions,
}

/// Why the lab cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DecayError {
    /// The named day has no rows before or after it.
    #[error("--freeze {day}: the rows go from {first} to {last}: choose a day before the last")]
    Freeze {
        /// The day.
        day: String,
        /// First day of the rows.
        first: String,
        /// Last day of the rows.
        last: String,
    },
    /// There are too few days.
    #[error(
        "the rows cover {days} days: {needed} are needed, a window and a day to test on; log longer or shorten the window"
    )]
    TooFewDays {
        /// Days that there are.
        days: usize,
        /// Days of a window and one.
        needed: usize,
    },
    /// A training failed.
    #[error("training on the days to {day}: {source}")]
    Train {
        /// Last day of training.
        day: String,
        /// Why.
        source: TrainError,
    },
    /// A model refuses the rows.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The rows cannot be evaluated.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// What was measured: by arm, day and model.
pub(super) type Results = BTreeMap<(usize, usize, Cut), Vec<Measured>>;

/// Runs the lab over all rows of a dataset; `say` is told what is being done.
pub fn run(
    dataset: &Dataset,
    options: &DecayOptions,
    say: &mut dyn FnMut(&str),
) -> Result<DecayReport, DecayError> {
    let lab = Lab::new(dataset, options)?;
    let mut results = Results::new();
    let mut trainings = Vec::new();
    for (at, arm) in options.arms.iter().enumerate() {
        let models = lab.train(at, arm, &mut trainings, say)?;
        for day in lab.freeze + 1..lab.days.len() {
            let begun = Instant::now();
            for (cut, model) in models.iter().filter(|(cut, _)| cut.day < day) {
                results.insert((at, day, *cut), lab.measure(day, *cut, model)?);
            }
            let seconds = begun.elapsed().as_secs_f64();
            say(&format!(
                "{}: {} scored by all earlier models in {seconds:.1} s",
                arm.name, lab.days[day].name
            ));
        }
    }
    Ok(build(&lab.days, lab.freeze, options, &results, trainings))
}

struct Lab<'a> {
    dataset: &'a Dataset,
    options: &'a DecayOptions,
    days: Vec<Day>,
    /// Position of the last day of the first window.
    freeze: usize,
}

impl<'a> Lab<'a> {
    fn new(dataset: &'a Dataset, options: &'a DecayOptions) -> Result<Self, DecayError> {
        let times = || dataset.requests.iter().map(|r| r.time_ms);
        let (first, last) = times().min().zip(times().max()).unwrap_or_default();
        let days = options.train.zone.days(first, last);
        let needed = options.window_days.max(1) + 1;
        let freeze = match &options.freeze {
            None if days.len() < needed => return Err(DecayError::TooFewDays { days: days.len(), needed }),
            None => needed - 2,
            Some(named) => {
                days.iter().position(|d| d.name == *named).filter(|at| at + 1 < days.len()).ok_or_else(
                    || {
                        let name = |day: Option<&Day>| day.map_or_else(String::new, |d| d.name.clone());
                        DecayError::Freeze {
                            day: named.clone(),
                            first: name(days.first()),
                            last: name(days.last()),
                        }
                    },
                )?
            }
        };
        Ok(Self { dataset, options, days, freeze })
    }

    /// The models of an arm: at each cut one from new, and from the second on one that goes on from the day before.
    fn train(
        &self,
        at: usize,
        arm: &Arm,
        trainings: &mut Vec<Training>,
        say: &mut dyn FnMut(&str),
    ) -> Result<BTreeMap<Cut, Model>, DecayError> {
        let mut models: BTreeMap<Cut, Model> = BTreeMap::new();
        for day in self.freeze..self.days.len() - 1 {
            let full = Cut { day, incremental: false };
            let window = self.window(day);
            models.insert(
                full,
                self.one(at, full, &window, (&arm.model).into(), &self.options.train, trainings)?,
            );
            if day == self.freeze {
                continue;
            }
            let before = Cut { day: day - 1, incremental: day - 1 > self.freeze };
            let settings = self.options.train.incremental();
            let seen_ms = self.days[day].range.start_ms - 1;
            let rows = window.since(seen_ms, settings.incremental.replay, settings.seed);
            let start = Start::From(&models[&before]);
            let cut = Cut { day, incremental: true };
            let model = self.one(at, cut, &rows, start, &settings, trainings)?;
            models.insert(cut, model);
            if let [.., full, incremental] = trainings.as_slice() {
                say(&format!(
                    "{}: trained to {}: {} rows in {:.1} s, incrementally {} in {:.1} s",
                    arm.name, full.last_day, full.rows, full.seconds, incremental.rows, incremental.seconds
                ));
            }
        }
        Ok(models)
    }

    fn one(
        &self,
        arm: usize,
        cut: Cut,
        rows: &Slice<'_>,
        start: Start<'_>,
        settings: &TrainConfig,
        trainings: &mut Vec<Training>,
    ) -> Result<Model, DecayError> {
        let day = &self.days[cut.day].name;
        let begun = Instant::now();
        let outcome = train(rows, start, settings, None, &mut |_| Control::Continue);
        let outcome = outcome.map_err(|source| DecayError::Train { day: day.clone(), source })?;
        // Nobody asks it to stop.
        let model = match outcome {
            Outcome::Finished { model, .. } => *model,
            Outcome::Stopped { step } => unreachable!("a training stopped itself at step {step}"),
            Outcome::Followed { .. } => unreachable!("a training on the CPU is nobody's follower"),
        };
        trainings.push(Training {
            arm: self.options.arms[arm].name.clone(),
            last_day: day.clone(),
            incremental: cut.incremental,
            rows: rows.rows(),
            seconds: begun.elapsed().as_secs_f64(),
        });
        Ok(model)
    }

    /// The window that ends with a day.
    fn window(&self, day: usize) -> Slice<'a> {
        let first = (day + 1).saturating_sub(self.options.window_days.max(1));
        let (start_ms, end_ms) = (self.days[first].range.start_ms, self.days[day].range.end_ms);
        self.dataset.slice(DateRange { start_ms, end_ms })
    }

    fn measure(&self, day: usize, cut: Cut, model: &Model) -> Result<Vec<Measured>, DecayError> {
        let slice = self.dataset.slice(self.days[day].range);
        if slice.requests.is_empty() {
            return Ok(Vec::new());
        }
        let (zone, threads) = (&self.options.train.zone, self.options.train.threads);
        let served = Schedule::EACH.iter().any(|s| s.cut(self.freeze, day) == cut);
        // Lists are scored from their start's sequence, which triples the work: only for what some schedule serves.
        let (chunks, scores) = if served {
            let chunks = Chunks::of(&slice, zone, CHUNK_ROWS);
            let scores = by_model("", &slice, &chunks, model, threads)?;
            (chunks, scores)
        } else {
            let rows = own(&slice, model, threads)?;
            let scores = Scores { name: String::new(), rows, in_chunk: None, in_user: None, logits: true };
            (Chunks { list: Vec::new(), ..Chunks::of(&slice, zone, CHUNK_ROWS) }, scores)
        };
        Ok(measure_in(&View::joint(&slice, &chunks), &slice, &scores, &self.options.eval)?)
    }
}
