//! A thread that scores: one call of the model after the other, on memory that it keeps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use lately_features::{FeatureBatch, assemble};
use lately_model::{EngineMemory, PartCache};

use super::gather::Request;
use super::line::Piece;
use super::{Queue, ScoreError};
use crate::model_slot::LoadedModel;

type Part = Piece<Arc<Request>>;

/// Scores until the line is closed and empty.
pub(super) fn run(queue: &Queue, parts: &Arc<PartCache>) {
    let mut memory = Memory::new(Arc::clone(parts));
    while let Some(taken) = queue.next() {
        taken.gone.into_iter().for_each(|(request, reason)| request.fail(reason));
        if taken.pieces.is_empty() {
            continue;
        }
        let begin = Instant::now();
        taken.pieces.iter().for_each(begun);
        memory.score_all(&taken.pieces, |scored| queue.done(taken.units, scored.then(|| begin.elapsed())));
    }
}

/// Says that a piece is about to be scored.
fn begun(piece: &Part) {
    let Some(waited) = piece.waited else { return };
    metrics::histogram!("lately_rank_queue_seconds", "priority" => piece.priority.name())
        .record(waited.as_secs_f64());
    piece.load.begin(waited);
}

/// What a thread keeps from call to call.
pub(super) struct Memory {
    parts: Arc<PartCache>,
    batch: FeatureBatch,
    /// The person of each of its requests.
    persons: Vec<u64>,
    engine: EngineMemory,
}

impl Memory {
    pub(super) fn new(parts: Arc<PartCache>) -> Self {
        let (batch, persons, engine) = Default::default();
        Self { parts, batch, persons, engine }
    }

    /// Scores pieces of one model in one call; where that fails, each alone, so that nobody pays for another's
    /// features. `done` is told whether the one call was enough, before anybody has an answer: who then asks again must not
    /// find this call still in work.
    pub(super) fn score_all(&mut self, pieces: &[Part], done: impl FnOnce(bool)) {
        let rows: usize = pieces.iter().map(|p| p.rows.len()).sum();
        metrics::histogram!("lately_rank_batch_rows").record(rows as f64);
        metrics::histogram!("lately_rank_batch_requests").record(pieces.len() as f64);
        let error = match self.score(pieces) {
            Ok(logits) => {
                done(true);
                let mut at = 0;
                for piece in pieces {
                    let len = piece.rows.len() * piece.load.work.model.heads();
                    piece.load.finish(&piece.rows, Ok(&logits[at..at + len]));
                    at += len;
                }
                return;
            }
            Err(error) => error,
        };
        if let [piece] = pieces {
            done(false);
            return piece.load.fail(error);
        }
        metrics::counter!("lately_rank_batch_retries_total").increment(1);
        let mut alone = |piece: &Part| match piece.load.over() {
            Some(reason) => Err(reason),
            None => self.score(std::slice::from_ref(piece)),
        };
        let results: Vec<_> = pieces.iter().map(&mut alone).collect();
        done(false);
        for (piece, result) in pieces.iter().zip(&results) {
            piece.load.finish(&piece.rows, result.as_deref().map_err(ScoreError::clone));
        }
    }

    /// Logits of the pieces' rows, one after the other.
    fn score(&mut self, pieces: &[Part]) -> Result<Vec<f32>, ScoreError> {
        // A panic is a bug of the model; it must not take the thread with it.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let Self { parts, batch, persons, engine } = self;
            batch.clear();
            persons.clear();
            for Piece { load, rows, .. } in pieces {
                let work = &load.work;
                let candidates = work.candidates[rows.clone()].iter().map(Option::as_deref);
                let user = work.user.as_deref();
                persons.push(work.person);
                assemble(batch, &work.assembler, &work.context, user, &work.tokens, candidates);
            }
            let Some(piece) = pieces.first() else { return Ok(Vec::new()) };
            logits(&piece.load.work.model, batch, persons, parts, engine)
        }));
        result.unwrap_or_else(|_| {
            *self = Self::new(Arc::clone(&self.parts));
            Err(ScoreError::Model("it panicked".to_owned()))
        })
    }
}

/// **The** call of the model in the request path: rows x heads, all finite. A device is asked first; what it fails on, the CPU
/// answers.
fn logits(
    model: &LoadedModel,
    batch: &FeatureBatch,
    persons: &[u64],
    parts: &PartCache,
    memory: &mut EngineMemory,
) -> Result<Vec<f32>, ScoreError> {
    let Some(device) = model.accelerated() else { return on_cpu(model, batch, persons, parts, memory) };
    match device.score(batch) {
        Some(Ok(logits)) => Ok(logits),
        Some(Err(error)) => on_cpu(model, batch, persons, parts, memory).inspect(|_| device.failed(&error)),
        None => on_cpu(model, batch, persons, parts, memory),
    }
}

fn on_cpu(
    model: &LoadedModel,
    batch: &FeatureBatch,
    persons: &[u64],
    parts: &PartCache,
    memory: &mut EngineMemory,
) -> Result<Vec<f32>, ScoreError> {
    let engine = model.engine();
    let fallbacks = memory.fallbacks();
    let logits = if parts.holds_any() {
        let logits = engine.score_cached(batch, persons, parts, memory);
        let (hits, misses) = parts.counts();
        metrics::counter!("lately_rank_part_cache_total", "result" => "hit").absolute(hits);
        metrics::counter!("lately_rank_part_cache_total", "result" => "miss").absolute(misses);
        metrics::gauge!("lately_rank_part_cache_bytes").set(parts.bytes() as f64);
        logits
    } else {
        engine.score(batch, memory)
    };
    metrics::counter!("lately_rank_underflow_total").increment(memory.fallbacks() - fallbacks);
    let logits = logits.map_err(|e| ScoreError::Model(e.to_string()))?;
    if logits.len() != batch.rows() * model.heads() {
        return Err(ScoreError::Model(format!("it gave {} logits", logits.len())));
    }
    if !logits.iter().all(|x| x.is_finite()) {
        return Err(ScoreError::Model("a logit is not finite".to_owned()));
    }
    Ok(logits)
}
