//! The seam by which another device than the CPU learns: what it promises, what it is given, and what of the model it needs
//! to know.
//!
//! A step goes through three hands. [`Stager`] turns a batch's rows into the numbers that are multiplied, on the host and
//! by the functions that serving uses, so that no device computes a feature anew; it needs no weights, so a thread may
//! stage the next batch while the device learns from this one. [`Learner`] holds weights, gradients and moments, adds up a
//! gradient and moves the weights. [`TrainingPlan`] tells it which parameter does what.

mod plan;
mod staging;

use std::fmt::Debug;

pub use lately_kernels::Dropout;
pub use plan::{EncoderIds, LayerIds, ParameterPlan, RateIds, TableIds, TokenTable, TrainingPlan};
pub use staging::{Scatter, StagedBatch, Stager, Stretch, TableRows, Uses};

use crate::{AcceleratorError, AdamStep, Model, Precision};

/// Adam's first and second moments of each parameter, of the parameters' lengths, in their order.
pub type Moments = [(Vec<f32>, Vec<f32>)];

/// What a learner is told at its start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LearnerOptions {
    /// How it multiplies.
    pub precision: Precision,
    /// The learners that share each step, one a process and card; none: it learns alone.
    pub group: Option<Group>,
}

/// Several learners that start from the same weights, each take a part of every batch, and add their gradients up before
/// each step, so that all hold the same weights again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// This one's number, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Where number 0 waits for the others, `host:port`.
    pub meeting: String,
}

/// A model that learns on a device.
pub trait Learner: Debug + Send {
    /// Adds the gradient of a batch's loss to those added since the last [`update`](Self::update), and returns the loss. In a
    /// group the loss is that of all members' batches together; a member whose part is empty calls it, too.
    ///
    /// # Errors
    /// What the device did. Weights are as they were.
    fn gradient(&mut self, batch: &StagedBatch, dropout_seed: Option<u64>) -> Result<f64, AcceleratorError>;

    /// Euclidean norm of the gradient added up so far, a group's together; NaN or infinite where a gradient is. In a group an
    /// update must follow before the next gradient.
    ///
    /// # Errors
    /// What the device did.
    fn norm(&mut self) -> Result<f64, AcceleratorError>;

    /// Moves the weights, as [`Model::update`] does, and sets the gradient to zero.
    ///
    /// # Errors
    /// What the device did. Weights may then be anything: read nothing from it.
    fn update(&mut self, step: AdamStep) -> Result<(), AcceleratorError>;

    /// Copies weights and moments to the host, into those of the model that it started from.
    ///
    /// # Errors
    /// What the device did. What was copied may then be a part.
    fn read(&mut self, model: &mut Model, moments: &mut Moments) -> Result<(), AcceleratorError>;
}
