//! The shared part of each person's latest request, kept for the next one.
//!
//! It is found by the person and used only if it was made of the very same tokens by the very same engine: their numbers
//! are hashed (20 KB, about 2 us, where to make the part takes 10 to 40 us). So a new action, another version of an item's
//! vector or another model need no notice: what does not fit is made again and takes the old one's place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use xxhash_rust::xxh3::Xxh3;

use super::request::RequestPart;

/// Parts of a usual size that the cache makes room for at its start.
const TYPICAL_BYTES: u64 = 128 << 10;

/// Shared parts of requests, by person, in a bounded number of bytes. Threads and models share one.
pub struct PartCache {
    parts: Cache<u64, Arc<Kept>, Bytes>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// A part and what it was made of.
pub(super) struct Kept {
    fingerprint: u128,
    pub(super) part: RequestPart,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<u64, Arc<Kept>> for Bytes {
    fn weight(&self, _: &u64, kept: &Arc<Kept>) -> u64 {
        (size_of::<Kept>() + kept.part.bytes()) as u64
    }
}

impl std::fmt::Debug for PartCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartCache").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl PartCache {
    /// Keeps parts in at most so many bytes; 0 keeps none.
    pub fn new(bytes: u64) -> Self {
        let parts = usize::try_from(bytes / TYPICAL_BYTES).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let parts = Cache::with_weighter(parts, bytes, Bytes);
        Self { parts, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Whether it keeps anything at all.
    pub fn holds_any(&self) -> bool {
        self.parts.capacity() > 0
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> u64 {
        self.parts.weight()
    }

    /// Requests that found their part, and those that did not.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// The part of a person, made of these tokens (and their mask) by this engine, or a new one.
    pub(super) fn part(
        &self,
        person: u64,
        engine: u64,
        tokens: &[f32],
        masked: &[bool],
        make: impl FnOnce() -> RequestPart,
    ) -> Arc<Kept> {
        let fingerprint = fingerprint(engine, tokens, masked);
        if let Some(kept) = self.parts.get(&person)
            && kept.fingerprint == fingerprint
        {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return kept;
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let kept = Arc::new(Kept { fingerprint, part: make() });
        self.parts.insert(person, Arc::clone(&kept));
        kept
    }
}

fn fingerprint(engine: u64, tokens: &[f32], masked: &[bool]) -> u128 {
    let mut hash = Xxh3::with_seed(engine);
    let mut bytes = [0u8; 1 << 10];
    for tokens in tokens.chunks(bytes.len() / size_of::<f32>()) {
        for (to, token) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(tokens) {
            *to = token.to_le_bytes();
        }
        hash.update(&bytes[..size_of_val(tokens)]);
    }
    hash.update(&(masked.len() as u64).to_le_bytes());
    masked.iter().for_each(|m| hash.update(&[u8::from(*m)]));
    hash.digest128()
}
