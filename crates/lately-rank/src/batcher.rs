//! The CPU threads that score, and the line in front of them: who waits, for how long, and who is sent away.
//!
//! - **Unit of work**: a candidate's way through the model for one token. A row has [`ROW_UNITS`] more than its request
//!   has tokens. What a unit takes is measured ([`pace`]), and all estimates are made of it.
//! - **Bounded** is what waits: `queue_units` a thread, background requests to half of it. The caller waits, blocked,
//!   in [`Batcher::score`], at most until its deadline.
//! - **Order**: by arrival; [`Priority::Background`] only where nothing interactive waits. A request that is begun is
//!   finished first.
//! - **A call** ([`line`]) takes what is there, never waiting for more: requests of one model until it has `tile_rows`
//!   rows or `tile_units` units, would outlast a deadline in it, or has its share of what idle threads could take. A
//!   large request is so cut among the threads, and small ones go together. Scores do not depend on it. Where a call
//!   fails each of its requests is scored alone, and only those fail that do so by themselves ([`worker`]).
//! - **A model on a device** ([`crate::accelerated`]): the threads assemble the batch, hand it over and wait. Its requests are
//!   not cut, neither by `tile_rows` nor among idle threads: a call has up to 2,000 rows, whose scores all come from one
//!   place. While the device computes for one thread the others assemble the next calls, so two threads keep it busy and more
//!   only wait for it; what that makes a unit cost is measured as on the CPU.
//! - **Refused at once**, with the reason ([`Shed`]) and when to come again: `queue_full`; `late`, what by the estimate
//!   would not be done by its deadline; `standing`, while the queue stands ([`codel`]), what would wait longer than
//!   twice the target, and all background. **Refused later**: `displaced`, background that made room; `standing`, what
//!   did wait so long. First in, first out is kept in overload too: as nothing is let in that would wait long, newest
//!   first would only overtake what was let in.
//! - **Not refused** but [`ScoreError::DeadlineExceeded`], for which the ranker has another order: what would be late
//!   on idle threads too, and what is late or would be when its turn comes.

mod codel;
mod gather;
mod line;
mod pace;
mod worker;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lately_features::{Assembler, Features, RequestContext, Token};
use lately_model::PartCache;

use crate::config::RankConfig;
use crate::error::Shed;
use crate::model_slot::LoadedModel;
use crate::request::Priority;
use gather::Request;
use line::{Ask, Bounds, LEAST_ROWS, Line, Taken};

/// What a row costs beside its tokens, in tokens: of the paper's geometry 38 in f32 (38 us a row and 1.0 us a token) and 27 in
/// bf16, of the default one, whose layers above the encoder are narrow, about 5. What a unit takes is measured; this only
/// weighs short histories against long ones.
const ROW_UNITS: u64 = 24;

/// All that scoring one request needs.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) assembler: Arc<Assembler>,
    pub(crate) context: RequestContext,
    /// A number for the person, under which what their requests share is kept.
    pub(crate) person: u64,
    pub(crate) user: Option<Arc<Features>>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) candidates: Vec<Option<Arc<Features>>>,
    pub(crate) priority: Priority,
}

/// What a model gave.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Candidates x heads, in the order given.
    pub(crate) logits: Vec<f32>,
    /// Time until the first row was scored.
    pub(crate) waited: Duration,
}

/// Why there are no scores.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ScoreError {
    #[error("overloaded: {reason}")]
    Overloaded { reason: Shed, retry_after: Duration },
    #[error("the deadline passed")]
    DeadlineExceeded,
    #[error("the model failed: {0}")]
    Model(String),
    #[error("the threads are stopping")]
    Closed,
}

/// The threads and their line; dropping it waits for the calls in hand.
pub(crate) struct Batcher {
    queue: Arc<Queue>,
    /// What requests of a person share.
    parts: Arc<PartCache>,
    threads: Vec<JoinHandle<()>>,
}

struct Queue {
    line: Mutex<Line<Arc<Request>>>,
    filled: Condvar,
}

