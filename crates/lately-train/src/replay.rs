//! Served rankings scored again from the log: the same features must give the same probabilities.
//!
//! A request is rebuilt as training rebuilds it, by its watermark, and scored by the version that ranked it, as it was
//! served. What differs would teach a model something that serving never saw.

use std::collections::HashMap;

use lately_features::{FeatureBatch, Impression, assemble};
use lately_model::{Engine, EngineMemory, ModelError, probability};
use serde::Serialize;

use crate::dataset::{Request, Slice};

/// What was logged of a ranking that a model made.
#[derive(Debug, Clone)]
pub struct Logged {
    /// The version that ranked.
    pub version: String,
    /// Each item's probabilities.
    heads: HashMap<String, Vec<f32>>,
}

impl Logged {
    /// Of an impression; `None` where no model scored all of its items, or a rung was in force.
    pub fn new(impression: &Impression) -> Option<Self> {
        let version = impression.model.clone().filter(|_| impression.degraded.is_empty())?;
        let scored = impression.items.iter().all(|i| !i.heads.is_empty());
        let item = |i: &lately_features::ImpressionItem| (i.item.as_str().to_owned(), i.heads.clone());
        scored.then(|| Self { version, heads: impression.items.iter().map(item).collect() })
    }

    /// An item's probabilities, one a head.
    pub fn of(&self, item: &str) -> Option<&[f32]> {
        self.heads.get(item).map(Vec::as_slice)
    }
}

/// How what was replayed agrees with what was logged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayReport {
    /// Largest difference of a probability that is none.
    pub bound: f64,
    /// Requests that were scored again.
    pub requests: usize,
    /// Their items.
    pub rows: usize,
    /// Largest difference of a probability.
    pub worst: f64,
    /// Items of which a probability differs by more than the bound.
    pub beyond: usize,
    /// Items that the log does not have under their request.
    pub unknown: usize,
}

impl ReplayReport {
    /// The bound of what the CPU served, in the precision in which it is scored again.
    pub const BOUND: f64 = 1e-6;
    /// The bound of what another device may have served: by as much a model's probabilities may differ there when it is loaded.
    pub const DEVICE_BOUND: f64 = 0.02;

    /// Of nothing yet.
    pub fn new(bound: f64) -> Self {
        Self { bound, requests: 0, rows: 0, worst: 0.0, beyond: 0, unknown: 0 }
    }

    /// Whether nothing differs.
    pub fn holds(&self) -> bool {
        self.beyond == 0 && self.unknown == 0 && self.worst.is_finite()
    }
}

/// Scores the requests of a slice again for which `logged` has what an engine's version said, by their offset.
///
/// # Errors
/// Where a request does not fit the model.
pub fn replay(
    slice: &Slice<'_>,
    logged: &HashMap<u64, Logged>,
    engine: &Engine,
    version: &str,
    report: &mut ReplayReport,
) -> Result<(), ModelError> {
    let (mut batch, mut memory) = (FeatureBatch::default(), EngineMemory::default());
    for request in slice.iter() {
        let Some(logged) = logged.get(&request.offset).filter(|l| l.version == version) else { continue };
        batch.clear();
        push(&mut batch, slice, request);
        let logits = engine.score(&batch, &mut memory)?;
        report.requests += 1;
        let rows = request.candidates.iter().zip(logits.chunks_exact(slice.dataset.heads()));
        for (candidate, logits) in rows {
            let item = slice.dataset.items[candidate.item as usize].as_str();
            let Some(heads) = logged.heads.get(item).filter(|h| h.len() == logits.len()) else {
                report.unknown += 1;
                continue;
            };
            let apart = |(logit, p): (&f32, &f32)| f64::from((probability(*logit) - *p).abs());
            // `f64::max` would drop a NaN.
            let worst = logits.iter().zip(heads).map(apart).fold(0.0, |m, x| if x <= m { m } else { x });
            report.rows += 1;
            report.beyond += usize::from(worst > report.bound || worst.is_nan());
            report.worst = if worst <= report.worst { report.worst } else { worst };
        }
    }
    Ok(())
}

fn push(batch: &mut FeatureBatch, slice: &Slice<'_>, request: &Request) {
    let candidates = request.candidates.iter().map(|c| c.features.as_deref());
    let (user, context) = (request.features.as_deref(), request.context());
    assemble(batch, &slice.dataset.assembler, &context, user, &request.tokens, candidates);
}
