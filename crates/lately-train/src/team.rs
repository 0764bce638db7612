//! Steps on the CPU: a batch, its gradients and the optimiser, by all threads. The model shares the work and promises a
//! result that does not depend on their number.

use lately_model::{Gradients, Model, Scratch};

use crate::config::TrainConfig;
use crate::course::{Batches, Course};
use crate::examples::{Examples, Part};
use crate::memory::Memory;
use crate::place::Member;
use crate::state::Run;
use crate::stepper::{Stepped, Stepper, adam, clip, dropout_seed};
use crate::trainer::TrainError;

/// The threads and the memory that steps reuse.
pub(crate) struct Team<'c> {
    examples: &'c Examples<'c>,
    config: &'c TrainConfig,
    batches: Batches<'c>,
    /// For each head the weight of the list term.
    head_weight: Vec<f32>,
    part: Part,
    scratch: Scratch,
    gradients: Gradients,
}

impl<'c> Team<'c> {
    /// For the steps from `step` on.
    pub(crate) fn new(model: &Model, course: &'c Course<'c>, step: u64) -> Result<Self, TrainError> {
        let examples = course.examples;
        let config = examples.config;
        if config.memory_bytes > 0 {
            Memory::measure(model, examples)?.check(config.memory_bytes)?;
        }
        Ok(Self {
            examples,
            config,
            batches: course.from(step),
            head_weight: config.list_head_weights(&examples.slice.dataset.schema)?,
            part: Part::default(),
            scratch: Scratch::with_threads(config.threads).precision(config.precision),
            gradients: Gradients::zeros(model),
        })
    }

    /// The step on the assembled batch.
    fn learn(&mut self, run: &mut Run, rate: f64) -> Result<f64, TrainError> {
        let Self { config, head_weight, part, scratch, gradients, .. } = self;
        let step = run.step();
        let seed = Some(dropout_seed(config, step, Member::ALONE));
        let objective = part.objective(head_weight);
        let loss = run.model.objective_and_gradient(&part.batch, &objective, seed, scratch, gradients)?;
        if !loss.is_finite() {
            return Err(TrainError::Diverged(step));
        }
        let scale = clip(config, || Ok(gradients.norm_by(scratch)))?;
        run.model.update(adam(config, rate, scale, step), gradients, &mut run.moments, scratch);
        run.loss.push(loss);
        Ok(loss)
    }
}

impl Stepper for Team<'_> {
    fn step(&mut self, run: &mut Run, rate: f64) -> Result<Option<Stepped>, TrainError> {
        let Some((order, batch)) = self.batches.next() else { return Ok(None) };
        let size = order.size(&batch);
        let groups = &order.groups[batch];
        let epoch = order.number;
        self.examples.assemble(epoch, groups, 1.0 / size.stands_for, &mut self.part);
        let loss = self.learn(run, rate)?;
        Ok(Some(Stepped { epoch, rows: size.rows as u64, loss }))
    }

    /// They are there.
    fn settle(&mut self, _run: &mut Run) -> Result<(), TrainError> {
        Ok(())
    }
}
