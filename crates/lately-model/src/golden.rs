//! Golden rows: some real rows with the logits that the model gave them when it was published. They travel in its file, and
//! whoever serves it first computes them again: on another machine, by other instructions, in another precision.

use lately_features::FeatureBatch;
use serde::{Deserialize, Serialize};

use crate::{Model, ModelError, Scratch};

/// Rows, and what the model says of them in f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    batch: FeatureBatch,
    /// Rows x heads.
    logits: Vec<f32>,
}

impl Golden {
    /// Scores a batch, whose labels are left out.
    ///
    /// # Errors
    /// Where the batch does not fit the model.
    pub fn new(model: &Model, mut batch: FeatureBatch) -> Result<Self, ModelError> {
        batch.label.clear();
        let logits = model.score(&batch, &mut Scratch::default())?;
        Ok(Self { batch, logits })
    }

    /// The rows.
    pub fn batch(&self) -> &FeatureBatch {
        &self.batch
    }

    /// What the model said of them, rows x heads.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The rows of a file, refused where they are no rows or not of this model.
    pub(crate) fn read(bytes: &[u8], model: &Model) -> Option<Self> {
        let golden: Self = postcard::from_bytes(bytes).ok()?;
        crate::chunk::check(&model.network.plan, &golden.batch).ok()?;
        (golden.logits.len() == golden.batch.rows() * model.heads()).then_some(golden)
    }

    pub(crate) fn bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(self)
    }
}
