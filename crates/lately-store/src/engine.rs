//! The embedded database and its keyspaces.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use crate::key;
use crate::{StoreError, StoreLimits};

/// Largest part of a keyspace that is in memory before it goes to a file, bytes. What is in memory is also what a
/// restart replays: a larger one makes imports little faster and restarts slower.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// Threads for flushes and compactions: the request path needs the other cores.
const WORKERS: usize = 2;
/// Key in `meta` of the offset that the next record gets.
const NEXT: &str = "next";

/// An open database.
pub(crate) struct Engine {
    db: Database,
    pub(crate) log: Keyspace,
    pub(crate) sequences: Keyspace,
    pub(crate) index: Keyspace,
    pub(crate) hidden: Keyspace,
    pub(crate) items: Keyspace,
    pub(crate) users: Keyspace,
    pub(crate) meta: Keyspace,
    /// Test hook: how many commits succeed before one fails.
    #[cfg(test)]
    pub(crate) commits_left: std::sync::atomic::AtomicU64,
}

impl Engine {
    pub(crate) fn open(dir: &Path, limits: &StoreLimits) -> Result<Self, StoreError> {
        crate::log::journal::check(dir)?;
        let db = Database::builder(dir)
            .cache_size(limits.block_cache_bytes)
            .max_journaling_size(limits.journal_bytes.max(64 << 20))
            .worker_threads(WORKERS)
            .open()
            .map_err(|e| match e {
                fjall::Error::Locked => StoreError::Locked(dir.to_owned()),
                e => e.into(),
            })?;
        let open =
            |name| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES));
        Ok(Self {
            log: open("log")?,
            sequences: open("sequences")?,
            index: open("index")?,
            hidden: open("hidden")?,
            items: open("items")?,
            users: open("users")?,
            meta: open("meta")?,
            #[cfg(test)]
            commits_left: std::sync::atomic::AtomicU64::new(u64::MAX),
            db,
        })
    }

    /// A batch whose commit returns only after fsync. The engine shows its content to readers after that, never
    /// before: nobody reads what a power cut could take back.
    pub(crate) fn batch(&self) -> OwnedWriteBatch {
        self.db.batch().durability(Some(PersistMode::SyncData))
    }

    pub(crate) fn commit(&self, batch: OwnedWriteBatch) -> Result<(), StoreError> {
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering::SeqCst;
            if self.commits_left.fetch_sub(1, SeqCst) == 0 {
                self.commits_left.store(0, SeqCst);
                return Err(fjall::Error::Io(std::io::Error::other("injected")).into());
            }
        }
        Ok(batch.commit()?)
    }

    pub(crate) fn set_next(&self, batch: &mut OwnedWriteBatch, next: u64) {
        batch.insert(&self.meta, NEXT, next.to_be_bytes());
    }

    /// The offset that the next record gets, checked against the last record.
    pub(crate) fn next(&self) -> Result<u64, StoreError> {
        let stored = match self.meta.get(NEXT)? {
            None => 0,
            Some(bytes) => key::offset(&bytes).ok_or_else(|| damaged("the next offset is not a number"))?,
        };
        let last = match self.log.last_key_value() {
            None => None,
            Some(guard) => {
                Some(key::offset(&guard.key()?).ok_or_else(|| damaged("a key of the log is no offset"))?)
            }
        };
        // Both are written in one batch, and a scrub appends a record: they can only differ by damage.
        if stored != last.map_or(0, |last| last + 1) {
            return Err(damaged(format!("the next offset is {stored}, the last record {last:?}")));
        }
        Ok(stored)
    }

    /// Bytes on disk, journals included.
    pub(crate) fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.db.disk_space()?)
    }
}

pub(crate) fn damaged(what: impl Into<std::sync::Arc<str>>) -> StoreError {
    StoreError::Damaged(what.into())
}
