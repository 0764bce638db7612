//! The CPU threads that score. A fixed number of them, a bounded queue in front, and a deadline for each request.
//!
//! The candidates of one request are cut into tiles, so that all threads share a large request and a passed deadline
//! is noticed between tiles. A tile holds candidates of one request only: a score depends on nothing else.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lately_features::{Assembler, FeatureBatch, Features, RequestContext, Token, assemble};
use lately_model::EngineMemory;

use crate::estimate::{Estimate, cost};
use crate::model_slot::LoadedModel;

/// All that scoring one request needs.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) assembler: Arc<Assembler>,
    pub(crate) context: RequestContext,
    pub(crate) user: Option<Arc<Features>>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) candidates: Vec<Option<Arc<Features>>>,
}

/// Why there are no scores.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ScoreError {
    #[error("{waiting} tiles wait, the limit is {limit}")]
    Overloaded { waiting: usize, limit: usize },
    #[error("the deadline passed")]
    DeadlineExceeded,
    #[error("the model failed: {0}")]
    Model(String),
    #[error("the threads are stopping")]
    Closed,
}

/// One tile.
struct Job {
    work: Arc<Work>,
    gather: Arc<Gather>,
    rows: Range<usize>,
}

/// Where the tiles of one request meet again.
struct Gather {
    deadline: Instant,
    /// Nobody waits any more.
    given_up: AtomicBool,
    state: Mutex<Gathered>,
    done: Condvar,
}

struct Gathered {
    logits: Vec<f32>,
    tiles_left: usize,
    failure: Option<ScoreError>,
}

struct Queue {
    jobs: Mutex<Jobs>,
    filled: Condvar,
    limit: usize,
    estimate: Estimate,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

/// The threads and their queue; dropping it waits for the tiles in hand.
pub(crate) struct Batcher {
    queue: Arc<Queue>,
    tile_rows: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Batcher {
    /// Starts `threads` threads (0: one a core) that score.
    pub(crate) fn start(threads: usize, queue_tiles: usize, tile_rows: usize) -> std::io::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if threads == 0 { cores() } else { threads };
        let (jobs, filled, estimate) = Default::default();
        let queue = Queue { jobs, filled, limit: queue_tiles, estimate };
        let mut batcher = Self { queue: Arc::new(queue), tile_rows, threads: Vec::with_capacity(threads) };
        for i in 0..threads {
            let queue = batcher.queue.clone();
            let thread = std::thread::Builder::new().name(format!("score-{i}"));
            batcher.threads.push(thread.spawn(move || queue.work())?);
        }
        Ok(batcher)
    }

    /// Logits, candidates x heads in the order given. Blocks until they are there or the deadline passes.
    pub(crate) fn score(&self, work: &Arc<Work>, deadline: Instant) -> Result<Vec<f32>, ScoreError> {
        if Instant::now() >= deadline {
            return Err(ScoreError::DeadlineExceeded);
        }
        let rows = work.candidates.len();
        // Small requests are shared out too, but a tile of a few rows repeats the user's part for nothing.
        let size = rows.div_ceil(self.threads.len().max(1)).clamp(16, self.tile_rows.max(16));
        let tiles = rows.div_ceil(size);
        let gather = Arc::new(Gather {
            deadline,
            given_up: AtomicBool::new(false),
            state: Mutex::new(Gathered {
                logits: vec![f32::NAN; rows * work.model.heads()],
                tiles_left: tiles,
                failure: None,
            }),
            done: Condvar::new(),
        });
        let job =
            |i| Job { work: work.clone(), gather: gather.clone(), rows: i * size..rows.min((i + 1) * size) };
        self.queue.admit((0..tiles).map(job), tiles)?;
        let result = gather.wait();
        if result.is_err() {
            self.queue.withdraw(&gather);
        }
        result
    }

    /// Time until so many candidates of a request with so many tokens would be scored, were they asked for now; `None`
    /// before anything was scored.
    pub(crate) fn estimate(&self, rows: usize, tokens: usize) -> Option<Duration> {
        let before: f64 = lock(&self.queue.jobs).waiting.iter().map(Job::cost).sum();
        let seconds = (before + cost(rows, tokens)) * self.queue.estimate.seconds()?;
        Some(Duration::from_secs_f64(seconds / self.threads.len().max(1) as f64))
    }

    /// As if a unit of [`cost`] had taken so long.
    #[cfg(test)]
    pub(crate) fn pretend(&self, unit: Duration) {
        self.queue.estimate.pretend(unit);
    }

