//! The training loop.
//!
//! Deterministic by seed and independent of the number of threads: a batch is cut into a fixed number of shards,
//! whoever computes them, and their gradients are added in fixed order. Everything random is named by its place, so
//! that the state of a run is its step, weights and moments ([`crate::state`]): a run that was killed goes on from
//! its last save to the very bytes that it would have reached.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lately_features::FeatureBatch;
use lately_model::{
    Admission, AdmissionFit, Gradients, Model, ModelConfig, ModelError, NormaliserFit, Scratch,
};
use serde::Serialize;

use crate::config::{ConfigError, TrainConfig, Weights};
use crate::dataset::{Slice, push};
use crate::optim::{Step, adam, schedule};
use crate::random::Random;
use crate::sampler::{Epoch, Examples};
use crate::state::{Run, StateError};

/// Purpose of the random draws of dropout.
const DROPOUT: u64 = 3;

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
    /// Requests of one epoch.
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

/// Why training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// There is nothing to train on.
    #[error("there is no row to train on: widen the range of days")]
    Empty,
    /// A setting is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model refuses its configuration or a batch.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The state could not be saved or read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The loss is no longer a number.
    #[error("the loss is not finite at step {0}: lower learning_rate or look for features of extreme size")]
    Diverged(u64),
}

/// Trains a model on a slice. With `state`, the run saves itself there every `save_seconds` and at the end, and goes
/// on from what it finds there; the caller removes the file when the model is safe elsewhere.
pub fn train(
    slice: &Slice<'_>,
    model: &ModelConfig,
    config: &TrainConfig,
    state: Option<&Path>,
    progress: &mut dyn FnMut(&Progress) -> Control,
) -> Result<Outcome, TrainError> {
    let schema = &slice.dataset.schema;
    config.validate(schema)?;
    let weights = Weights::new(schema, &config.label_weights)?;
    let rows = slice.rows() as u64;
    if rows == 0 {
        return Err(TrainError::Empty);
    }
    let examples = Examples { slice, config, weights: &weights };
    let fingerprint = fingerprint(slice, model, config);
    let mut run = match state.filter(|path| path.exists()) {
        Some(path) => Run::load(path, fingerprint, Model::new(model.clone(), schema, config.seed)?)?,
        None => Run::new(start(slice, model, config, &weights)?, fingerprint),
    };
    run.model.set_admission(admission(slice), schema)?;
    let counts: Vec<u64> =
        (0..config.epochs.into()).map(|e| Epoch::new(slice, config, e).batches.len() as u64).collect();
    let steps: u64 = counts.iter().sum();
    let mut team = Team::new(&run.model, config);
    let mut clock = Clock::new(&run, rows * counts.len() as u64, steps);
    let mut saved = Instant::now();
    let mut first = 0;
    for (epoch, count) in (0..).zip(&counts) {
        if run.step() < first + count {
            let order = Epoch::new(slice, config, epoch);
            while run.step() < first + count {
                let rate = rate(config, run.step(), steps);
                let batch = order.batches[(run.step() - first) as usize].clone();
                let (loss, rows) = team.step(&mut run, &examples, &order, epoch, batch, rate)?;
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
        rows: rows * counts.len() as u64,
        requests: slice.requests.len(),
        resumed_at: clock.resumed_at,
        seconds: clock.begun.elapsed().as_secs_f64(),
        loss: run.loss,
    };
    Ok(Outcome::Finished { model: Box::new(run.model), report })
}

fn rate(config: &TrainConfig, step: u64, steps: u64) -> f64 {
    let warmup = (config.warmup * steps as f64).round() as u64;
    schedule(config.learning_rate, warmup, config.final_rate, step, steps)
}

/// All that decides a run's result: rows, model and settings but for those that only decide its pace.
fn fingerprint(slice: &Slice<'_>, model: &ModelConfig, config: &TrainConfig) -> u128 {
    let settings = TrainConfig { threads: 0, save_seconds: 0, ..config.clone() };
    let text = format!("{:032x} {model:?} {settings:?}", slice.fingerprint());
    xxhash_rust::xxh3::xxh3_128(text.as_bytes())
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
        push(&mut batch, slice.dataset, request, &[]);
        fit.add(&batch);
    }
    fit.finish()
}

/// A new model with the rows' normalisation, each head's bias at the logit of its (weighted) rate, so that the first
/// steps need not learn it.
fn start(
    slice: &Slice<'_>,
    model: &ModelConfig,
    config: &TrainConfig,
    weights: &Weights,
) -> Result<Model, TrainError> {
    let mut model = Model::new(model.clone(), &slice.dataset.schema, config.seed)?;
    if !model.config().compatibility {
        let mut fit = NormaliserFit::new(&slice.dataset.schema);
        let mut batch = FeatureBatch::default();
        for request in slice.iter() {
            batch.clear();
            push(&mut batch, slice.dataset, request, &[]); // tokens share the candidates' scale
            fit.add(&batch);
        }
        model.set_normaliser(fit.finish())?;
    }
    let mut sums = vec![(0.0, 0.0); slice.dataset.heads()];
    for candidate in slice.iter().flat_map(|r| &r.candidates) {
        for (head, (weight, sum)) in weights.of(candidate.observed).zip(&mut sums).enumerate() {
            sum.0 += weight;
            sum.1 += weight * f64::from(u8::from(slice.dataset.label(candidate, head)));
        }
    }
    // Half a row of each class keeps a head without positives finite.
    let logit = |(all, positive): (f64, f64)| ((positive + 0.5) / (all - positive + 0.5)).ln() as f32;
    model.set_head_bias(&sums.into_iter().map(logit).collect::<Vec<_>>())?;
    Ok(model)
}

/// Memory of one thread.
#[derive(Default)]
struct Worker {
    batch: FeatureBatch,
    weights: Vec<f32>,
    scratch: Scratch,
}

/// One part of a batch: its gradients and loss.
struct Shard {
    gradients: Gradients,
    loss: f64,
}

/// The threads and the memory that steps reuse.
struct Team<'c> {
    config: &'c TrainConfig,
    workers: Vec<Worker>,
    shards: Vec<Mutex<Shard>>,
    /// For each parameter the length of a row.
    widths: Vec<usize>,
}

