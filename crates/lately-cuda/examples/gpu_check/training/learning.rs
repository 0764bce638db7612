//! A model that learns: on the card, or on the CPU, which is what a card is compared with, and what stands in for one.

use lately_cuda::{CudaError, CudaLearner};
use lately_model::training::{LearnerOptions, StagedBatch};
use lately_model::{AdamStep, Gradients, Model, Precision, Scratch};

use super::rows::Rows;
use super::threads;
use crate::Failure;
use crate::place::Place;

/// A model that learns.
pub(crate) enum Learning {
    Card(Box<CudaLearner>),
    Cpu(Box<OnCpu>),
}

/// Weights, moments and gradient of a run on the CPU.
pub(crate) struct OnCpu {
    model: Model,
    moments: Vec<(Vec<f32>, Vec<f32>)>,
    gradients: Gradients,
    scratch: Scratch,
}

/// Puts a model where it is to learn; the error is why there are no kernels for it.
pub(crate) fn learner(
    place: &Place,
    model: &Model,
    precision: Precision,
) -> Result<Result<Learning, String>, Failure> {
    let Some(device) = place.device() else { return Ok(Ok(Learning::on_cpu(model, precision))) };
    let options = LearnerOptions { precision, ..LearnerOptions::default() };
    match CudaLearner::new(device, model, &moments(model), &options) {
        Ok(learner) => Ok(Ok(Learning::Card(Box::new(learner)))),
        Err(error @ CudaError::Unsupported { .. }) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn moments(model: &Model) -> Vec<(Vec<f32>, Vec<f32>)> {
    let zeros = |n: usize| vec![0.0; n];
    model.parameters().iter().map(|p| (zeros(p.data.len()), zeros(p.data.len()))).collect()
}

impl Learning {
    /// On the CPU, by all of its threads.
    pub(crate) fn on_cpu(model: &Model, precision: Precision) -> Self {
        Self::Cpu(Box::new(OnCpu {
            model: model.clone(),
            moments: moments(model),
            gradients: Gradients::zeros(model),
            scratch: Scratch::with_threads(threads()).precision(precision),
        }))
    }

    /// Adds a batch's gradient up and returns the loss. `staged` is the same batch: the CPU learns from the rows.
    pub(crate) fn gradient(
        &mut self,
        rows: &Rows,
        staged: &StagedBatch,
        seed: Option<u64>,
    ) -> Result<f64, Failure> {
        match self {
            Self::Card(learner) => Ok(learner.gradient(staged, seed)?),
            Self::Cpu(c) => {
                let OnCpu { model, gradients, scratch, .. } = &mut **c;
                Ok(model.objective_and_gradient(&rows.batch, &rows.objective(), seed, scratch, gradients)?)
            }
        }
    }

    /// The gradient added up so far, a list a parameter.
    pub(crate) fn gradients(&mut self) -> Result<Vec<Vec<f32>>, Failure> {
        match self {
            Self::Card(learner) => Ok(learner.gradients()?),
            Self::Cpu(c) => Ok(c.gradients.iter().map(|(_, data, _)| data.to_vec()).collect()),
        }
    }

    /// Its length.
    pub(crate) fn norm(&mut self) -> Result<f64, Failure> {
        match self {
            Self::Card(learner) => Ok(learner.norm()?),
            Self::Cpu(c) => Ok(c.gradients.norm()),
        }
    }

    pub(crate) fn update(&mut self, step: AdamStep) -> Result<(), Failure> {
        match self {
            Self::Card(learner) => learner.update(step)?,
            Self::Cpu(c) => {
                let OnCpu { model, moments, gradients, scratch } = &mut **c;
                model.update(step, gradients, moments, scratch);
            }
        }
        Ok(())
    }
}
