//! The challenger beside the ranking: it scores what was served, after the answer.

use std::sync::Arc;

use super::{Ranker, Scores};
use crate::draw;
use crate::error::RankConfigError;
use crate::model_slot::{ModelSlot, ModelSummary};
use crate::request::RankResponse;
use crate::shadow::{Served, Shadow, ShadowSummary};

impl Ranker {
    /// Scores a share of the rankings (`[rank] shadow_share`) by the model in this slot too, after the answer.
    ///
    /// # Errors
    /// [`RankConfigError::Thread`] where its thread cannot start.
    pub fn with_challenger(mut self, slot: Arc<ModelSlot>) -> Result<Self, RankConfigError> {
        let (batcher, value_model) = (Arc::clone(&self.batcher), self.value_model.clone());
        self.shadow = Some(Shadow::start(slot, batcher, value_model, self.heads.clone())?);
        Ok(self)
    }

    /// Has the challenger score what was served, where this ranking is drawn for it and was made by a full model.
    pub(super) fn shadow(&self, response: &RankResponse, scores: Scores) {
        let Some(shadow) = self.shadow.as_ref().filter(|s| s.slot().current().is_some()) else { return };
        let Scores { score, probabilities, work: Some(work) } = scores else { return };
        if response.degraded.is_empty() && draw::shadow(&response.request, self.config.shadow_share) {
            shadow.offer(Served { work, probabilities, score });
        }
    }

    /// The challenger, and how it compared so far; `None` where none is loaded.
    pub fn challenger(&self) -> Option<(ModelSummary, Option<ShadowSummary>)> {
        let shadow = self.shadow.as_ref()?;
        let model = shadow.slot().current()?.summary();
        let summary = shadow.summary().filter(|s| s.challenger == model.version);
        Some((model, summary))
    }
}
