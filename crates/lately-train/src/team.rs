//! One step by several threads: a batch's parts are computed by whoever is free, and their gradients added in fixed
//! order, so that the result does not depend on the number of threads.

use std::ops::Range;

use lately_model::{Gradients, Model, ModelError, Scratch};

use crate::config::TrainConfig;
use crate::examples::{Examples, Part};
use crate::memory::Memory;
use crate::optim::{Step, adam};
use crate::random::Random;
use crate::reduce::Reducer;
use crate::sampler::Epoch;
use crate::state::Run;
use crate::trainer::TrainError;

/// Purpose of the random draws of dropout.
const DROPOUT: u64 = 3;

/// Memory of one thread.
#[derive(Default)]
struct Worker {
    part: Part,
    scratch: Scratch,
}

/// The threads and the memory that steps reuse.
pub(crate) struct Team<'e> {
    examples: &'e Examples<'e>,
    config: &'e TrainConfig,
    /// For each head the weight of the list term.
    head_weight: Vec<f32>,
    workers: Vec<Worker>,
    reducer: Reducer,
    /// For each parameter the length of a row.
    widths: Vec<usize>,
}

impl<'e> Team<'e> {
    pub(crate) fn new(model: &Model, examples: &'e Examples<'e>) -> Result<Self, TrainError> {
        let config = examples.config;
        // Twice the threads: who is done early need not wait for who is late.
        let most = config.shards.min(2 * config.threads);
        let buffers = match config.memory_bytes {
            0 => most,
            limit => Memory::measure(model, examples)?.buffers(limit, config.threads, most)?,
        };
        Ok(Self {
            examples,
            config,
            head_weight: config.list_head_weights(&examples.slice.dataset.schema)?,
            workers: (0..config.threads).map(|_| Worker::default()).collect(),
            reducer: Reducer::new(model, buffers),
            widths: model.parameters().iter().map(|p| p.shape.last().copied().unwrap_or(1)).collect(),
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
        let parts = order.shards(batch, self.config.shards);
        self.reducer.begin(parts.len());
        let (reducer, step, model) = (&self.reducer, run.step(), &run.model);
        let (examples, head_weight) = (self.examples, self.head_weight.as_slice());
        let work = |worker: &mut Worker| -> Result<(), ModelError> {
            while let Some(mut claim) = reducer.claim() {
                let groups = &order.groups[parts[claim.shard()].clone()];
                let Worker { part, scratch } = &mut *worker;
                examples.assemble(order.number, groups, 1.0 / size.stands_for, part);
                let seed = Random::of(examples.config.seed, &[DROPOUT, step, claim.shard() as u64]).next();
                let objective = part.objective(head_weight);
                let loss = model.objective_and_gradient(
                    &part.batch,
                    &objective,
                    Some(seed),
                    scratch,
                    claim.gradients(),
                )?;
                claim.give(loss);
            }
            Ok(())
        };
        let results: Vec<Result<(), ModelError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self.workers.iter_mut().map(|w| scope.spawn(|| work(w))).collect();
            let join = |t: std::thread::ScopedJoinHandle<'_, _>| {
                t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        results.into_iter().collect::<Result<(), _>>()?;
        let (gradients, loss) = self.reducer.end();
        if !loss.is_finite() {
            return Err(TrainError::Diverged(step));
        }
        update(self.config, &self.widths, gradients, run, rate);
        run.loss.push(loss);
        Ok((loss, size.rows as u64))
    }
}

/// One step of Adam with the clipped gradient; `widths`: for each parameter the length of a row.
fn update(config: &TrainConfig, widths: &[usize], gradients: &mut Gradients, run: &mut Run, rate: f64) {
    if config.clip_norm > 0.0 {
        let norm = gradients.norm();
        if norm > config.clip_norm {
            gradients.scale((config.clip_norm / norm) as f32);
        }
    }
    let (beta1, beta2, decay) = (config.beta1, config.beta2, config.weight_decay);
    let step = Step { rate, beta1, beta2, decay, number: run.step() + 1 };
    let parameters = run.model.parameters_mut().zip(&mut run.moments).zip(widths);
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
