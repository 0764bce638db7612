//! A thread that scores: one call of the model after the other, on memory that it keeps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use lately_features::{FeatureBatch, assemble};
use lately_model::{Precision, Scratch};

use super::gather::Request;
use super::line::Piece;
use super::{Queue, ScoreError};
use crate::model_slot::LoadedModel;

type Part = Piece<Arc<Request>>;

/// Scores until the line is closed and empty.
pub(super) fn run(queue: &Queue, precision: Precision) {
    let mut memory = Memory::new(precision);
    while let Some(taken) = queue.next() {
        taken.gone.into_iter().for_each(|(request, reason)| request.fail(reason));
        if taken.pieces.is_empty() {
            continue;
        }
        let begin = Instant::now();
        taken.pieces.iter().for_each(begun);
        let scored = memory.score_all(&taken.pieces);
        queue.done(taken.units, scored.then(|| begin.elapsed()));
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
    precision: Precision,
    batch: FeatureBatch,
    scratch: Scratch,
}

impl Memory {
    pub(super) fn new(precision: Precision) -> Self {
        Self { precision, batch: FeatureBatch::default(), scratch: Scratch::default().precision(precision) }
    }

    /// Scores pieces of one model in one call; where that fails, each alone, so that nobody pays for another's
    /// features. Returns whether the one call was enough.
    pub(super) fn score_all(&mut self, pieces: &[Part]) -> bool {
        let rows: usize = pieces.iter().map(|p| p.rows.len()).sum();
        metrics::histogram!("lately_rank_batch_rows").record(rows as f64);
        metrics::histogram!("lately_rank_batch_requests").record(pieces.len() as f64);
        let error = match self.score(pieces) {
            Ok(logits) => {
                let mut at = 0;
                for piece in pieces {
                    let len = piece.rows.len() * piece.load.work.model.heads();
                    piece.load.finish(&piece.rows, Ok(&logits[at..at + len]));
                    at += len;
                }
                return true;
            }
            Err(error) => error,
        };
        if let [piece] = pieces {
            piece.load.fail(error);
            return false;
        }
        metrics::counter!("lately_rank_batch_retries_total").increment(1);
        for piece in pieces {
            let result = match piece.load.over() {
                Some(reason) => Err(reason),
                None => self.score(std::slice::from_ref(piece)),
            };
            piece.load.finish(&piece.rows, result.as_deref().map_err(ScoreError::clone));
        }
        false
    }

    /// Logits of the pieces' rows, one after the other.
    fn score(&mut self, pieces: &[Part]) -> Result<Vec<f32>, ScoreError> {
        // A panic is a bug of the model; it must not take the thread with it.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let Self { batch, scratch, .. } = self;
            batch.clear();
            for Piece { load, rows, .. } in pieces {
                let work = &load.work;
                let candidates = work.candidates[rows.clone()].iter().map(Option::as_deref);
                let user = work.user.as_deref();
                assemble(batch, &work.assembler, &work.context, user, &work.tokens, candidates);
            }
            pieces.first().map_or_else(|| Ok(Vec::new()), |p| logits(&p.load.work.model, batch, scratch))
        }));
        result.unwrap_or_else(|_| {
            *self = Self::new(self.precision);
            Err(ScoreError::Model("it panicked".to_owned()))
        })
    }
}

/// **The** call of the model in the request path: rows x heads, all finite.
fn logits(model: &LoadedModel, batch: &FeatureBatch, scratch: &mut Scratch) -> Result<Vec<f32>, ScoreError> {
    let logits = model.model().score(batch, scratch).map_err(|e| ScoreError::Model(e.to_string()))?;
    if logits.len() != batch.rows() * model.heads() {
        return Err(ScoreError::Model(format!("it gave {} logits", logits.len())));
    }
    if !logits.iter().all(|x| x.is_finite()) {
        return Err(ScoreError::Model("a logit is not finite".to_owned()));
    }
    Ok(logits)
}
