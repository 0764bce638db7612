//! The last stage: the response, and the record of it in the log.

use super::{Ask, Known, Ranker, Scores, Slate};
use crate::clock::StageClock;
use crate::impression::impression;
use crate::request::{Explain, ModelRef, RankResponse, Rung, Variant};
use crate::select::page_diversity;

impl Ranker {
    /// The response, and the record of it in the log.
    pub(super) fn respond(
        &self,
        ask: Ask,
        known: &Known,
        scores: &Scores,
        slate: Slate,
        mut degraded: Vec<Rung>,
        explain: Option<Explain>,
        mut clock: StageClock,
    ) -> RankResponse {
        count(&mut degraded, ask.forced.is_some());
        let arm = ask.variant.unwrap_or(Variant::Champion).name();
        let model = scores.work.as_deref().map(|w| &w.model).map(|m| ModelRef {
            version: m.version().to_owned(),
            generation: m.generation(),
            embedding_version: m.manifest().embedding_version.clone(),
        });
        let mut response = RankResponse {
            request: ask.request,
            user: ask.user,
            model,
            variant: ask.variant,
            exposures: ask.exposures,
            propensities: slate.propensities,
            schema_hash: self.slot.schema_hash().to_owned(),
            watermark: known.context.watermark,
            time_ms: known.context.time_ms,
            degraded,
            sequence_age_ms: known.sequence_age_ms,
            heads: self.heads.clone(),
            items: slate.items,
            dropped: ask.dropped,
            explain,
            timings_us: Vec::new(),
        };
        if !response.items.is_empty() {
            if ask.slate {
                self.varied(&response);
                self.shown.add(&response.user, response.items.iter().map(|i| &i.item), response.time_ms);
            }
            self.impressions.log(impression(&response, ask.surface));
        }
        clock.lap("log");
        response.timings_us = clock.finish(arm);
        response
    }
}

impl Ranker {
    /// How varied a page is, in metrics.
    fn varied(&self, response: &RankResponse) {
        let features: Vec<_> = response.items.iter().map(|i| self.store.item(&i.item)).collect();
        let topics: Vec<u32> = features.iter().map(|f| self.topic(f.as_deref())).collect();
        let embeddings: Vec<&[f32]> = features.iter().map(|f| self.embedding(f.as_deref())).collect();
        let page = page_diversity(&topics, &embeddings);
        metrics::histogram!("lately_rank_page_topics").record(page.unique_topics as f64);
        metrics::histogram!("lately_rank_page_topic_entropy").record(page.topic_entropy);
        metrics::histogram!("lately_rank_page_distance").record(page.intra_list_distance);
    }
}

/// Counts the rungs in force. What was forced is marked and counted apart, so that an alarm may watch the others.
fn count(degraded: &mut Vec<Rung>, forced: bool) {
    if forced && !degraded.is_empty() {
        for rung in &*degraded {
            metrics::counter!("lately_rank_exercised_total", "rung" => rung.name()).increment(1);
        }
        degraded.push(Rung::Exercise);
        return;
    }
    for rung in degraded {
        metrics::counter!("lately_rank_degraded_total", "reason" => rung.name()).increment(1);
    }
}
