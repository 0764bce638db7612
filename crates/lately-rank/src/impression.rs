//! What was served goes to the same log as what users do: training reads it from there.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use lately_features::{Event, Impression, ImpressionItem, UserId};
use lately_store::Store;

use crate::batcher::lock;
use crate::config::ImpressionMode;
use crate::experiment::impression_variant;
use crate::request::RankResponse;

/// Impressions of one append: one fsync.
const APPEND: usize = 256;

/// The record of a response.
pub(crate) fn impression(response: &RankResponse, surface: Option<String>) -> Impression {
    let item = |i: &crate::RankedItem| ImpressionItem {
        item: i.item.clone(),
        position: i.position,
        heads: i.heads.clone(),
        score: i.score,
    };
    Impression {
        request: response.request.clone(),
        user: response.user.clone(),
        surface,
        time_ms: response.time_ms,
        watermark: Some(response.watermark),
        items: response.items.iter().map(item).collect(),
        model: response.model.as_ref().map(|m| m.version.clone()),
        degraded: response.degraded.iter().map(|r| r.name().to_owned()).collect(),
        variant: impression_variant(response.variant, &response.exposures),
        embedding_version: response.model.as_ref().map(|m| m.embedding_version.clone()),
        propensities: response.propensities.clone(),
    }
}

/// Writes impressions, at once or by a thread of its own. Dropping it writes what still waits.
pub(crate) struct ImpressionLog {
    queue: Arc<Queue>,
    mode: ImpressionMode,
    thread: Option<JoinHandle<()>>,
}

struct Queue {
    store: Arc<Store>,
    limit_items: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Impression>,
    items: usize,
    writing: bool,
    closed: bool,
}

impl ImpressionLog {
    pub(crate) fn start(
        store: Arc<Store>,
        mode: ImpressionMode,
        limit_items: usize,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue { store, limit_items, state: Mutex::default(), changed: Condvar::new() });
        let its = queue.clone();
        let thread = match mode {
            ImpressionMode::BeforeAnswer => None,
            ImpressionMode::Async => {
                Some(std::thread::Builder::new().name("log-impressions".into()).spawn(move || its.run())?)
            }
        };
        Ok(Self { queue, mode, thread })
    }

    /// Logs one impression. Never fails a ranking: what cannot be logged is counted.
    pub(crate) fn log(&self, impression: Impression) {
        match self.mode {
            ImpressionMode::BeforeAnswer => self.queue.write(vec![impression]),
            ImpressionMode::Async => self.queue.push(impression),
        }
    }

    /// Waits until all that was logged before is written or counted as dropped.
    pub(crate) fn flush(&self) {
        let state = lock(&self.queue.state);
        let busy = |s: &mut State| !s.waiting.is_empty() || s.writing;
        drop(self.queue.changed.wait_while(state, busy).unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes a user's impressions out of the queue and waits for those in hand.
    pub(crate) fn forget(&self, user: &UserId) {
        let mut state = lock(&self.queue.state);
        state.waiting.retain(|i| i.user != *user);
        state.items = state.waiting.iter().map(|i| i.items.len()).sum();
        let writing = |s: &mut State| s.writing;
        drop(self.queue.changed.wait_while(state, writing).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for ImpressionLog {
    fn drop(&mut self) {
        lock(&self.queue.state).closed = true;
        self.queue.changed.notify_all();
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the thread that logs impressions panicked");
        }
    }
}

impl Queue {
    fn push(&self, impression: Impression) {
        let mut state = lock(&self.state);
        let items = impression.items.len();
        if !state.waiting.is_empty() && state.items + items > self.limit_items {
            drop(state);
            metrics::counter!("lately_impressions_total", "result" => "dropped").increment(1);
            return;
        }
        state.items += items;
        state.waiting.push_back(impression);
        drop(state);
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut state = lock(&self.state);
        loop {
            let idle = |s: &mut State| s.waiting.is_empty() && !s.closed;
            state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            if state.waiting.is_empty() {
                return;
            }
            let count = state.waiting.len().min(APPEND);
            let batch: Vec<_> = state.waiting.drain(..count).collect();
            state.items -= batch.iter().map(|i| i.items.len()).sum::<usize>();
            state.writing = true;
            drop(state);
            self.write(batch);
            state = lock(&self.state);
            state.writing = false;
            self.changed.notify_all();
        }
    }

    fn write(&self, impressions: Vec<Impression>) {
        let count = impressions.len() as u64;
        let result = match self.store.append(impressions.into_iter().map(Event::Impression).collect()) {
            Ok(_) => "logged",
            Err(error) => {
                tracing::error!(%error, count, "impressions are not logged: training will miss them");
                "dropped"
            }
        };
        metrics::counter!("lately_impressions_total", "result" => result).increment(count);
    }
}
