//! The one thread that writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use fjall::UserValue;
use lately_features::{Event, UserId, codec};

use super::queue::Queue;
use super::{Answer, Done, Job, Shared, Ticket};
use crate::projector::{Changes, Effect, Prepared, Preparer, Projection, insert_entry, insert_hidden};
use crate::{StoreError, key, vocabulary};

struct Writer {
    shared: Arc<Shared>,
    queue: Arc<Queue<Ticket>>,
    preparer: Preparer,
    batch_events: usize,
}

/// Starts the thread; it ends when the queue is closed and empty.
pub(super) fn start(
    shared: Arc<Shared>,
    queue: Arc<Queue<Ticket>>,
    preparer: Preparer,
    batch_events: usize,
) -> Result<JoinHandle<()>, StoreError> {
    let writer = Writer { shared, queue, preparer, batch_events };
    let builder = std::thread::Builder::new().name("lately-log".into());
    builder.spawn(move || writer.run()).map_err(|e| StoreError::Thread(Arc::new(e)))
}

impl Drop for Writer {
    /// However the thread ends, nobody waits for it in vain.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop("the writer thread panicked");
        }
        self.queue.close();
        self.queue.clear();
    }
}

impl Writer {
    fn run(self) {
        let together = |a: &Ticket, b: &Ticket| matches!((&a.job, &b.job), (Job::Append(_), Job::Append(_)));
        while let Some(group) = self.queue.take(self.batch_events, together) {
            if let Some(why) = self.shared.stopped.get() {
                tell(group.into_iter().map(|t| t.answer), &Err(StoreError::Poisoned(why.clone())));
                continue;
            }
            self.work(group);
        }
    }

    fn work(&self, group: Vec<Ticket>) {
        let (mut appends, mut answers) = (Vec::new(), Vec::new());
        for Ticket { job, answer } in group {
            match job {
                Job::Append(events) => {
                    appends.push(events);
                    answers.push(answer);
                }
                // These come alone, by `together`.
                Job::Forget { user, record } => return tell([answer], &self.forget(&user, record)),
                Job::Rebuild => return tell([answer], &self.rebuild()),
            }
        }
        match self.append(appends) {
            Ok(done) => answers.into_iter().zip(done).for_each(|(answer, done)| tell([answer], &Ok(done))),
            Err(error) => tell(answers, &Err(error)),
        }
    }

    fn next(&self) -> u64 {
        // Only this thread changes it.
        self.shared.next.load(Ordering::Relaxed)
    }

    /// Writes several callers' events in one batch.
    fn append(&self, appends: Vec<Vec<Prepared>>) -> Result<Vec<Done>, StoreError> {
        let mut projection = Projection::new(&self.shared.engine, self.next());
        let mut done = Vec::with_capacity(appends.len());
        for events in appends {
            let (first_offset, total) = (projection.next(), events.len());
            for event in events {
                projection.add(event)?;
            }
            let count = (projection.next() - first_offset) as usize;
            done.push(Done { first_offset, count, duplicates: total - count, removed: 0 });
        }
        projection.trim(self.shared.sequences.take_beyond());
        let duplicates: usize = done.iter().map(|d| d.duplicates).sum();
        self.shared.duplicates.fetch_add(duplicates as u64, Ordering::Relaxed);
        self.commit(projection, |shared, changes| {
            for (user, entry) in changes.entries {
                shared.sequences.apply(&user, entry);
            }
            shared.entities.set_items(changes.items);
            shared.entities.set_users(changes.users);
        })?;
        Ok(done)
    }

    fn forget(&self, user: &UserId, record: UserValue) -> Answer {
        let mut projection = Projection::new(&self.shared.engine, self.next());
        let first_offset = projection.next();
        let removed = projection.scrub(user)?;
        projection.add(Prepared { record, effect: Effect::Forget { user: user.clone() } })?;
        self.commit(projection, |shared, _| {
            shared.sequences.remove(user);
            shared.entities.remove_user(user);
        })?;
        Ok(Done { first_offset, count: 1, duplicates: 0, removed })
    }

    /// Commits, brings the views up to date, then moves the watermark.
    fn commit(
        &self,
        projection: Projection<'_>,
        update: impl FnOnce(&Shared, Changes),
    ) -> Result<(), StoreError> {
        let next = projection.next();
        if next == self.next() {
            return Ok(()); // only duplicates: what they repeat is on disk already
        }
        let changes = projection.commit().map_err(|e| self.stop(&e.to_string()))?;
        update(&self.shared, changes);
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.next.store(next, Ordering::Release);
        Ok(())
    }

    /// Nothing is written after this.
    fn stop(&self, why: &str) -> StoreError {
        let why = self.shared.stopped.get_or_init(|| why.into());
        tracing::error!(%why, "the log stopped");
        StoreError::Poisoned(why.clone())
    }

    fn rebuild(&self) -> Answer {
        let (shared, engine) = (&self.shared, &self.shared.engine);
        let stop = |e: StoreError| self.stop(&e.to_string());
        vocabulary::mark_rebuilding(engine, true).map_err(stop)?;
        let mut batch = engine.batch();
        for keyspace in [&engine.sequences, &engine.hidden] {
            for guard in keyspace.iter() {
                batch.remove(keyspace, guard.key()?);
                if batch.len() >= self.batch_events {
                    engine.commit(std::mem::replace(&mut batch, engine.batch())).map_err(stop)?;
                }
            }
        }
        // What was hidden is written anew only where it is gone from disk.
        engine.commit(std::mem::replace(&mut batch, engine.batch())).map_err(stop)?;
        let mut count = 0;
        for guard in engine.log.iter() {
            let (key, value) = guard.into_inner()?;
            let offset =
                key::offset(&key).ok_or_else(|| crate::engine::damaged("a key of the log is no offset"))?;
            let place = || format!("log record {offset}");
            let Event::Action(action) = codec::decode(&value).map_err(StoreError::record(place()))? else {
                continue;
            };
            let entry = self
                .preparer
                .entry(&action)
                .map_err(|e| crate::engine::damaged(format!("{}: {e}", place())))?;
            if let Some(item) = self.preparer.hides(&action) {
                insert_hidden(engine, &mut batch, &action.user, item, offset)?;
            }
            if let Some(mut entry) = entry {
                entry.offset = offset;
                insert_entry(engine, &mut batch, &action.user, &entry)?;
                count += 1;
            }
            if batch.len() >= self.batch_events {
                engine.commit(std::mem::replace(&mut batch, engine.batch())).map_err(stop)?;
            }
        }
        engine.commit(batch).map_err(stop)?;
        vocabulary::mark_rebuilding(engine, false).map_err(stop)?;
        shared.sequences.clear();
        Ok(Done { first_offset: self.next(), count, duplicates: 0, removed: 0 })
    }
}

/// Answers; a caller that is gone has nothing to hear.
fn tell(answers: impl IntoIterator<Item = std::sync::mpsc::SyncSender<Answer>>, answer: &Answer) {
    for to in answers {
        let _gone = to.send(answer.clone());
    }
}
