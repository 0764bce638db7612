//! The training loop.
//!
//! Deterministic by seed and independent of the number of threads, as the model's gradient is. Everything random is
//! named by its place, so that the state of a run is its step, weights and moments ([`crate::state`]): a run that was
//! killed goes on from its last save to the very bytes that it would have reached.

use std::path::Path;
use std::time::{Duration, Instant};

use lately_features::FeatureBatch;
use lately_model::{Admission, AdmissionFit, Model, ModelConfig, ModelError, NormaliserFit};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3Default;

use crate::calibration::{self, CalibrationKind};
use crate::clock::Clock;
use crate::config::{ConfigError, TrainConfig};
use crate::dataset::{Slice, push_rows};
use crate::examples::Examples;
use crate::memory::{Memory, Size};
use crate::optim::schedule;
use crate::sampler::Epoch;
use crate::state::{Run, StateError};
use crate::team::Team;

/// What the caller is told after every step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Epoch of this step, from 0.
    pub epoch: u64,
    /// Rows done, those of a resumed run's former lives included.
    pub rows: u64,
    /// Rows in all.
    pub rows_total: u64,
    /// Weighted loss of this step: the sum over heads, mean over rows.
    pub loss: f64,
    /// The same, averaged over about the last 50 steps.
    pub smooth_loss: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Rows a second since this process began.
    pub rows_per_second: f64,
    /// Time left at that speed.
    pub left: Duration,
}

/// What the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Save the state and return.
    Stop,
}

/// How a run went.
#[derive(Debug, Clone, Serialize)]
pub struct TrainReport {
    /// Steps.
    pub steps: u64,
    /// Rows, all epochs together.
    pub rows: u64,
    /// Requests on which the weights were fitted: all but those held out for calibration.
    pub requests: usize,
    /// Weighted loss of every step.
    pub loss: Vec<f64>,
    /// Step at which this process took over; 0 where it began the run.
    pub resumed_at: u64,
    /// Time of this process.
    pub seconds: f64,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// All steps are done.
    Finished {
        /// The trained model.
        model: Box<Model>,
        /// How it went.
        report: TrainReport,
    },
    /// The caller stopped it; the state is saved where a path was given.
    Stopped {
        /// Steps done.
        step: u64,
    },
}

/// From what a run starts.
#[derive(Debug, Clone, Copy)]
pub enum Start<'m> {
    /// Random weights, with the rows' normalisation, rates and admission.
    New(&'m ModelConfig),
    /// The weights of a trained model. Its normalisation and admission stay, as the weights were learned with them: a value
    /// that it does not know is learned by the next training from new.
    From(&'m Model),
}

impl<'m> From<&'m ModelConfig> for Start<'m> {
    fn from(config: &'m ModelConfig) -> Self {
        Self::New(config)
    }
}

impl<'m> From<&'m Model> for Start<'m> {
    fn from(model: &'m Model) -> Self {
        Self::From(model)
    }
}

/// Why training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// There is nothing to train on.
    #[error("there is no row to train on: widen the range of days")]
    Empty,
    /// The model to start from has another schema.
    #[error("the model to start from has the schema {model}, the rows {rows}: train from new")]
    Schema {
        /// The model's schema hash.
        model: String,
        /// The rows'.
        rows: String,
    },
    /// A setting is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model refuses its configuration or a batch.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The state could not be saved or read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The bound on memory is too low.
    #[error(
        "training takes {}, the bound on memory (--memory, `memory_bytes`) is {}: {memory}",
        Size(memory.total()), Size(*limit)
    )]
    Memory {
        /// The bound, bytes.
        limit: u64,
        /// What takes how much.
        memory: Box<Memory>,
    },
    /// The loss is no longer a number.
    #[error("the loss is not finite at step {0}: lower learning_rate or look for features of extreme size")]
    Diverged(u64),
}

/// Trains a model on a slice, from new ([`ModelConfig`]) or from another's weights ([`Model`]). With `state`, the run saves itself there every `save_seconds` and at the end, and goes
/// on from what it finds there; the caller removes the file when the model is safe elsewhere.
pub fn train<'m>(
    slice: &Slice<'_>,
    start: impl Into<Start<'m>>,
    config: &TrainConfig,
    state: Option<&Path>,
    progress: &mut dyn FnMut(&Progress) -> Control,
) -> Result<Outcome, TrainError> {
    let schema = &slice.dataset.schema;
    config.validate(schema)?;
    let calibrated = config.calibration != CalibrationKind::None;
    let split = calibrated.then(|| slice.split_newest(config.calibration_share));
    let fitted = split.as_ref().map_or(slice, |(older, _)| older);
    if fitted.rows() == 0 {
        return Err(TrainError::Empty);
    }
    let examples = Examples::new(fitted, config)?;
    let start = start.into();
    start.check(&schema.hash())?;
    let fingerprint = fingerprint(slice, start, config);
    let mut run = match state.filter(|path| path.exists()) {
        Some(path) => Run::load(path, fingerprint, start.blank(slice, config)?)?,
        None => Run::new(start.model(&examples)?, fingerprint),
    };
    if let Start::New(_) = start {
        run.model.set_admission(admission(slice), schema)?;
    }
    let (mut counts, mut rows) = (Vec::new(), 0);
    for epoch in (0..config.epochs.into()).map(|number| Epoch::new(&examples, number)) {
        counts.push(epoch.batches.len() as u64);
        rows += epoch.size(&(0..epoch.groups.len())).rows as u64;
    }
    let steps: u64 = counts.iter().sum();
    if steps == 0 {
        return Err(TrainError::Empty);
    }
    let mut team = Team::new(&run.model, &examples)?;
    let mut clock = Clock::new(&run, rows, steps);
    let mut saved = Instant::now();
    let mut first = 0;
    for (epoch, count) in (0..).zip(&counts) {
        if run.step() < first + count {
            let order = Epoch::new(&examples, epoch);
            while run.step() < first + count {
                let rate = rate(config, run.step(), steps);
                let batch = &order.batches[(run.step() - first) as usize];
                let (loss, rows) = team.step(&mut run, &order, batch, rate)?;
                let report = clock.tick(&run, epoch, rows, loss, rate);
                let stop = progress(&report) == Control::Stop && run.step() < steps;
                if let Some(path) = state
                    && (stop || saved.elapsed() >= Duration::from_secs(config.save_seconds))
                {
                    run.save(path)?;
                    saved = Instant::now();
                }
                if stop {
                    return Ok(Outcome::Stopped { step: run.step() });
                }
            }
        }
        first += count;
    }
    if let Some(path) = state {
        run.save(path)?;
    }
    let report = TrainReport {
        steps,
        rows,
        requests: fitted.requests.len(),
        resumed_at: clock.resumed_at,
        seconds: clock.begun.elapsed().as_secs_f64(),
        loss: run.loss,
    };
    let mut model = Box::new(run.model);
    if let Some((_, newest)) = &split {
        let calibration = calibration::fit(&model, newest, config.calibration, config.threads)?;
        model.set_calibration(calibration)?;
    }
    Ok(Outcome::Finished { model, report })
}

