//! An opened card, and a model on it.

use std::sync::Arc;

use lately_features::FeatureBatch;
use lately_model::Model;

use crate::CudaError;
use crate::driver::card::Card;
use crate::engine::Engine;

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
