//! Who takes the steps of a run: the CPU's threads (`team.rs`) or a device (`on_device.rs`).

use lately_model::AdamStep;

use crate::config::TrainConfig;
use crate::place::Member;
use crate::random::Random;
use crate::state::Run;
use crate::trainer::TrainError;

/// Purpose of the random draws of dropout.
const DROPOUT: u64 = 3;

/// A step that was taken.
pub(crate) struct Stepped {
    /// Epoch, from 0.
    pub(crate) epoch: u64,
    /// Rows of the batch.
    pub(crate) rows: u64,
    /// Mean loss a row.
    pub(crate) loss: f64,
}

/// Takes a run's steps, batch after batch.
pub(crate) trait Stepper {
    /// Takes the next one and notes its loss in the run. `None`: all are done.
    fn step(&mut self, run: &mut Run, rate: f64) -> Result<Option<Stepped>, TrainError>;

    /// Brings weights and moments into the run, wherever they are.
    fn settle(&mut self, run: &mut Run) -> Result<(), TrainError>;
}

/// Of a step. Members of a group draw apart, as each numbers its rows from 0.
pub(crate) fn dropout_seed(config: &TrainConfig, step: u64, member: Member) -> u64 {
    let words = [DROPOUT, step, member.rank as u64];
    Random::of(config.seed, &words[..if member.leads() { 2 } else { 3 }]).next()
}

/// What the gradient is multiplied by where its norm is too large; the norm is asked for only where there is a bound.
pub(crate) fn clip(
    config: &TrainConfig,
    norm: impl FnOnce() -> Result<f64, TrainError>,
) -> Result<f64, TrainError> {
    if config.clip_norm > 0.0 { Ok((config.clip_norm / norm()?).min(1.0)) } else { Ok(1.0) }
}

/// The optimiser's step after `done` others.
pub(crate) fn adam(config: &TrainConfig, rate: f64, scale: f64, done: u64) -> AdamStep {
    AdamStep::new(rate, (config.beta1, config.beta2), config.weight_decay, scale, done + 1)
}
