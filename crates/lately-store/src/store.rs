//! What callers use: append, and read what follows from the log.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use lately_features::codec;
use lately_features::event::Forget;
use lately_features::{Event, Features, ItemId, ItemVectors, Schema, UserId, UserSequence};

use crate::engine::Engine;
use crate::entities::Entities;
use crate::log::{Log, Shared};
use crate::projector::Preparer;
use crate::sequence_cache::SequenceCache;
use crate::{StoreError, StoreLimits, key, vocabulary};

/// What an append wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first new record; the next offset where there was none.
    pub first_offset: u64,
    /// New records.
    pub count: usize,
    /// Actions whose event id, and impressions whose request id, that user had sent before: not written again.
    pub duplicates: usize,
}

/// Counts for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Offset of the next record: events that were ever appended.
    pub next_offset: u64,
    /// Repeated events since the store was opened.
    pub duplicates: u64,
    /// Atomic batches, each one fsync, since the store was opened.
    pub commits: u64,
    /// Events that wait in front of the log now.
    pub queued_events: usize,
    /// Known items.
    pub items: usize,
    /// Known users with features.
    pub users: usize,
    /// Items and users of which a stored value no longer fits the schema, counted when the store was opened.
    pub unfit: usize,
    /// Users whose sequence is in memory.
    pub cached_users: usize,
    /// Memory of those sequences, bytes, estimated.
    pub cached_bytes: u64,
    /// Sequence reads that memory answered, and that it did not.
    pub cache_hits: u64,
    /// See `cache_hits`.
    pub cache_misses: u64,
    /// Size on disk, bytes.
    pub disk_bytes: u64,
}

/// The store. Share it by `Arc`; every method takes `&self` and may be called from any thread. All methods block:
/// call them on a thread that may.
pub struct Store {
    preparer: Preparer,
    shared: Arc<Shared>,
    log: Log,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("next_offset", &self.next_offset()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in a directory of its own, which is made where it is missing.
    ///
    /// Reads all items and users into memory. If the schema changed what a stored sequence means (a surface moved, an
    /// action type joined or left the sequence, the cap was raised), the sequences are first rebuilt from the log.
    ///
    /// # Errors
    /// [`StoreError::Locked`] where another process has it open; [`StoreError::Vocabulary`] where the schema's action
    /// types do not continue the stored ones; [`StoreError::Damaged`], [`StoreError::Record`] or
    /// [`StoreError::Engine`] where files are unreadable.
    pub fn open(dir: &Path, schema: Arc<Schema>, limits: StoreLimits) -> Result<Self, StoreError> {
        Self::open_with_vectors(dir, schema, limits, None)
    }

    /// As [`Store::open`]; `item` and `active_items` then show items with their vectors of a table.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with_vectors(
        dir: &Path,
        schema: Arc<Schema>,
        limits: StoreLimits,
        vectors: Option<Arc<ItemVectors>>,
    ) -> Result<Self, StoreError> {
        let start = Instant::now();
        let engine = Engine::open(dir, &limits)?;
        let next = engine.next()?;
        let change = vocabulary::check(&engine, &schema)?;
        let entities = Entities::load(&engine, &schema, vectors.as_deref())?;
        let cap = usize::from(schema.sequence.stored);
        let sequences = SequenceCache::new(limits.sequence_cache_bytes, cap);
        let shared = Arc::new(Shared::new(engine, entities, sequences, next));
        let preparer = Preparer::new(schema, vectors);
        let log = Log::start(shared.clone(), preparer.clone(), limits)?;
        let store = Self { preparer, shared, log };
        if change.rebuild {
            tracing::info!(
                "what is kept of people is not as the schema has it: making it again from the log"
            );
            store.rebuild_sequences()?;
        }
        vocabulary::save(&store.shared.engine, &store.preparer.schema)?;
        tracing::info!(next_offset = next, seconds = start.elapsed().as_secs_f64(), "the store is open");
        Ok(store)
    }

    /// Writes events and returns after they are on disk; `sequence`, `item`, `user` and `read` then show them.
    ///
    /// An append of at most [`StoreLimits::batch_events`] events without a [`Event::Forget`] is atomic, and its
    /// records have contiguous offsets. A longer one is cut into such batches, which are atomic each; other
    /// callers' batches may fall between. After an error a prefix of the batches may be there; to append the same
    /// again is safe, as ids count once and entities are replaced by themselves.
    ///
    /// An entity's features are those of its last record in log order, not in event time: a caller reads what it
    /// wrote, also when its clock was wrong before.
    ///
    /// # Errors
    /// [`StoreError::Refused`] before anything is written, where an event names what the schema does not have;
    /// [`StoreError::Overloaded`] where the queue stays full; [`StoreError::Poisoned`] after a failed write, for
    /// good; [`StoreError::Engine`] where a read failed.
    pub fn append(&self, events: Vec<Event>) -> Result<Appended, StoreError> {
        self.log.append(&self.preparer, events)
    }

