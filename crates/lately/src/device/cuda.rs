//! A CUDA card behind the seam of `lately-model`.

use std::sync::Arc;

use lately_cuda::{CudaEngine, CudaError, CudaLearner, Device};
use lately_features::FeatureBatch;
use lately_model::training::{Learner, LearnerOptions, Moments, StagedBatch};
use lately_model::{Accelerator, AcceleratorError, AdamStep, Model, Scorer, ServingPrecision};

/// An opened card.
#[derive(Debug)]
pub(super) struct Card {
    device: Arc<Device>,
    name: String,
}

/// A model on it.
#[derive(Debug)]
struct OnCard(CudaEngine);

/// One that learns there.
#[derive(Debug)]
struct LearnsOnCard(CudaLearner);

impl Card {
    pub(super) fn open(ordinal: usize) -> Result<Self, CudaError> {
        let device = Device::open(ordinal)?;
        let name = format!("cuda:{ordinal} ({})", device.name());
        Ok(Self { device, name })
    }
}

impl Accelerator for Card {
    fn name(&self) -> &str {
        &self.name
    }

    fn load(&self, model: &Arc<Model>) -> Result<Box<dyn Scorer>, AcceleratorError> {
        Ok(Box::new(OnCard(CudaEngine::new(&self.device, Arc::clone(model)).map_err(seen)?)))
    }

    fn learner(
        &self,
        model: &Model,
        moments: &Moments,
        options: &LearnerOptions,
    ) -> Result<Box<dyn Learner>, AcceleratorError> {
        Ok(Box::new(LearnsOnCard(CudaLearner::new(&self.device, model, moments, options).map_err(seen)?)))
    }
}

impl Learner for LearnsOnCard {
    fn gradient(&mut self, batch: &StagedBatch, dropout_seed: Option<u64>) -> Result<f64, AcceleratorError> {
        self.0.gradient(batch, dropout_seed).map_err(seen)
    }

    fn norm(&mut self) -> Result<f64, AcceleratorError> {
        self.0.norm().map_err(seen)
    }

    fn update(&mut self, step: AdamStep) -> Result<(), AcceleratorError> {
        self.0.update(step).map_err(seen)
    }

    fn read(&mut self, model: &mut Model, moments: &mut Moments) -> Result<(), AcceleratorError> {
        self.0.read(model, moments).map_err(seen)
    }
}

impl Scorer for OnCard {
    /// Of the kernels' products; their sums are in f32.
    fn precision(&self) -> ServingPrecision {
        ServingPrecision::Bf16
    }

    fn score(&self, batch: &FeatureBatch) -> Result<Vec<f32>, AcceleratorError> {
        self.0.score(batch).map_err(seen)
    }
}

/// An error of the card as the seam tells errors apart.
fn seen(error: CudaError) -> AcceleratorError {
    match error {
        CudaError::Unsupported { what, .. } => AcceleratorError::Unsupported(what),
        CudaError::Model(error) => AcceleratorError::Batch(error),
        CudaError::NotFinite { count, .. } => AcceleratorError::NotFinite { count },
        other => AcceleratorError::Failed(Box::new(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lately_model::ModelError;

    #[test]
    fn errors_keep_what_decides_who_is_to_blame() {
        let reason = |error| seen(error).reason();
        assert_eq!(reason(CudaError::Unsupported { what: "an encoder".into(), advice: "" }), "unsupported");
        assert_eq!(reason(ModelError::NotFinite("numeric").into()), "batch");
        assert_eq!(reason(CudaError::NotFinite { count: 2, of: 3 }), "not_finite");
        let lost = CudaError::Driver { doing: "wait for a stream", reason: "an illegal address".into() };
        assert_eq!(seen(lost.clone()).to_string(), lost.to_string(), "with what to do");
        assert_eq!(reason(lost), "failed");
    }
}