impl Batcher {
    /// Starts the threads.
    pub(crate) fn start(config: &RankConfig) -> std::io::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if config.threads == 0 { cores() } else { config.threads };
        let line = Line::new(Bounds {
            threads,
            units: config.queue_units.saturating_mul(threads as u64),
            tile_rows: config.tile_rows,
            tile_units: config.tile_units,
            target: Duration::from_millis(config.queue_target_ms),
            interval: Duration::from_millis(config.queue_interval_ms),
        });
        let queue = Queue { line: Mutex::new(line), filled: Condvar::new() };
        let parts = Arc::new(PartCache::new(config.part_cache_bytes));
        let mut batcher = Self { queue: Arc::new(queue), parts, threads: Vec::with_capacity(threads) };
        for i in 0..threads {
            let queue = batcher.queue.clone();
            let parts = Arc::clone(&batcher.parts);
            let thread = std::thread::Builder::new().name(format!("score-{i}"));
            batcher.threads.push(thread.spawn(move || worker::run(&queue, &parts))?);
        }
        Ok(batcher)
    }

    /// Blocks until the logits are there, the deadline passes, or the request is sent away.
    pub(crate) fn score(&self, work: &Arc<Work>, deadline: Instant) -> Result<Answer, ScoreError> {
        let now = Instant::now();
        if now >= deadline {
            return Err(ScoreError::DeadlineExceeded);
        }
        if work.candidates.is_empty() {
            return Ok(Answer::default());
        }
        let request = Arc::new(Request::new(Arc::clone(work), deadline));
        self.queue.submit(now, &request)?;
        let result = request.wait();
        if result.is_err() {
            self.queue.withdraw(&request);
        }
        result
    }
}

impl Batcher {
    /// Time until so many candidates of a request with so many tokens would be scored, were they asked for now; `None`
    /// before anything was scored.
    pub(crate) fn estimate(&self, rows: usize, tokens: usize) -> Option<Duration> {
        lock(&self.queue.line).estimate(rows as u64 * (ROW_UNITS + tokens as u64))
    }

    /// Whether nothing waits to be scored.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.queue.line).units() == [0, 0]
    }

    /// As if a unit of work took a thread so long.
    #[cfg(test)]
    pub(crate) fn pretend(&self, unit: Duration) {
        lock(&self.queue.line).pace.pretend(unit);
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        lock(&self.queue.line).closed = true;
        self.queue.filled.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a scoring thread panicked");
            }
        }
    }
}

impl Queue {
    fn submit(&self, now: Instant, request: &Arc<Request>) -> Result<(), ScoreError> {
        let work = &request.work;
        let ask = Ask {
            load: Arc::clone(request),
            model: Arc::as_ptr(&work.model) as usize,
            rows: work.candidates.len(),
            row_units: ROW_UNITS + work.tokens.len() as u64,
            priority: work.priority,
            since: now,
            deadline: request.deadline,
            whole: work.model.on_device(),
            taken: 0,
        };
        let (rows, mut gone) = (ask.rows, Vec::new());
        let mut line = lock(&self.line);
        let result = line.submit(now, ask, &mut gone);
        self.unlock(line);
        gone.into_iter().for_each(|(request, reason)| request.fail(reason));
        result?;
        (0..rows.div_ceil(LEAST_ROWS)).for_each(|_| self.filled.notify_one());
        Ok(())
    }

    /// Frees the place of a request for which nobody waits any more.
    fn withdraw(&self, request: &Arc<Request>) {
        let mut line = lock(&self.line);
        line.withdraw(|other| Arc::ptr_eq(other, request));
        self.unlock(line);
    }

    /// The next call of a thread, or requests to be told that there will be none; `None`: it is over.
    fn next(&self) -> Option<Taken<Arc<Request>>> {
        let mut line = lock(&self.line);
        loop {
            let taken = line.take(Instant::now());
            if !(taken.pieces.is_empty() && taken.gone.is_empty()) {
                self.unlock(line);
                return Some(taken);
            }
            if line.closed {
                return None;
            }
            line.idle += 1;
            line = self.filled.wait(line).unwrap_or_else(PoisonError::into_inner);
            line.idle -= 1;
        }
    }

    fn done(&self, units: u64, took: Option<Duration>) {
        let mut line = lock(&self.line);
        line.done(units, took);
        metrics::gauge!("lately_rank_unit_seconds").set(line.pace.unit_seconds());
    }

    fn unlock(&self, line: MutexGuard<'_, Line<Arc<Request>>>) {
        let [interactive, background] = line.units();
        drop(line);
        metrics::gauge!("lately_rank_queue_units", "priority" => "interactive").set(interactive as f64);
        metrics::gauge!("lately_rank_queue_units", "priority" => "background").set(background as f64);
    }
}

/// A panic while a lock was held leaves counters and queues that are still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
