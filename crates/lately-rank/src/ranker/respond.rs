//! The last stage: the response, and the record of it in the log.

use super::{Ask, Known, Ranker, Scores};
use crate::clock::StageClock;
use crate::impression::impression;
use crate::request::{Explain, ModelRef, RankResponse, RankedItem, Rung};

impl Ranker {
    /// The response, and the record of it in the log.
    pub(super) fn respond(
        &self,
        ask: Ask,
        known: &Known,
        scores: &Scores,
        items: Vec<RankedItem>,
        degraded: Vec<Rung>,
        explain: Option<Explain>,
        mut clock: StageClock,
    ) -> RankResponse {
        for rung in &degraded {
            metrics::counter!("lately_rank_degraded_total", "reason" => rung.name()).increment(1);
        }
        let model = scores.model.as_deref().map(|m| ModelRef {
            version: m.version().to_owned(),
            generation: m.generation(),
            embedding_version: m.manifest().embedding_version.clone(),
        });
        let mut response = RankResponse {
            request: ask.request,
            user: ask.user,
            model,
            schema_hash: self.slot.schema_hash().to_owned(),
            watermark: known.context.watermark,
            time_ms: known.context.time_ms,
            degraded,
            heads: self.heads.clone(),
            items,
            dropped: ask.dropped,
            explain,
            timings_us: Vec::new(),
        };
        if !response.items.is_empty() {
            if ask.slate {
                self.shown.add(&response.user, response.items.iter().map(|i| &i.item), response.time_ms);
            }
            self.impressions.log(impression(&response, ask.surface));
        }
        clock.lap("log");
        response.timings_us = clock.finish();
        response
    }
}
