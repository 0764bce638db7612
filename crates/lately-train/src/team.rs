//! One step: a batch, its gradients and the optimiser, by all threads. The model shares the work and promises a result
//! that does not depend on their number.

use std::ops::Range;

use lately_model::{AdamStep, Gradients, Model, Scratch};

use crate::config::TrainConfig;
use crate::examples::{Examples, Part};
use crate::memory::Memory;
use crate::random::Random;
use crate::sampler::Epoch;
use crate::state::Run;
use crate::trainer::TrainError;

/// Purpose of the random draws of dropout.
const DROPOUT: u64 = 3;

/// The threads and the memory that steps reuse.
pub(crate) struct Team<'e> {
    examples: &'e Examples<'e>,
    config: &'e TrainConfig,
    /// For each head the weight of the list term.
    head_weight: Vec<f32>,
    part: Part,
    scratch: Scratch,
    gradients: Gradients,
}

impl<'e> Team<'e> {
    pub(crate) fn new(model: &Model, examples: &'e Examples<'e>) -> Result<Self, TrainError> {
        let config = examples.config;
        if config.memory_bytes > 0 {
            Memory::measure(model, examples)?.check(config.memory_bytes)?;
        }
        Ok(Self {
            examples,
            config,
            head_weight: config.list_head_weights(&examples.slice.dataset.schema)?,
            part: Part::default(),
            scratch: Scratch::with_threads(config.threads).precision(config.precision),
            gradients: Gradients::zeros(model),
        })
    }

    /// One step; returns the mean loss a row and the number of rows.
    pub(crate) fn step(
        &mut self,
        run: &mut Run,
        order: &Epoch,
        batch: &Range<usize>,
        rate: f64,
    ) -> Result<(f64, u64), TrainError> {
        let size = order.size(batch);
        let groups = &order.groups[batch.clone()];
        self.examples.assemble(order.number, groups, 1.0 / size.stands_for, &mut self.part);
        let loss = self.learn(run, rate)?;
        Ok((loss, size.rows as u64))
    }

    /// The step on the assembled batch.
    fn learn(&mut self, run: &mut Run, rate: f64) -> Result<f64, TrainError> {
        let Self { config, head_weight, part, scratch, gradients, .. } = self;
        let step = run.step();
        let seed = Some(Random::of(config.seed, &[DROPOUT, step]).next());
        let objective = part.objective(head_weight);
        let loss = run.model.objective_and_gradient(&part.batch, &objective, seed, scratch, gradients)?;
        if !loss.is_finite() {
            return Err(TrainError::Diverged(step));
        }
        let mut scale = 1.0;
        if config.clip_norm > 0.0 {
            scale = (config.clip_norm / gradients.norm_by(scratch)).min(1.0);
        }
        let betas = (config.beta1, config.beta2);
        let adam = AdamStep::new(rate, betas, config.weight_decay, scale, step + 1);
        run.model.update(adam, gradients, &mut run.moments, scratch);
        run.loss.push(loss);
        Ok(loss)
    }
}