impl<'c> Team<'c> {
    fn new(model: &Model, config: &'c TrainConfig) -> Self {
        let shard = || Mutex::new(Shard { gradients: Gradients::zeros(model), loss: 0.0 });
        Self {
            config,
            workers: (0..config.threads).map(|_| Worker::default()).collect(),
            shards: (0..config.shards).map(|_| shard()).collect(),
            widths: model.parameters().iter().map(|p| p.shape.last().copied().unwrap_or(1)).collect(),
        }
    }

    /// One step; returns the mean loss a row and the number of rows.
    fn step(
        &mut self,
        run: &mut Run,
        examples: &Examples<'_>,
        order: &Epoch,
        epoch: u64,
        batch: std::ops::Range<usize>,
        rate: f64,
    ) -> Result<(f64, u64), TrainError> {
        let config = self.config;
        let requests = &order.requests[batch.clone()];
        let dataset = examples.slice.dataset;
        let rows: usize = requests.iter().map(|r| dataset.requests[*r as usize].candidates.len()).sum();
        let parts = order.shards(examples.slice, &batch, config.shards);
        let (next, shards, step) = (AtomicUsize::new(0), &self.shards, run.step());
        let model = &run.model;
        let work = |worker: &mut Worker| -> Result<(), ModelError> {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(part) = parts.get(at) else { return Ok(()) };
                // No other thread takes this number; a poisoned lock means that the run is failing anyway.
                let mut shard = shards[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                shard.gradients.clear();
                shard.loss = 0.0;
                if part.is_empty() {
                    continue;
                }
                let Worker { batch, weights, scratch } = &mut *worker;
                let requests = &order.requests[part.clone()];
                examples.assemble(epoch, requests, 1.0 / rows as f64, batch, weights);
                let seed = Random::of(config.seed, &[DROPOUT, step, at as u64]).next();
                let gradients = &mut shard.gradients;
                shard.loss = model.loss_and_gradient(batch, weights, Some(seed), scratch, gradients)?;
            }
        };
        let results: Vec<Result<(), ModelError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self.workers.iter_mut().map(|w| scope.spawn(|| work(w))).collect();
            let join = |t: std::thread::ScopedJoinHandle<'_, _>| {
                t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        results.into_iter().collect::<Result<(), _>>()?;
        let loss = self.reduce();
        if !loss.is_finite() {
            return Err(TrainError::Diverged(step));
        }
        self.update(run, rate);
        run.loss.push(loss);
        Ok((loss, rows as u64))
    }

