//! The training loop.
//!
//! Deterministic by seed and independent of the number of threads, as the model's gradient is. Everything random is
//! named by its place, so that the state of a run is its step, weights and moments ([`crate::state`]): a run that was
//! killed goes on from its last save to the very bytes that it would have reached.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lately_model::{AcceleratorError, Model, ModelError};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3Default;

use crate::calibration::{self, CalibrationKind};
use crate::clock::Clock;
use crate::config::{ConfigError, TrainConfig, TrainDevice};
use crate::course::Course;
use crate::dataset::Slice;
use crate::examples::Examples;
use crate::memory::{Memory, Size};
use crate::on_device::OnDevice;
use crate::optim::schedule;
use crate::place::{Member, Place};
pub use crate::start::Start;
use crate::start::admission;
use crate::state::{Run, StateError};
use crate::stepper::Stepper;
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
    /// What trained: `cpu`, or the device's name.
    pub device: String,
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
    /// All steps are done, by a member of a group that is not its first: the first has the model.
    Followed {
        /// Steps.
        steps: u64,
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
    /// The device cannot train such a model.
    #[error("{device} has no kernels for {what}: train on the CPU (--device cpu, or auto; `[train] device`)")]
    Unsupported {
        /// Its name.
        device: String,
        /// Of what it has none.
        what: String,
    },
    /// The device failed.
    #[error("{device} failed at step {step}: {cause}; {}", after(*saved))]
    Device {
        /// Its name.
        device: String,
        /// Steps done before.
        step: u64,
        /// Step of the state on disk, as far as this process knows.
        saved: Option<u64>,
        /// What it did. No source: it stands in the message, before what can be done.
        cause: Box<AcceleratorError>,
    },
    /// A group has no such member.
    #[error("a group of {size} has no member {rank}: they are numbered from 0")]
    Member {
        /// The number.
        rank: usize,
        /// Members.
        size: usize,
    },
    /// The thread that makes batches for a device cannot be started.
    #[error("cannot start a thread that makes batches: {0}")]
    Thread(#[source] std::io::Error),
    /// The loss is no longer a number.
    #[error("the loss is not finite at step {0}: lower learning_rate or look for features of extreme size")]
    Diverged(u64),
}

/// What can be done after a device has failed.
fn after(saved: Option<u64>) -> String {
    let begin = "--device cpu (`[train] device`) begins anew on the CPU";
    match saved {
        Some(step) => {
            format!("the state of step {step} is kept, and the same command goes on from it; {begin}")
        }
        None => format!("the same command goes on from a saved state, where there is one; {begin}"),
    }
}

/// Trains a model on a slice on the CPU, from new ([`ModelConfig`](lately_model::ModelConfig)) or from another's weights
/// ([`Model`]). With `state`, the run saves itself there every `save_seconds` and at the end, and goes on from what it finds
/// there; the caller removes the file when the model is safe elsewhere.
pub fn train<'m>(
    slice: &Slice<'_>,
    start: impl Into<Start<'m>>,
    config: &TrainConfig,
    state: Option<&Path>,
    progress: &mut dyn FnMut(&Progress) -> Control,
) -> Result<Outcome, TrainError> {
    train_on(Place::Cpu, slice, start, config, state, progress)
}

/// As [`train`], in a place. Weights are read back from a device before each save and at the end. A device that fails ends the
/// run, with the state as it was saved last: no run changes its place.
pub fn train_on<'m>(
    place: Place<'_>,
    slice: &Slice<'_>,
    start: impl Into<Start<'m>>,
    config: &TrainConfig,
    state: Option<&Path>,
    progress: &mut dyn FnMut(&Progress) -> Control,
) -> Result<Outcome, TrainError> {
    let schema = &slice.dataset.schema;
    config.validate(schema)?;
    let member = Member::of(&place)?;
    let calibrated = config.calibration != CalibrationKind::None;
    let split = calibrated.then(|| slice.split_newest(config.calibration_share));
    let fitted = split.as_ref().map_or(slice, |(older, _)| older);
    if fitted.rows() == 0 {
        return Err(TrainError::Empty);
    }
    let examples = Examples::new(fitted, config)?;
    let start = start.into();
    start.check(&schema.hash())?;
    let fingerprint = fingerprint(slice, start, config, &place);
    let mut run = match state.filter(|path| path.exists()) {
        Some(path) => Run::load(path, fingerprint, start.blank(slice, config)?)?,
        None => Run::new(start.model(&examples)?, fingerprint),
    };
    if let Start::New(_) = start {
        run.model.set_admission(admission(slice), schema)?;
    }
    let course = Course::new(&examples);
    if course.steps == 0 {
        return Err(TrainError::Empty);
    }
    let mut clock = Clock::new(&run, course.rows, course.steps);
    let state = state.filter(|_| member.leads());
    let stopped = match place {
        Place::Cpu => {
            let mut team = Team::new(&run.model, &course, run.step())?;
            steps(&mut team, &mut run, &course, &mut clock, state, progress)?
        }
        Place::Device { accelerator, group } => thread::scope(|scope| {
            let mut device = OnDevice::new(scope, accelerator, (group, member), &run, &course)?;
            steps(&mut device, &mut run, &course, &mut clock, state, progress)
        })?,
    };
    if stopped {
        return Ok(Outcome::Stopped { step: run.step() });
    }
    if !member.leads() {
        return Ok(Outcome::Followed { steps: course.steps });
    }
    let report = TrainReport {
        steps: course.steps,
        rows: course.rows,
        requests: fitted.requests.len(),
        device: place.name().to_owned(),
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

/// Takes the steps that are left; whether it was told to stop before the last.
fn steps(
    stepper: &mut dyn Stepper,
    run: &mut Run,
    course: &Course<'_>,
    clock: &mut Clock,
    state: Option<&Path>,
    progress: &mut dyn FnMut(&Progress) -> Control,
) -> Result<bool, TrainError> {
    let config = course.examples.config;
    let mut saved = Instant::now();
    loop {
        let rate = rate(config, run.step(), course.steps);
        let Some(done) = stepper.step(run, rate)? else { break };
        let report = clock.tick(run, &done, rate);
        let stop = progress(&report) == Control::Stop && run.step() < course.steps;
        if let Some(path) = state
            && (stop || saved.elapsed() >= Duration::from_secs(config.save_seconds))
        {
            stepper.settle(run)?;
            run.save(path)?;
            saved = Instant::now();
        }
        if stop {
            return Ok(true);
        }
    }
    stepper.settle(run)?;
    if let Some(path) = state {
        run.save(path)?;
    }
    Ok(false)
}

fn rate(config: &TrainConfig, step: u64, steps: u64) -> f64 {
    let warmup = (config.warmup * steps as f64).round() as u64;
    schedule(config.learning_rate, warmup, config.final_rate, step, steps)
}

/// All that decides a run's result: rows, model, settings but for those that only decide its pace, and the place.
fn fingerprint(slice: &Slice<'_>, start: Start<'_>, config: &TrainConfig, place: &Place<'_>) -> u128 {
    let (threads, memory_bytes, save_seconds) = (0, 0, 0);
    let device = TrainDevice::default(); // what was asked for; the place is what came of it
    let settings = TrainConfig { threads, memory_bytes, save_seconds, device, ..config.clone() };
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
    let text = format!("{:032x} {start} {settings:?}{}", slice.fingerprint(), place.fingerprint());
    xxhash_rust::xxh3::xxh3_128(text.as_bytes())
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
