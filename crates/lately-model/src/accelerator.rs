//! The seam by which another device than the CPU scores and learns: what it promises, on one screen.
//!
//! Nothing here knows of any device. Who serves opens one, hands it to what serves, and the [`Engine`](crate::Engine) stays
//! in memory beside it: it says what is right when a model is loaded, and answers where the device does not.

use std::fmt::Debug;
use std::sync::Arc;

use lately_features::FeatureBatch;

use crate::training::{Learner, LearnerOptions, Moments};
use crate::{Model, ModelError, ServingPrecision};

/// An opened device.
pub trait Accelerator: Debug + Send + Sync {
    /// What operators call it, such as `cuda:0 (NVIDIA H200)`.
    fn name(&self) -> &str;

    /// Puts a model on the device, which holds it until the scorer is dropped. Several may be there at once.
    ///
    /// # Errors
    /// [`AcceleratorError::Unsupported`] of a model that this device has no kernels for; else why it could not be done.
    fn load(&self, model: &Arc<Model>) -> Result<Box<dyn Scorer>, AcceleratorError>;

    /// Puts a model, with the moments of a run that goes on, on the device to learn there.
    ///
    /// # Errors
    /// [`AcceleratorError::Unsupported`] of a model that this device has no kernels for; else why it could not be done.
    ///
    /// # Panics
    /// Where the moments belong to another model.
    fn learner(
        &self,
        model: &Model,
        moments: &Moments,
        options: &LearnerOptions,
    ) -> Result<Box<dyn Learner>, AcceleratorError>;
}

/// A model on a device. Threads call it at the same time.
pub trait Scorer: Debug + Send + Sync {
    /// In what its products multiply.
    fn precision(&self) -> ServingPrecision;

    /// Logits N x H of a batch, row-major, finite, calibrated where the model has a calibration, as
    /// [`Engine::score`](crate::Engine::score) gives them but for rounding: all of them, or an error.
    ///
    /// # Errors
    /// [`AcceleratorError::Batch`] where the batch does not fit the model; else what the device did.
    fn score(&self, batch: &FeatureBatch) -> Result<Vec<f32>, AcceleratorError>;
}

/// Why a device does not score.
#[derive(Debug, thiserror::Error)]
pub enum AcceleratorError {
    /// It has no kernels for this model; the CPU serves it.
    #[error("it has no kernels for {0}")]
    Unsupported(String),
    /// The batch does not fit the model.
    #[error(transparent)]
    Batch(#[from] ModelError),
    /// Numbers that are none.
    #[error("{count} of its logits are not finite")]
    NotFinite {
        /// How many.
        count: usize,
    },
    /// Too few logits, or too many.
    #[error("it gave {got} logits instead of {want}")]
    Length {
        /// Candidates x heads.
        want: usize,
        /// What it gave.
        got: usize,
    },
    /// A call of the device failed.
    #[error("{0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AcceleratorError {
    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unsupported(_) => "unsupported",
            Self::Batch(_) => "batch",
            Self::NotFinite { .. } => "not_finite",
            Self::Length { .. } => "length",
            Self::Failed(_) => "failed",
        }
    }
}
