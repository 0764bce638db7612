//! The challenger: it scores what was served, after the answer, and in a canary it ranks for a share of the people.

use std::sync::Arc;

use lately_features::UserId;

use super::{Ranker, Scores};
use crate::draw;
use crate::error::RankConfigError;
use crate::guardrails::Guardrails;
use crate::model_slot::{LoadedModel, ModelSlot, ModelSummary};
use crate::request::{RankResponse, Variant};
use crate::shadow::{Served, Shadow, ShadowSummary};

impl Ranker {
    /// With a challenger in this slot: it scores a share of the rankings too, after the answer (`[rank] shadow_share`), and
    /// ranks for a share of the people (`canary_share`). An empty slot ends both.
    ///
    /// # Errors
    /// [`RankConfigError::Thread`] where its thread cannot start.
    pub fn with_challenger(mut self, slot: Arc<ModelSlot>) -> Result<Self, RankConfigError> {
        if self.config.shadow_share > 0.0 {
            let (batcher, value_model) = (Arc::clone(&self.batcher), self.policy.value_model.clone());
            self.shadow = Some(Shadow::start(Arc::clone(&slot), batcher, value_model, self.heads.clone())?);
        }
        self.challenger = Some(slot);
        Ok(self)
    }

    /// What ranks for a user, and the user's arm: a canary runs while there is a challenger that is not the champion.
    pub(super) fn arm(&self, user: &UserId) -> (Option<Arc<LoadedModel>>, Option<Variant>) {
        let (champion, share) = (self.slot.current(), self.config.canary_share);
        let Some(challenger) = self.challenger.as_ref().filter(|_| share > 0.0).and_then(|s| s.current())
        else {
            return (champion, None);
        };
        match &champion {
            Some(model) if model.version() != challenger.version() => {}
            _ => return (champion, None),
        }
        match draw::canary(user, challenger.version(), share) {
            true => (Some(challenger), Some(Variant::Challenger)),
            false => (champion, Some(Variant::Champion)),
        }
    }

    /// Has the challenger score what was served, where this ranking is drawn for it and was made by a full model.
    pub(super) fn shadow(&self, response: &RankResponse, scores: Scores) {
        let Some(shadow) = self.shadow.as_ref().filter(|s| s.slot().current().is_some()) else { return };
        let Scores { probabilities, work: Some(work), .. } = scores else { return };
        // Of what the challenger ranked itself, or an experiment's model, there is nothing to compare.
        let champion = self.slot.current();
        let by_champion = champion.is_some_and(|m| m.version() == work.model.version());
        if by_champion
            && response.degraded.is_empty()
            && draw::shadow(&response.request, self.config.shadow_share)
        {
            // Both by the same weights, whatever this ranking's own are.
            let rows = probabilities.chunks_exact(self.heads.len().max(1));
            let score = rows.map(|p| self.policy.value_model.score(p)).collect();
            shadow.offer(Served { work, probabilities, score });
        }
    }

    /// The challenger, and how it compared so far; `None` where none is loaded.
    pub fn challenger(&self) -> Option<(ModelSummary, Option<ShadowSummary>)> {
        let model = self.challenger.as_ref()?.current()?.summary();
        let summary =
            self.shadow.as_ref().and_then(Shadow::summary).filter(|s| s.challenger == model.version);
        Some((model, summary))
    }

    /// Share of the people for whom the challenger ranks, while it does.
    pub fn canary(&self) -> Option<f64> {
        let (champion, challenger) = (self.slot.current()?, self.challenger.as_ref()?.current()?);
        let share = self.config.canary_share;
        (share > 0.0 && champion.version() != challenger.version()).then_some(share)
    }

    /// The watch over the versions that rank.
    pub fn guardrails(&self) -> &Arc<Guardrails> {
        &self.guardrails
    }
}
