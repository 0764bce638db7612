//! The durable log: where every event goes first, and what everything else follows from.
//!
//! # The promise
//! - An append that returned `Ok` is on disk, after fsync, with all that follows from it: after any crash it is
//!   there (acked is readable), and nothing is there that was not sent (readable was sent).
//! - A record never changes its offset; offsets count up by one; they are never used twice.
//! - After a failed write or fsync nothing is acknowledged any more. A second fsync after a failed one may succeed
//!   though the pages were dropped, so it is never tried: the log stops, and a restart reads what is really there.
//!
//! # How
//! One thread writes. Callers prepare their events, queue them and wait. The writer takes all that waits, up to
//! [`StoreLimits::batch_events`](crate::StoreLimits), into one write batch, which the engine makes durable by one fsync (group commit): while it
//! runs, the next group gathers, so the fsync's price is shared by as many callers as there are, and a lone caller
//! waits for nobody. Then it brings the views in memory up to date, moves the watermark, and answers.
//!
//! The queue is bounded: when it is full, callers wait for a bounded time and are then refused, so that overload
//! is an answer and not growth.

pub(crate) mod journal;
mod queue;
mod writer;

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::UserValue;
use lately_features::{Event, UserId};

use crate::engine::Engine;
use crate::entities::Entities;
use crate::projector::{Effect, Prepared, Preparer};
use crate::sequence_cache::SequenceCache;
use crate::{Appended, StoreError, StoreLimits};
use queue::Queue;

/// What the writer changes and readers read.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) entities: Entities,
    pub(crate) sequences: SequenceCache,
    /// The watermark: set last, after disk and views.
    pub(crate) next: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    /// Why the log stopped.
    pub(crate) stopped: OnceLock<Arc<str>>,
}

impl Shared {
    pub(crate) fn new(engine: Engine, entities: Entities, sequences: SequenceCache, next: u64) -> Self {
        let (commits, duplicates) = (AtomicU64::new(0), AtomicU64::new(0));
        let stopped = OnceLock::new();
        Self { engine, entities, sequences, next: AtomicU64::new(next), commits, duplicates, stopped }
    }
}

/// Work for the writer.
pub(crate) enum Job {
    Append(Vec<Prepared>),
    Forget { user: UserId, record: UserValue },
    Rebuild,
}

/// What the writer answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    first_offset: u64,
    /// Records (append) or entries (rebuild) written.
    count: usize,
    duplicates: usize,
    /// Records that a forget removed.
    removed: u64,
}

type Answer = Result<Done, StoreError>;

/// A job and who waits for it.
pub(crate) struct Ticket {
    job: Job,
    answer: SyncSender<Answer>,
}

/// The front of the log: queues jobs for its writer thread, which ends with it.
pub(crate) struct Log {
    shared: Arc<Shared>,
    queue: Arc<Queue<Ticket>>,
    writer: Option<JoinHandle<()>>,
    limits: StoreLimits,
}

impl Log {
    pub(crate) fn start(
        shared: Arc<Shared>,
        preparer: Preparer,
        limits: StoreLimits,
    ) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::new(limits.queue_events.max(1)));
        let writer = writer::start(shared.clone(), queue.clone(), preparer, limits.batch_events.max(1))?;
        Ok(Self { shared, queue, writer: Some(writer), limits })
    }

    /// See [`Store::append`](crate::Store::append).
    pub(crate) fn append(&self, preparer: &Preparer, events: Vec<Event>) -> Result<Appended, StoreError> {
        self.check()?;
        let prepared = events.into_iter().enumerate().map(|(i, e)| preparer.prepare(&e, i));
        let jobs = cut(prepared.collect::<Result<_, _>>()?, self.limits.batch_events.max(1));
        let mut total: Option<Appended> = None;
        let mut add = |done: Done| {
            let empty = Appended { first_offset: done.first_offset, count: 0, duplicates: 0 };
            let total = total.get_or_insert(empty);
            total.count += done.count;
            total.duplicates += done.duplicates;
        };
        // One job ahead: the writer always finds work, and one caller does not fill the queue.
        let mut ahead: Option<Receiver<Answer>> = None;
        for job in jobs {
            let answer = self.submit(job)?;
            if let Some(before) = ahead.replace(answer) {
                add(self.wait(&before)?);
            }
        }
        if let Some(last) = ahead {
            add(self.wait(&last)?);
        }
        let next = || self.shared.next.load(std::sync::atomic::Ordering::Acquire);
        Ok(total.unwrap_or_else(|| Appended { first_offset: next(), count: 0, duplicates: 0 }))
    }

    /// See [`Store::forget`](crate::Store::forget).
    pub(crate) fn forget(&self, preparer: &Preparer, event: &Event) -> Result<u64, StoreError> {
        self.check()?;
        let mut removed = 0;
        for job in cut(vec![preparer.prepare(event, 0)?], 1) {
            removed += self.wait(&self.submit(job)?)?.removed;
        }
        Ok(removed)
    }

    /// See [`Store::rebuild_sequences`](crate::Store::rebuild_sequences).
    pub(crate) fn rebuild(&self) -> Result<u64, StoreError> {
        self.check()?;
        Ok(self.wait(&self.submit(Job::Rebuild)?)?.count as u64)
    }

    pub(crate) fn queued_events(&self) -> usize {
        self.queue.weight()
    }

    fn check(&self) -> Result<(), StoreError> {
        self.shared.stopped.get().map_or(Ok(()), |why| Err(StoreError::Poisoned(why.clone())))
    }

    fn submit(&self, job: Job) -> Result<Receiver<Answer>, StoreError> {
        let weight = if let Job::Append(events) = &job { events.len() } else { 1 };
        let (answer, receiver) = sync_channel(1);
        let wait = Duration::from_millis(self.limits.queue_wait_ms);
        match self.queue.push(Ticket { job, answer }, weight, wait) {
            Err(StoreError::Closed) => self.check().and(Err(StoreError::Closed)),
            other => other.map(|()| receiver),
        }
    }

    fn wait(&self, answer: &Receiver<Answer>) -> Answer {
        // Without an answer the writer has ended; it left its reason, if there is one.
        answer.recv().unwrap_or_else(|_| self.check().and(Err(StoreError::Closed)))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the log's writer thread panicked");
        }
    }
}

/// Cuts events into jobs: at most `most` each, a forget alone, as it must see all that came before it on disk.
fn cut(events: Vec<Prepared>, most: usize) -> Vec<Job> {
    let (mut jobs, mut open) = (Vec::new(), Vec::new());
    for event in events {
        if let Effect::Forget { user } = event.effect {
            if !open.is_empty() {
                jobs.push(Job::Append(std::mem::take(&mut open)));
            }
            jobs.push(Job::Forget { user, record: event.record });
            continue;
        }
        open.push(event);
        if open.len() == most {
            jobs.push(Job::Append(std::mem::take(&mut open)));
        }
    }
    if !open.is_empty() {
        jobs.push(Job::Append(open));
    }
    jobs
}

#[cfg(test)]
mod tests;
