//! Steps on a device: it holds weights and moments, and the run's are what was read back last.

use std::thread::Scope;

use lately_model::training::{Group, Learner, LearnerOptions, Stager};
use lately_model::{Accelerator, AcceleratorError};

use crate::ahead::{Ahead, Maker};
use crate::config::TrainConfig;
use crate::course::Course;
use crate::memory::Memory;
use crate::place::Member;
use crate::state::Run;
use crate::stepper::{Stepped, Stepper, adam, clip, dropout_seed};
use crate::trainer::TrainError;

/// A run on a device, with the thread that makes its batches.
pub(crate) struct OnDevice<'s> {
    learner: Box<dyn Learner>,
    device: String,
    config: &'s TrainConfig,
    member: Member,
    ahead: Ahead<'s>,
}

impl<'s> OnDevice<'s> {
    /// Puts the run on the device.
    pub(crate) fn new(
        scope: &'s Scope<'s, '_>,
        accelerator: &dyn Accelerator,
        (group, member): (Option<&Group>, Member),
        run: &Run,
        course: &'s Course<'s>,
    ) -> Result<Self, TrainError> {
        let config = course.examples.config;
        let mut maker = Maker::new(course, member, Stager::new(&run.model, config.threads))?;
        if config.memory_bytes > 0 {
            Memory::beside_device(&run.model, course.examples, &mut maker)?.check(config.memory_bytes)?;
        }
        let device = accelerator.name().to_owned();
        let options = LearnerOptions { precision: config.precision, group: group.cloned() };
        let learner = accelerator.learner(&run.model, &run.moments, &options);
        let learner = learner.map_err(|error| failed(&device, run, error))?;
        let ahead = Ahead::start(scope, maker, run.step()).map_err(TrainError::Thread)?;
        Ok(Self { learner, device, config, member, ahead })
    }
}

impl Stepper for OnDevice<'_> {
    fn step(&mut self, run: &mut Run, rate: f64) -> Result<Option<Stepped>, TrainError> {
        let Some(ready) = self.ahead.next()? else { return Ok(None) };
        let Self { learner, device, config, member, .. } = self;
        let step = run.step();
        let seed = dropout_seed(config, step, *member);
        let loss = learner.gradient(&ready.staged, Some(seed)).map_err(|e| failed(device, run, e))?;
        if !loss.is_finite() {
            return Err(TrainError::Diverged(step));
        }
        let scale = clip(config, || learner.norm().map_err(|e| failed(device, run, e)))?;
        learner.update(adam(config, rate, scale, step)).map_err(|e| failed(device, run, e))?;
        run.loss.push(loss);
        Ok(Some(Stepped { epoch: ready.epoch, rows: ready.rows, loss }))
    }

    fn settle(&mut self, run: &mut Run) -> Result<(), TrainError> {
        if !self.member.leads() {
            return Ok(()); // all hold the same, and the first one reads it
        }
        let read = self.learner.read(&mut run.model, &mut run.moments);
        read.map_err(|e| failed(&self.device, run, e))
    }
}

/// An error of the device as training tells errors apart.
fn failed(device: &str, run: &Run, error: AcceleratorError) -> TrainError {
    let device = device.to_owned();
    match error {
        AcceleratorError::Unsupported(what) => TrainError::Unsupported { device, what },
        AcceleratorError::Batch(error) => TrainError::Model(error),
        other => {
            let cause = Box::new(other);
            TrainError::Device { device, step: run.step(), saved: run.saved, cause }
        }
    }
}

#[cfg(test)]
#[path = "on_device_tests.rs"]
mod tests;
