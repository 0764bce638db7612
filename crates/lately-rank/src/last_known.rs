//! What a user's last ranking knew and gave, in bounded memory: for when the store or the model cannot.
//!
//! It goes with a user who is forgotten, and with the process.

use std::collections::HashMap;
use std::sync::Arc;

use lately_features::{ItemId, SequenceEntry, UserId, UserSequence};
use quick_cache::{Weighter, sync::Cache};

/// Memory of an entry of a sequence with its item's text, and of anything kept besides its entries, bytes.
const ENTRY_BYTES: usize = size_of::<SequenceEntry>() + 32;
const KEPT_BYTES: usize = 160;
/// Entries that a typical user has: the caches reserve places by it.
const TYPICAL: usize = 128;

/// A sequence and when it was read, ms since 1970 UTC.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) sequence: Arc<UserSequence>,
    pub(crate) at_ms: i64,
}

/// XXH3 of an item's id, and its score.
type Scored = Arc<[(u64, f32)]>;

/// The scores of a user's last ranking.
pub(crate) struct LastRanking(HashMap<u64, f32>);

impl LastRanking {
    pub(crate) fn score(&self, item: &ItemId) -> Option<f32> {
        self.0.get(&item.hash64()).copied()
    }
}

#[derive(Clone)]
struct Bytes;

impl Weighter<UserId, Seen> for Bytes {
    fn weight(&self, user: &UserId, seen: &Seen) -> u64 {
        (KEPT_BYTES + user.as_str().len() + seen.sequence.entries().len() * ENTRY_BYTES) as u64
    }
}

impl Weighter<UserId, Scored> for Bytes {
    fn weight(&self, user: &UserId, scored: &Scored) -> u64 {
        (KEPT_BYTES + user.as_str().len() + size_of_val::<[_]>(scored)) as u64
    }
}

pub(crate) struct LastKnown {
    sequences: Cache<UserId, Seen, Bytes>,
    rankings: Cache<UserId, Scored, Bytes>,
}

impl LastKnown {
    /// In at most so many bytes each.
    pub(crate) fn new(sequence_bytes: u64, ranking_bytes: u64) -> Self {
        let places = |bytes: u64, entry: usize| {
            let typical = (KEPT_BYTES + TYPICAL * entry) as u64;
            usize::try_from(bytes / typical).unwrap_or(usize::MAX).clamp(16, 1 << 20)
        };
        Self {
            sequences: Cache::with_weighter(places(sequence_bytes, ENTRY_BYTES), sequence_bytes, Bytes),
            rankings: Cache::with_weighter(
                places(ranking_bytes, size_of::<(u64, f32)>()),
                ranking_bytes,
                Bytes,
            ),
        }
    }

    /// Remembers a sequence that was read. It shares the store's memory until the user acts again.
    pub(crate) fn read(&self, user: &UserId, sequence: &Arc<UserSequence>, at_ms: i64) {
        self.sequences.insert(user.clone(), Seen { sequence: sequence.clone(), at_ms });
    }

    pub(crate) fn sequence(&self, user: &UserId) -> Option<Seen> {
        self.sequences.get(user)
    }

    /// Remembers what a model gave.
    pub(crate) fn ranked<'a>(&self, user: &UserId, scores: impl Iterator<Item = (&'a ItemId, f32)>) {
        // A list: it is made for every ranking, and searched for hardly any.
        let scored = scores.map(|(item, score)| (item.hash64(), score)).collect();
        self.rankings.insert(user.clone(), scored);
    }

    pub(crate) fn ranking(&self, user: &UserId) -> Option<LastRanking> {
        Some(LastRanking(self.rankings.get(user)?.iter().copied().collect()))
    }

    pub(crate) fn forget(&self, user: &UserId) {
        self.sequences.remove(user);
        self.rankings.remove(user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(i: usize) -> UserId {
        UserId::new(format!("u{i}")).unwrap()
    }

    fn sequence(n: usize) -> Arc<UserSequence> {
        let item = ItemId::new("item").unwrap();
        let entry = |i: usize| SequenceEntry {
            time_ms: i as i64,
            offset: i as u64,
            event: i as u64,
            request: 0,
            action: 0,
            surface: 0,
            item: item.clone(),
        };
        Arc::new(UserSequence::from_entries((0..n).map(entry), n))
    }

    #[test]
    fn keeps_the_last_of_each_within_its_bytes() {
        let limit = 200_000;
        let known = LastKnown::new(limit, limit);
        let items: Vec<_> = (0..100).map(|i| ItemId::new(format!("i{i}")).unwrap()).collect();
        for i in 0..1_000 {
            known.read(&user(i), &sequence(50), i as i64);
            known.ranked(&user(i), items.iter().zip(0..).map(|(item, n)| (item, (n + i) as f32)));
        }
        assert!(known.sequences.weight() <= limit && known.rankings.weight() <= limit);
        assert!(known.sequences.len() > 10 && known.rankings.len() > 50);
        known.read(&user(1), &sequence(3), 7);
        known.ranked(&user(1), items.iter().map(|item| (item, 2.5)));
        let seen = known.sequence(&user(1)).unwrap();
        assert_eq!((seen.sequence.entries().len(), seen.at_ms), (3, 7));
        let ranking = known.ranking(&user(1)).unwrap();
        assert_eq!((ranking.score(&items[99]), ranking.score(&ItemId::new("x").unwrap())), (Some(2.5), None));
        known.forget(&user(1));
        assert!(known.sequence(&user(1)).is_none() && known.ranking(&user(1)).is_none());
    }

    #[test]
    fn no_bytes_keep_nothing() {
        let known = LastKnown::new(0, 0);
        known.read(&user(1), &sequence(3), 7);
        assert!(known.sequence(&user(1)).is_none());
    }
}
