//! A person's latest actions, newest first.
//!
//! The order is (event time, offset in the log), newest first; a repeated event id counts once. [`UserSequence::apply`]
//! is commutative, associative and idempotent, so that any order of arrival, and any number of repeats, gives the
//! same sequence: of two entries with one event id the one that is first in log order stays. (One exception, by
//! design: a repeat of an action that the cap had cut, of the very millisecond of the oldest kept one, may return;
//! to exclude it every dropped id would have to be kept.)

use serde::{Deserialize, Serialize};

use crate::id::ItemId;

/// One action of a user, as the sequence keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceEntry {
    /// Event time, ms since 1970 UTC.
    pub time_ms: i64,
    /// Offset of the record in the log: when it became known.
    pub offset: u64,
    /// XXH3-64 of the client's event id.
    pub event: u64,
    /// XXH3-64 of the request id, 0 where there is none.
    pub request: u64,
    /// Position of the action type in the schema.
    pub action: u8,
    /// Surface of the schema plus 1, 0 where there is none.
    pub surface: u16,
    /// With what.
    pub item: ItemId,
}

impl SequenceEntry {
    /// Sort key: ascending is oldest first.
    fn key(&self) -> (i64, u64) {
        (self.time_ms, self.offset)
    }
}

/// What [`UserSequence::apply`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The entry is in the sequence.
    Inserted,
    /// The event id was there already.
    Duplicate,
    /// The sequence is full of newer actions.
    TooOld,
}

/// The latest actions of one user, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserSequence {
    entries: Vec<SequenceEntry>,
}

impl UserSequence {
    /// The entries, newest first.
    pub fn entries(&self) -> &[SequenceEntry] {
        &self.entries
    }

    /// Takes entries that stand in order and are each there once, as [`UserSequence::entries`] gave them.
    pub fn from_ordered(entries: Vec<SequenceEntry>) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| a.key() > b.key()), "newest first");
        Self { entries }
    }

    /// Puts an entry at its place, keeping at most `cap`. Costs O(cap) moves; the common case, a new newest
    /// action, compares event ids over the sequence once.
    pub fn apply(&mut self, entry: SequenceEntry, cap: usize) -> Applied {
        if let Some(at) = self.entries.iter().position(|e| e.event == entry.event) {
            // First in log order stays, whichever arrived here first.
            if self.entries[at].offset <= entry.offset {
                return Applied::Duplicate;
            }
            self.entries.remove(at);
            self.insert(entry, cap);
            return Applied::Duplicate;
        }
        self.insert(entry, cap)
    }

    fn insert(&mut self, entry: SequenceEntry, cap: usize) -> Applied {
        let at = self.entries.partition_point(|e| e.key() > entry.key());
        if at >= cap {
            return Applied::TooOld;
        }
        self.entries.insert(at, entry);
        self.entries.truncate(cap);
        Applied::Inserted
    }

    /// Builds a sequence from entries in any order, with repeats.
    pub fn from_entries(entries: impl IntoIterator<Item = SequenceEntry>, cap: usize) -> Self {
        let mut sequence = Self::default();
        for entry in entries {
            sequence.apply(entry, cap);
        }
        sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(time_ms: i64, offset: u64, event: u64) -> SequenceEntry {
        let item = ItemId::new(format!("i{event}")).unwrap();
        SequenceEntry { time_ms, offset, event, request: 0, action: 0, surface: 0, item }
    }

    /// What the sequence must be: first of each event id by offset, newest first, cut.
    fn oracle(entries: &[SequenceEntry], cap: usize) -> Vec<SequenceEntry> {
        let mut by_event = BTreeMap::<u64, SequenceEntry>::new();
        for e in entries {
            let slot = by_event.entry(e.event).or_insert_with(|| e.clone());
            if e.offset < slot.offset {
                *slot = e.clone();
            }
        }
        let mut all: Vec<_> = by_event.into_values().collect();
        all.sort_by_key(|e| std::cmp::Reverse(e.key()));
        all.truncate(cap);
        all
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_the_same_sequence(
            // An event id keeps its time: a client repeats an event as it was.
            events in prop::collection::vec((0u64..30, 0i64..20), 1..60),
            rotate in 0usize..60,
        ) {
            let times: BTreeMap<u64, i64> = events.iter().map(|(e, t)| (*e, t * 100 + *e as i64)).collect();
            let entries: Vec<_> =
                events.iter().enumerate().map(|(i, (e, _))| entry(times[e], i as u64, *e)).collect();
            let want = oracle(&entries, 8);
            prop_assert_eq!(UserSequence::from_entries(entries.clone(), 8).entries.clone(), want.clone());
            // Repeats of a record that were dropped as too old stay dropped.
            let twice = entries.iter().chain(&entries).cloned();
            prop_assert_eq!(UserSequence::from_entries(twice, 8).entries.clone(), want.clone());
            // Another order, complete before the cap cuts.
            let mut turned = entries.clone();
            turned.rotate_left(rotate % entries.len());
            turned.reverse();
            prop_assert_eq!(UserSequence::from_entries(turned, 64).entries[..want.len()].to_vec(), want.clone());
        }
    }

    #[test]
    fn a_full_sequence_refuses_older_actions() {
        let mut s = UserSequence::from_entries([entry(2, 0, 1), entry(3, 1, 2)], 2);
        assert_eq!(s.apply(entry(1, 2, 3), 2), Applied::TooOld);
        assert_eq!(s.apply(entry(4, 3, 4), 2), Applied::Inserted);
        assert_eq!(s.entries().iter().map(|e| e.event).collect::<Vec<_>>(), [4, 2]);
        assert_eq!(s.apply(entry(4, 9, 4), 2), Applied::Duplicate);
    }
}
