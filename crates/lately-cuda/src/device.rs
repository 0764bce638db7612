//! An opened card, and a model on it.

use std::sync::Arc;

use lately_features::FeatureBatch;
use lately_model::training::{LearnerOptions, Moments, StagedBatch};
use lately_model::{AdamStep, Model};

use crate::driver::card::Card;
use crate::engine::Engine;
use crate::train::Learner;
use crate::{CudaError, Span};

/// An opened card with the kernels compiled for it so far. Models on it share the kernels of their geometry.
pub struct Device {
    card: Arc<Card>,
}

impl Device {
    /// Opens the card of this number, from 0, among those that the driver shows.
    ///
    /// # Errors
    /// Where the driver or the runtime compiler is missing, the card is not there, or one of them is too old.
    pub fn open(ordinal: usize) -> Result<Arc<Self>, CudaError> {
        Ok(Arc::new(Self { card: Arc::new(Card::open(ordinal)?) }))
    }

    /// The card's name.
    pub fn name(&self) -> &str {
        &self.card.name
    }

    /// Bytes of the card's memory.
    pub fn memory(&self) -> usize {
        self.card.memory
    }

    /// Its compute capability, major and minor.
    pub fn compute_capability(&self) -> (u32, u32) {
        self.card.capability
    }

    /// Records times on the card from now on, or no longer: of every copy, of all kernels of a call that scores together,
    /// and of every kernel of one that learns. Off at first. Each span costs two events, kept until they are taken.
    pub fn record_times(&self, on: bool) {
        self.card.times.record(on);
    }

    /// The spans since the last call, in the order in which they were queued; those of calls that other threads make at
    /// once stand between one another. Of a kernel that takes less time than its launch, the launch is a part.
    ///
    /// # Errors
    /// Where the driver fails, in what was recorded, too; all of them are then dropped.
    pub fn take_times(&self) -> Result<Vec<Span>, CudaError> {
        self.card.times.take()
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let card = &self.card;
        f.debug_struct("Device").field("name", &card.name).field("capability", &card.capability).finish()
    }
}

/// A model on a device. Threads may score with it at once; dropping it frees its memory on the card.
pub struct CudaEngine {
    engine: Engine<Card>,
}

impl CudaEngine {
    /// Puts a model on a device: compiles kernels for its geometry, where none are there yet (seconds), and copies its
    /// folded weights.
    ///
    /// # Errors
    /// Where there is no kernel for the model, a weight is not finite, or the card has no memory left.
    pub fn new(device: &Arc<Device>, model: Arc<Model>) -> Result<Self, CudaError> {
        Ok(Self { engine: Engine::new(&device.card, model)? })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.engine.model()
    }

    /// Bytes of its weights on the card.
    pub fn bytes(&self) -> usize {
        self.engine.bytes()
    }

    /// Logits N x H of a batch, row-major, calibrated where the model has a calibration, as
    /// [`lately_model::Engine::score`] in bfloat16: a row's are the same bits whatever else is in the batch.
    ///
    /// # Errors
    /// Where the batch does not fit the schema or holds numbers that are not finite, a logit is not, or the driver fails.
    pub fn score(&self, batch: &FeatureBatch) -> Result<Vec<f32>, CudaError> {
        self.engine.score(batch)
    }
}

impl std::fmt::Debug for CudaEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaEngine").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// A model that learns on a device. Dropping it frees its memory on the card.
pub struct CudaLearner {
    learner: Learner<Card>,
}

impl CudaLearner {
    /// Puts a model and the moments of its run on a device: compiles kernels for its geometry (seconds), and copies weights
    /// and moments. In bfloat16 activations are bfloat16, sums, weights and moments f32; in f32 activations are f32, and
    /// products those of factors of two bfloat16 numbers.
    ///
    /// # Errors
    /// Where there is no kernel for the model, a weight is not finite, or the card has no memory left.
    ///
    /// # Panics
    /// Where the moments belong to another model.
    pub fn new(
        device: &Arc<Device>,
        model: &Model,
        moments: &Moments,
        options: &LearnerOptions,
    ) -> Result<Self, CudaError> {
        Ok(Self { learner: Learner::new(&device.card, model, moments, options)? })
    }

    /// See [`lately_model::training::Learner::gradient`]. The same batch gives the same bits.
    ///
    /// # Errors
    /// Where a segment is longer than the schema says, the card has no memory left, or the driver fails.
    pub fn gradient(&mut self, batch: &StagedBatch, dropout_seed: Option<u64>) -> Result<f64, CudaError> {
        self.learner.gradient(batch, dropout_seed)
    }

    /// See [`lately_model::training::Learner::norm`].
    ///
    /// # Errors
    /// Where the driver fails.
    pub fn norm(&mut self) -> Result<f64, CudaError> {
        self.learner.norm()
    }

    /// See [`lately_model::training::Learner::update`].
    ///
    /// # Errors
    /// Where the driver fails.
    pub fn update(&mut self, step: AdamStep) -> Result<(), CudaError> {
        self.learner.update(step)
    }

    /// See [`lately_model::training::Learner::read`].
    ///
    /// # Errors
    /// Where the driver fails.
    pub fn read(&mut self, model: &mut Model, moments: &mut Moments) -> Result<(), CudaError> {
        self.learner.read(model, moments)
    }

    /// For checks: the gradient added up since the last update, a list a parameter, in the model's order.
    ///
    /// # Errors
    /// Where the driver fails.
    pub fn gradients(&mut self) -> Result<Vec<Vec<f32>>, CudaError> {
        self.learner.gradients()
    }
}

impl std::fmt::Debug for CudaLearner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaLearner").finish_non_exhaustive()
    }
}
