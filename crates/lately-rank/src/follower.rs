//! A thread that follows the log and keeps up what retrieval draws on; the guardrails see each record too.
//!
//! Following the log, instead of being told by whoever appends, counts each record once: repeats never reach it.

use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use lately_features::{ItemId, Schema};
use lately_store::{Store, StoreError};

use crate::batcher::lock;
use crate::guardrails::Guardrails;
use crate::retrieve::{Keeper, Popularity, RetrieveConfig, Snapshot, Topics};

/// Time between looks at the log.
const TICK: Duration = Duration::from_millis(100);
/// Least time between snapshots: to make one costs milliseconds for many items with a popularity.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);
/// Records read at once.
const PAGE: usize = 4_096;

pub(crate) struct Follower {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    store: Arc<Store>,
    guardrails: Arc<Guardrails>,
    popularity: RwLock<Popularity>,
    /// Lock order: after the cursor, before `popularity`.
    keeper: Mutex<Keeper>,
    snapshot: ArcSwap<Snapshot>,
    /// Offset of the next record to read.
    cursor: Mutex<u64>,
    stop: Mutex<bool>,
    stopped: Condvar,
}

impl Follower {
    pub(crate) fn start(
        store: Arc<Store>,
        schema: &Schema,
        topics: Topics,
        guardrails: Arc<Guardrails>,
        config: &RetrieveConfig,
    ) -> std::io::Result<Self> {
        let popularity = Popularity::new(schema, config.half_life_hours, config.popularity_items);
        let cursor = store.next_offset().saturating_sub(config.popularity_tail);
        let shared = Arc::new(Shared {
            store,
            guardrails,
            popularity: RwLock::new(popularity),
            keeper: Mutex::new(Keeper::new(schema, topics, config)),
            snapshot: ArcSwap::default(),
            cursor: Mutex::new(cursor),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        });
        let its = shared.clone();
        let thread = std::thread::Builder::new().name("follow-log".into()).spawn(move || its.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Decayed counts of positive actions, one a candidate.
    pub(crate) fn popularity<'a>(&self, items: impl Iterator<Item = &'a ItemId>, now_ms: i64) -> Vec<f32> {
        let popularity = self.shared.popularity.read().unwrap_or_else(|e| e.into_inner());
        items.map(|item| popularity.at(item, now_ms)).collect()
    }

    /// Catches up with the log now and makes a snapshot.
    pub(crate) fn refresh(&self) -> Result<(), StoreError> {
        self.shared.follow()?;
        self.shared.take_snapshot();
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        *lock(&self.shared.stop) = true;
        self.shared.stopped.notify_all();
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the thread that follows the log panicked");
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut failing = false;
        let (mut last, mut seen) = (None::<Instant>, u64::MAX);
        loop {
            let result = self.follow();
            if let Err(error) = &result {
                metrics::counter!("lately_follower_errors_total").increment(1);
                if !failing {
                    tracing::error!(%error, "cannot follow the log: popularity and guardrails stand still");
                }
            }
            failing = result.is_err();
            let cursor = *lock(&self.cursor);
            let news = cursor != seen || lock(&self.keeper).has_news();
            if news && last.is_none_or(|at| at.elapsed() >= SNAPSHOT_EVERY) {
                self.take_snapshot();
                (last, seen) = (Some(Instant::now()), cursor);
            }
            let stop = lock(&self.stop);
            let stop = self.stopped.wait_timeout_while(stop, TICK, |stop| !*stop);
            if *stop.unwrap_or_else(|e| e.into_inner()).0 {
                return;
            }
        }
    }

    /// Reads to the log's end.
    fn follow(&self) -> Result<(), StoreError> {
        let mut cursor = lock(&self.cursor);
        loop {
            // Taken first: what comes meanwhile is read next time.
            let end = self.store.next_offset();
            if *cursor >= end || *lock(&self.stop) {
                return Ok(());
            }
            let page = self.store.read(*cursor, PAGE)?;
            let mut keeper = lock(&self.keeper);
            page.iter().for_each(|(_, event)| keeper.observe(event));
            drop(keeper);
            let mut popularity = self.popularity.write().unwrap_or_else(|e| e.into_inner());
            page.iter().for_each(|(_, event)| popularity.observe(event));
            drop(popularity);
            page.iter().for_each(|(_, event)| self.guardrails.observe(event));
            *cursor = match page.last() {
                Some((offset, _)) => offset + 1,
                None => end, // forgotten records only
            };
        }
    }

    fn take_snapshot(&self) {
        let mut keeper = lock(&self.keeper);
        let popularity = self.popularity.read().unwrap_or_else(|e| e.into_inner());
        let snapshot = keeper.snapshot(&self.store, &popularity);
        drop(popularity);
        self.snapshot.store(Arc::new(snapshot));
    }
}