    /// Whether nothing waits to be scored.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.queue.jobs).waiting.is_empty()
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        lock(&self.queue.jobs).closed = true;
        self.queue.filled.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a scoring thread panicked");
            }
        }
    }
}

impl Queue {
    /// All tiles or none. A request with more tiles than the queue holds is let in where nothing waits.
    fn admit(&self, jobs: impl Iterator<Item = Job>, tiles: usize) -> Result<(), ScoreError> {
        let mut state = lock(&self.jobs);
        let waiting = state.waiting.len();
        if state.closed {
            return Err(ScoreError::Closed);
        }
        if waiting > 0 && waiting + tiles > self.limit {
            return Err(ScoreError::Overloaded { waiting, limit: self.limit });
        }
        state.waiting.extend(jobs);
        metrics::gauge!("lately_rank_queue_tiles").set(state.waiting.len() as f64);
        drop(state);
        self.filled.notify_all();
        Ok(())
    }

    /// Frees the places of tiles for which nobody waits any more.
    fn withdraw(&self, gather: &Arc<Gather>) {
        let mut state = lock(&self.jobs);
        state.waiting.retain(|job| !Arc::ptr_eq(&job.gather, gather));
        metrics::gauge!("lately_rank_queue_tiles").set(state.waiting.len() as f64);
    }

    fn next(&self) -> Option<Job> {
        let mut state = lock(&self.jobs);
        loop {
            if let Some(job) = state.waiting.pop_front() {
                metrics::gauge!("lately_rank_queue_tiles").set(state.waiting.len() as f64);
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        let (mut batch, mut memory) = <(FeatureBatch, EngineMemory)>::default();
        while let Some(job) = self.next() {
            if job.gather.given_up.load(Ordering::Relaxed) {
                continue;
            }
            if Instant::now() >= job.gather.deadline {
                job.gather.finish(&job.rows, 0, Err(ScoreError::DeadlineExceeded));
                continue;
            }
            let start = Instant::now();
            // A panic is a bug of the model; it must not take the thread with it.
            let result = catch_unwind(AssertUnwindSafe(|| job.score(&mut batch, &mut memory)));
            let result = result.unwrap_or_else(|_| {
                (batch, memory) = Default::default();
                Err(ScoreError::Model("it panicked".to_owned()))
            });
            if result.is_ok() {
                self.estimate.learn(job.cost(), start.elapsed());
            }
            job.gather.finish(&job.rows, job.work.model.heads(), result);
        }
    }
}

impl Job {
    fn cost(&self) -> f64 {
        cost(self.rows.len(), self.work.tokens.len())
    }

    fn score(&self, batch: &mut FeatureBatch, memory: &mut EngineMemory) -> Result<Vec<f32>, ScoreError> {
        let work = &*self.work;
        batch.clear();
        let candidates = work.candidates[self.rows.clone()].iter().map(Option::as_deref);
        assemble(batch, &work.assembler, &work.context, work.user.as_deref(), &work.tokens, candidates);
        let logits =
            work.model.engine().score(batch, memory).map_err(|e| ScoreError::Model(e.to_string()))?;
        if logits.len() != self.rows.len() * work.model.heads() {
            return Err(ScoreError::Model(format!("it gave {} logits", logits.len())));
        }
        if !logits.iter().all(|x| x.is_finite()) {
            return Err(ScoreError::Model("a logit is not finite".to_owned()));
        }
        Ok(logits)
    }
}

impl Gather {
    fn finish(&self, rows: &Range<usize>, heads: usize, result: Result<Vec<f32>, ScoreError>) {
        let mut state = lock(&self.state);
        state.tiles_left -= 1;
        match result {
            Ok(logits) => state.logits[rows.start * heads..rows.end * heads].copy_from_slice(&logits),
            Err(e) => {
                self.given_up.store(true, Ordering::Relaxed);
                state.failure.get_or_insert(e);
            }
        }
        if state.tiles_left == 0 || state.failure.is_some() {
            self.done.notify_all();
        }
    }

    fn wait(&self) -> Result<Vec<f32>, ScoreError> {
        let mut state = lock(&self.state);
        loop {
            if let Some(failure) = state.failure.take() {
                return Err(failure);
            }
            if state.tiles_left == 0 {
                return Ok(std::mem::take(&mut state.logits));
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

/// A panic while a lock was held leaves counters and queues that are still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
