//! One request: what it needs, and where its scored rows meet again.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Answer, ScoreError, Work, lock};

#[derive(Debug)]
pub(super) struct Request {
    pub(super) work: Arc<Work>,
    pub(super) deadline: Instant,
    /// Nobody waits any more.
    given_up: AtomicBool,
    state: Mutex<Gathered>,
    done: Condvar,
}

#[derive(Debug)]
struct Gathered {
    logits: Vec<f32>,
    rows_left: usize,
    waited: Duration,
    failure: Option<ScoreError>,
}

impl Request {
    pub(super) fn new(work: Arc<Work>, deadline: Instant) -> Self {
        let rows = work.candidates.len();
        let logits = vec![f32::NAN; rows * work.model.heads()];
        let state = Gathered { logits, rows_left: rows, waited: Duration::ZERO, failure: None };
        let (state, done) = (Mutex::new(state), Condvar::new());
        Self { work, deadline, given_up: AtomicBool::new(false), state, done }
    }

    /// Why its rows need not be scored, where that is so.
    pub(super) fn over(&self) -> Option<ScoreError> {
        let over = self.given_up.load(Ordering::Relaxed) || Instant::now() >= self.deadline;
        over.then_some(ScoreError::DeadlineExceeded)
    }

    /// Its first row is about to be scored.
    pub(super) fn begin(&self, waited: Duration) {
        lock(&self.state).waited = waited;
    }

    /// Some rows are scored, or all is lost; what comes first counts.
    pub(super) fn finish(&self, rows: &Range<usize>, result: Result<&[f32], ScoreError>) {
        let logits = match result {
            Ok(logits) => logits,
            Err(reason) => return self.fail(reason),
        };
        let (mut state, heads) = (lock(&self.state), self.work.model.heads());
        state.logits[rows.start * heads..rows.end * heads].copy_from_slice(logits);
        state.rows_left -= rows.len();
        if state.rows_left == 0 {
            self.done.notify_all();
        }
    }

    pub(super) fn fail(&self, reason: ScoreError) {
        self.given_up.store(true, Ordering::Relaxed);
        lock(&self.state).failure.get_or_insert(reason);
        self.done.notify_all();
    }

    /// Blocks until all rows are scored, something failed, or the deadline passes.
    pub(super) fn wait(&self) -> Result<Answer, ScoreError> {
        let mut state = lock(&self.state);
        loop {
            if let Some(failure) = state.failure.take() {
                return Err(failure);
            }
            if state.rows_left == 0 {
                // A thread may still hold the request, but it has no row of it left to write.
                let (logits, waited) = (std::mem::take(&mut state.logits), state.waited);
                return Ok(Answer { logits, waited });
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.given_up.store(true, Ordering::Relaxed);
                return Err(ScoreError::DeadlineExceeded);
            }
            state = self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