fn rate(config: &TrainConfig, step: u64, steps: u64) -> f64 {
    let warmup = (config.warmup * steps as f64).round() as u64;
    schedule(config.learning_rate, warmup, config.final_rate, step, steps)
}

/// All that decides a run's result: rows, model and settings but for those that only decide its pace.
fn fingerprint(slice: &Slice<'_>, start: Start<'_>, config: &TrainConfig) -> u128 {
    let settings = TrainConfig { threads: 0, memory_bytes: 0, save_seconds: 0, ..config.clone() };
    let start = match start {
        Start::New(model) => format!("{model:?}"),
        Start::From(model) => {
            let mut hasher = Xxh3Default::new();
            for x in model.parameters().iter().flat_map(|p| &p.data) {
                hasher.update(&x.to_le_bytes());
            }
            format!("{:?} {:032x}", model.config(), hasher.digest128())
        }
    };
    let text = format!("{:032x} {start} {settings:?}", slice.fingerprint());
    xxhash_rust::xxh3::xxh3_128(text.as_bytes())
}

impl Start<'_> {
    /// A model into which a saved state is read.
    fn blank(self, slice: &Slice<'_>, config: &TrainConfig) -> Result<Model, TrainError> {
        match self {
            Self::New(model) => Ok(Model::new(model.clone(), &slice.dataset.schema, config.seed)?),
            Self::From(model) => uncalibrated(model),
        }
    }

    /// The model before the first step.
    fn model(self, examples: &Examples<'_>) -> Result<Model, TrainError> {
        match self {
            Self::New(model) => new(examples, model),
            Self::From(model) => uncalibrated(model),
        }
    }

    fn check(self, rows: &str) -> Result<(), TrainError> {
        match self {
            Self::From(model) if model.schema_hash() != rows => {
                let (model, rows) = (model.schema_hash().to_owned(), rows.to_owned());
                Err(TrainError::Schema { model, rows })
            }
            _ => Ok(()),
        }
    }
}

/// Training is on raw logits; the calibration is fitted again after it.
fn uncalibrated(model: &Model) -> Result<Model, TrainError> {
    let mut model = model.clone();
    model.set_calibration(None)?;
    Ok(model)
}

/// Which values of categorical features the rows hold often enough; a resumed run counts again.
fn admission(slice: &Slice<'_>) -> Admission {
    let mut fit = AdmissionFit::new(&slice.dataset.schema);
    if fit.is_empty() {
        return fit.finish();
    }
    let mut batch = FeatureBatch::default();
    for request in slice.iter() {
        batch.clear();
        push_rows(&mut batch, slice.dataset, request, &request.context(), &[], request.candidates.iter());
        fit.add(&batch);
    }
    fit.finish()
}

/// A new model with the rows' normalisation, each head's bias at the logit of its (weighted) rate, so that the first
/// steps need not learn it.
fn new(examples: &Examples<'_>, model: &ModelConfig) -> Result<Model, TrainError> {
    let slice = examples.slice;
    let mut model = Model::new(model.clone(), &slice.dataset.schema, examples.config.seed)?;
    if !model.config().compatibility {
        let mut fit = NormaliserFit::new(&slice.dataset.schema);
        let mut batch = FeatureBatch::default();
        for request in slice.iter() {
            batch.clear();
            let rows = request.candidates.iter();
            // Without tokens: they share the candidates' scale.
            push_rows(&mut batch, slice.dataset, request, &request.context(), &[], rows);
            fit.add(&batch);
        }
        model.set_normaliser(fit.finish())?;
    }
    let mut sums = vec![(0.0, 0.0); slice.dataset.heads()];
    for (candidate, weights) in examples.weighted() {
        for (head, (weight, sum)) in weights.zip(&mut sums).enumerate() {
            sum.0 += weight;
            sum.1 += weight * f64::from(u8::from(slice.dataset.label(candidate, head)));
        }
    }
    // Half a row of each class keeps a head without positives finite.
    let logit = |(all, positive): (f64, f64)| ((positive + 0.5) / (all - positive + 0.5)).ln() as f32;
    model.set_head_bias(&sums.into_iter().map(logit).collect::<Vec<_>>())?;
    Ok(model)
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
