//! Sequences of users who were read lately, in memory; the rest are read from disk when asked for.
//!
//! A read of 100 entries from the engine takes about 50 us, from here about 1 us. Only reads fill the cache: an
//! import of millions of events leaves it alone.
//!
//! Why a read never shows an older state than an acknowledged append: a reader fills the cache, and the writer
//! updates it, under the lock of the user's stripe, and the writer does so after its commit. If the reader scanned
//! the disk before the commit, the writer then finds the cached sequence and applies the entry; if after, the entry
//! is there already, and `apply` counts it once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fjall::UserKey;
use lately_features::{SequenceEntry, UserId, UserSequence, codec};
use quick_cache::{Weighter, sync::Cache};

use crate::StoreError;
use crate::engine::Engine;
use crate::key;

/// Locks over users; more than threads that would wait.
const STRIPES: usize = 64;
/// Most entries beyond the cap that one read hands over for removal, and most that wait for it.
const TRIM: usize = 1_024;
const TRIM_WAITING: usize = 65_536;
/// Memory of an entry besides its item's text, and of a sequence besides its entries, bytes.
const ENTRY_BYTES: usize = size_of::<SequenceEntry>() + 16;
const SEQUENCE_BYTES: usize = 128;

#[derive(Clone)]
struct Bytes;

impl Weighter<UserId, Arc<UserSequence>> for Bytes {
    fn weight(&self, user: &UserId, sequence: &Arc<UserSequence>) -> u64 {
        // The ids' texts are counted at a typical length: the weight is asked for often and must be cheap.
        (SEQUENCE_BYTES + user.as_str().len() + sequence.entries().len() * (ENTRY_BYTES + 16)) as u64
    }
}

pub(crate) struct SequenceCache {
    cache: Cache<UserId, Arc<UserSequence>, Bytes>,
    stripes: Box<[Mutex<()>]>,
    cap: usize,
    /// Keys of entries beyond the cap, which the writer removes with its next batch: it alone writes.
    beyond: Mutex<Vec<UserKey>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// State of the cache.
pub(crate) struct Counts {
    pub(crate) users: usize,
    pub(crate) bytes: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

impl SequenceCache {
    /// For sequences of at most `cap` entries, in at most `bytes` of memory.
    pub(crate) fn new(bytes: u64, cap: usize) -> Self {
        let typical = (SEQUENCE_BYTES + cap * ENTRY_BYTES) as u64;
        let users = usize::try_from(bytes / typical).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        let cache = Cache::with_weighter(users, bytes, Bytes);
        let beyond = Mutex::new(Vec::new());
        Self { cache, stripes, cap, beyond, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    fn stripe(&self, user: &UserId) -> MutexGuard<'_, ()> {
        let at = user.hash64() as usize % self.stripes.len();
        self.stripes[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, engine: &Engine, user: &UserId) -> Result<Arc<UserSequence>, StoreError> {
        if let Some(sequence) = self.cache.get(user) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(sequence);
        }
        let stripe = self.stripe(user);
        if let Some(sequence) = self.cache.peek(user) {
            return Ok(sequence); // another reader filled it, or the writer was updating it
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let (sequence, beyond) = load(engine, user, self.cap)?;
        let sequence = Arc::new(sequence);
        let mut waiting = self.beyond.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < TRIM_WAITING {
            waiting.extend(beyond);
        }
        drop(waiting);
        self.cache.insert(user.clone(), sequence.clone());
        drop(stripe);
        Ok(sequence)
    }

    /// Applies a committed entry where the user is cached.
    pub(crate) fn apply(&self, user: &UserId, entry: SequenceEntry) {
        let _stripe = self.stripe(user);
        // Taken out, it is ours alone, unless a ranking holds it: then it is copied and that ranking keeps its own.
        if let Some((user, mut sequence)) = self.cache.remove(user) {
            Arc::make_mut(&mut sequence).apply(entry, self.cap);
            self.cache.insert(user, sequence);
        }
    }

    /// Keys of entries that no sequence shows any more. Those that are not removed are found again by a later read.
    pub(crate) fn take_beyond(&self) -> Vec<UserKey> {
        std::mem::take(&mut self.beyond.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn remove(&self, user: &UserId) {
        let _stripe = self.stripe(user);
        self.cache.remove(user);
    }

    /// Drops all, also what readers are about to fill in: their stripes are waited for.
    pub(crate) fn clear(&self) {
        let lock = |s| Mutex::lock(s).unwrap_or_else(PoisonError::into_inner);
        let _all: Vec<_> = self.stripes.iter().map(lock).collect();
        self.cache.clear();
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            users: self.cache.len(),
            bytes: self.cache.weight(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}

/// Reads the newest `cap` entries, and the keys of some that lie beyond: those can never come back into the
/// sequence, as entries only join.
fn load(engine: &Engine, user: &UserId, cap: usize) -> Result<(UserSequence, Vec<UserKey>), StoreError> {
    let mut guards = engine.sequences.prefix(key::user(user));
    let mut entries = Vec::new();
    for guard in guards.by_ref().take(cap) {
        let entry: SequenceEntry =
            codec::decode(&guard.value()?).map_err(StoreError::record(format!("sequence of `{user}`")))?;
        entries.push(entry);
    }
    let beyond = guards.take(TRIM).map(fjall::Guard::key).collect::<Result<_, _>>()?;
    // Oldest first, each becomes the newest.
    Ok((UserSequence::from_entries(entries.into_iter().rev(), cap), beyond))
}