    /// The watermark: all records with an offset below it are in every view. Take it before the views are read, then
    /// pass it to [`lately_features::tokens`], which leaves out what came later.
    pub fn next_offset(&self) -> u64 {
        self.shared.next.load(Ordering::Acquire)
    }

    /// At most `max` records from the offset `from` on, in log order. Offsets of forgotten records are missing.
    ///
    /// # Errors
    /// [`StoreError::Engine`], [`StoreError::Record`] where a record is unreadable.
    pub fn read(&self, from: u64, max: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        self.shared.read(from, max)
    }

    /// A user's latest actions; empty for an unknown user. From memory where the user was read lately.
    ///
    /// # Errors
    /// [`StoreError::Engine`], [`StoreError::Record`] where an entry is unreadable.
    pub fn sequence(&self, user: &UserId) -> Result<Arc<UserSequence>, StoreError> {
        self.shared.sequences.get(&self.shared.engine, user)
    }

    /// Items on which a user ever did something negative, as known below the watermark: they are not to be shown again.
    /// Unlike the sequence this has no cap, and knows actions that do not feed it. About 10 us for a few of them.
    ///
    /// # Errors
    /// [`StoreError::Engine`], [`StoreError::Damaged`] where an entry is unreadable.
    pub fn hidden(&self, user: &UserId, watermark: u64) -> Result<HashSet<ItemId>, StoreError> {
        let mut hidden = HashSet::new();
        for guard in self.shared.engine.hidden.prefix(key::user(user)) {
            let (key, value) = guard.into_inner()?;
            let (Some(item), Some(offset)) = (key::hidden_item(user, &key), key::offset(&value)) else {
                return Err(crate::engine::damaged(format!("a hidden item of `{user}`")));
            };
            if offset < watermark {
                hidden.insert(item);
            }
        }
        Ok(hidden)
    }

    /// An item's features, active or not.
    pub fn item(&self, item: &ItemId) -> Option<Arc<Features>> {
        self.shared.entities.item(item)
    }

    /// An item's features, where it is active.
    pub fn active_item(&self, item: &ItemId) -> Option<Arc<Features>> {
        self.shared.entities.active_item(item)
    }

    /// A user's features.
    pub fn user(&self, user: &UserId) -> Option<Arc<Features>> {
        self.shared.entities.user(user)
    }

    /// All active items, by id, for retrieval. The same `Arc` until an item changes; then made again in
    /// O(items log items).
    pub fn active_items(&self) -> Arc<Vec<(ItemId, Arc<Features>)>> {
        self.shared.entities.active_items()
    }

    /// Removes a user: sequence, features and all log records, then appends an [`Event::Forget`]. Returns how many
    /// records were removed. Their offsets stay unused. Event ids of before are forgotten too.
    ///
    /// The records are unreadable at once; their bytes leave the disk when the engine compacts its files.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn forget(&self, user: &UserId, now_ms: i64) -> Result<u64, StoreError> {
        let event = Event::Forget(Forget { user: user.clone(), time_ms: now_ms });
        self.log.forget(&self.preparer, &event)
    }

    /// Makes all sequences again from the log; returns the number of entries. Appends wait meanwhile; a sequence
    /// that is read meanwhile may be incomplete. A crash in the midst is made good at the next open.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn rebuild_sequences(&self) -> Result<u64, StoreError> {
        self.log.rebuild()
    }

    /// The schema that the store was opened with.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.preparer.schema
    }

    /// The item vectors that the store was opened with.
    pub fn item_vectors(&self) -> Option<&Arc<ItemVectors>> {
        self.preparer.vectors.as_ref()
    }

    /// Counts for metrics.
    ///
    /// # Errors
    /// [`StoreError::Engine`] where the size on disk cannot be read.
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let (entities, cache) = (self.shared.entities.counts(), self.shared.sequences.counts());
        Ok(StoreStats {
            next_offset: self.next_offset(),
            duplicates: self.shared.duplicates.load(Ordering::Relaxed),
            commits: self.shared.commits.load(Ordering::Relaxed),
            queued_events: self.log.queued_events(),
            items: entities.items,
            users: entities.users,
            unfit: entities.unfit,
            cached_users: cache.users,
            cached_bytes: cache.bytes,
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            disk_bytes: self.shared.engine.disk_bytes()?,
        })
    }
}

impl Shared {
    fn read(&self, from: u64, max: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        // Up to the watermark only: the engine shows a batch a moment before the views do.
        let end = self.next.load(Ordering::Acquire);
        if from >= end {
            return Ok(Vec::new());
        }
        let decode = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner()?;
            let offset =
                key::offset(&key).ok_or_else(|| crate::engine::damaged("a key of the log is no offset"))?;
            let event = codec::decode(&value).map_err(StoreError::record(format!("log record {offset}")))?;
            Ok((offset, event))
        };
        self.engine.log.range(from.to_be_bytes()..end.to_be_bytes()).take(max).map(decode).collect()
    }
}
