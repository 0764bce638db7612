//! One step by several threads: a batch's parts are computed by whoever is free, and their gradients added in fixed
//! order, so that the result does not depend on the number of threads.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lately_model::{Gradients, Model, ModelError, Scratch};

use crate::config::TrainConfig;
use crate::examples::{Examples, Part};
use crate::optim::{Step, adam};
use crate::random::Random;
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

/// One part of a batch: its gradients and loss.
struct Shard {
    gradients: Gradients,
    loss: f64,
}

/// The threads and the memory that steps reuse.
pub(crate) struct Team<'e> {
    examples: &'e Examples<'e>,
    config: &'e TrainConfig,
    /// For each head the weight of the list term.
    head_weight: Vec<f32>,
    workers: Vec<Worker>,
    shards: Vec<Mutex<Shard>>,
    /// For each parameter the length of a row.
    widths: Vec<usize>,
}

impl<'e> Team<'e> {
    pub(crate) fn new(model: &Model, examples: &'e Examples<'e>) -> Result<Self, TrainError> {
        let config = examples.config;
        let shard = || Mutex::new(Shard { gradients: Gradients::zeros(model), loss: 0.0 });
        Ok(Self {
            examples,
            config,
            head_weight: config.list_head_weights(&examples.slice.dataset.schema)?,
            workers: (0..config.threads).map(|_| Worker::default()).collect(),
            shards: (0..config.shards).map(|_| shard()).collect(),
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
        let (next, shards, step, model) = (AtomicUsize::new(0), &self.shards, run.step(), &run.model);
        let (examples, head_weight) = (self.examples, self.head_weight.as_slice());
        let work = |worker: &mut Worker| -> Result<(), ModelError> {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(groups) = parts.get(at) else { return Ok(()) };
                // No other thread takes this number; a poisoned lock means that the run is failing anyway.
                let mut shard = shards[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                shard.gradients.clear();
                shard.loss = 0.0;
                if groups.is_empty() {
                    continue;
                }
                let Worker { part, scratch } = &mut *worker;
                let groups = &order.groups[groups.clone()];
                examples.assemble(order.number, groups, 1.0 / size.stands_for, part);
                let seed = Some(Random::of(examples.config.seed, &[DROPOUT, step, at as u64]).next());
                let (objective, gradients) = (part.objective(head_weight), &mut shard.gradients);
                shard.loss =
                    model.objective_and_gradient(&part.batch, &objective, seed, scratch, gradients)?;
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
        Ok((loss, size.rows as u64))
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