    /// Adds all shards to the first, in order.
    fn reduce(&mut self) -> f64 {
        let mut shards =
            self.shards.iter_mut().map(|s| s.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner));
        let Some(first) = shards.next() else { return 0.0 };
        for shard in shards {
            first.gradients.add(&shard.gradients);
            first.loss += shard.loss;
        }
        first.loss
    }

    fn update(&mut self, run: &mut Run, rate: f64) {
        let config = self.config;
        let Some(first) = self.shards.first_mut() else { return };
        let gradients = &mut first.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).gradients;
        if config.clip_norm > 0.0 {
            let norm = gradients.norm();
            if norm > config.clip_norm {
                gradients.scale((config.clip_norm / norm) as f32);
            }
        }
        let (beta1, beta2, decay) = (config.beta1, config.beta2, config.weight_decay);
        let step = Step { rate, beta1, beta2, decay, number: run.step() + 1 };
        let parameters = run.model.parameters_mut().zip(&mut run.moments).zip(&self.widths);
        for ((((_, data), (m, v)), width), (_, gradient, touched)) in parameters.zip(gradients.iter()) {
            let Some(rows) = touched else {
                adam(&step, data, gradient, m, v);
                continue;
            };
            // A table's untouched rows and their moments stay as they are ("lazy" Adam): a step costs what the
            // batch holds, and a rare id does not drift on old momentum.
            for row in rows {
                let at = *row as usize * width..(*row as usize + 1) * width;
                let (m, v) = (&mut m[at.clone()], &mut v[at.clone()]);
                adam(&step, &mut data[at.clone()], &gradient[at], m, v);
            }
        }
    }
}

/// Speed and time left.
struct Clock {
    begun: Instant,
    resumed_at: u64,
    rows_before: u64,
    rows: u64,
    rows_total: u64,
    steps: u64,
    smooth: f64,
}

impl Clock {
    fn new(run: &Run, rows_total: u64, steps: u64) -> Self {
        let rows_before = (rows_total as f64 * run.step() as f64 / steps as f64) as u64;
        let smooth = run.loss.iter().fold(f64::NAN, |s, loss| blend(s, *loss));
        let (begun, resumed_at) = (Instant::now(), run.step());
        Self { begun, resumed_at, rows_before, rows: rows_before, rows_total, steps, smooth }
    }

    fn tick(&mut self, run: &Run, epoch: u64, rows: u64, loss: f64, learning_rate: f64) -> Progress {
        self.rows += rows;
        self.smooth = blend(self.smooth, loss);
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-9);
        let rows_per_second = (self.rows - self.rows_before) as f64 / seconds;
        let left = self.rows_total.saturating_sub(self.rows) as f64 / rows_per_second.max(1e-9);
        Progress {
            step: run.step(),
            steps: self.steps,
            epoch,
            rows: self.rows,
            rows_total: self.rows_total,
            loss,
            smooth_loss: self.smooth,
            learning_rate,
            rows_per_second,
            left: Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX),
        }
    }
}

fn blend(smooth: f64, loss: f64) -> f64 {
    if smooth.is_nan() { loss } else { 0.98 * smooth + 0.02 * loss }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
