//! Which items lie on the card, and where.
//!
//! Most candidates of a ranking were candidates before. So an item's columns, once made and sent, are kept on the card, in a
//! table of slots. An item is known by the 128-bit hash of all numbers that the batch has of it: what is in a slot can never
//! be out of date, as an item that changes is another item. The hash starts from bytes drawn for the table, so that no two
//! items can be prepared outside that are taken for one.
//!
//! All calls share the table, though several run at once and none waits for another:
//! - An item that a call does not find is sent with the call, read from there, and written into a slot that is claimed for it.
//!   Only when the call is done can others find it ([`Visit::stored`]).
//! - A slot that a call which still runs has found or claimed is not claimed again. Calls are numbered, slots hold the largest
//!   number of those that used them, and a slot is free below the least number that still runs.
//! - Where no slot is free, items are sent again.
//!
//! Slots are taken by the clock: a hand goes round and takes the first one that was not found since it last came by.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lately_features::FeatureBatch;
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Set in a row's place where its item is among the call's staged ones. `kernels/call.cu` has it too.
const STAGED: u32 = 1 << 31;
/// Bytes that the hash starts from, as many as its default ones.
const SECRET: usize = 192;
/// For an item that is not kept.
const NO_SLOT: u32 = u32::MAX;

/// The table as the host knows it.
#[derive(Debug)]
pub(crate) struct ItemTable {
    secret: [u8; SECRET],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    /// Slots of the items that can be found.
    places: HashMap<u128, u32, BuildHasherDefault<AsItIs>>,
    hand: usize,
    /// The last call's number.
    calls: u64,
    /// Those that run.
    running: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// None where nothing can be found.
    key: Option<u128>,
    /// Largest number of a call that used it.
    used: u64,
    /// Whether it was found since the hand last came by.
    found: bool,
}

/// Where the items of a call's rows are. Memory is reused.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// For each row its item's slot, or, with the highest bit, which of `staged` it is.
    pub(crate) places: Vec<u32>,
    /// Rows of the batch whose items are to be staged, one an item.
    pub(crate) staged: Vec<u32>,
    /// For each of them the slot that it goes to; all bits where there is none.
    pub(crate) slots: Vec<u32>,
    keys: Vec<u128>,
    bytes: Vec<u8>,
    missing: HashMap<u128, u32, BuildHasherDefault<AsItIs>>,
}

/// A call's use of the table. Dropping it frees what the call used: not before the card is done with it.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    table: &'a ItemTable,
    /// The call's number, once it looked for something.
    number: Option<u64>,
    claimed: Vec<(u128, u32)>,
}

/// Keys are hashes.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

impl ItemTable {
    /// An empty one.
    pub(crate) fn new(slots: usize) -> Self {
        let slots = slots.min(STAGED as usize);
        let state = State {
            slots: vec![Slot::default(); slots],
            places: HashMap::with_capacity_and_hasher(slots, BuildHasherDefault::default()),
            hand: 0,
            calls: 0,
            running: Vec::new(),
        };
        let random = RandomState::new();
        let secret = std::array::from_fn(|i| random.hash_one(i) as u8);
        Self { secret, state: Mutex::new(state) }
    }

    /// For one call.
    pub(crate) fn visit(&self) -> Visit<'_> {
        Visit { table: self, number: None, claimed: Vec::new() }
    }

    /// Hashes of the items of some rows of a batch that fits the model.
    fn keys(&self, batch: &FeatureBatch, rows: Range<usize>, found: &mut Found) {
        let Found { keys, bytes, .. } = found;
        let buckets = &batch.item.categorical;
        let numbers = [&batch.item.numeric, &batch.item.embedding, &batch.candidate];
        let width = |len: usize| len / batch.rows().max(1);
        let widths = numbers.map(|list| width(list.len()));
        let all = width(buckets.len()) + widths.iter().sum::<usize>();
        bytes.resize(all * size_of::<u32>(), 0);
        keys.clear();
        for row in rows {
            let width = width(buckets.len());
            let (to, mut rest) = bytes.split_at_mut(width * size_of::<u32>());
            copy(&buckets[row * width..(row + 1) * width], |x| x.to_le_bytes(), to);
            for (list, width) in numbers.into_iter().zip(widths) {
                let (to, after) = rest.split_at_mut(width * size_of::<f32>());
                copy(&list[row * width..(row + 1) * width], |x| x.to_le_bytes(), to);
                rest = after;
            }
            keys.push(xxh3_128_with_secret(bytes, &self.secret));
        }
    }

    /// A thread that panicked left nothing half done: every change is whole before the next one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers as bytes.
fn copy<T: Copy>(from: &[T], bytes: impl Fn(T) -> [u8; 4], to: &mut [u8]) {
    let (to, _) = to.as_chunks_mut();
    to.iter_mut().zip(from).for_each(|(to, x)| *to = bytes(*x));
}

impl Visit<'_> {
    /// Looks for the items of some rows of a batch that fits the model, and claims slots for those that are not there.
    pub(crate) fn find(&mut self, batch: &FeatureBatch, rows: Range<usize>, found: &mut Found) {
        let first = rows.start as u32;
        self.table.keys(batch, rows, found);
        let Found { places, staged, slots, keys, missing, .. } = found;
        places.clear();
        staged.clear();
        slots.clear();
        missing.clear();
        let mut state = self.table.lock();
        let number = *self.number.get_or_insert_with(|| state.begin());
        let mut full = false;
        for (row, key) in (first..).zip(&*keys) {
            if let Some(slot) = state.find(*key, number) {
                places.push(slot);
                continue;
            }
            let next = staged.len() as u32;
            let at = *missing.entry(*key).or_insert(next);
            places.push(STAGED | at);
            if at < next {
                continue; // a row before has the same item
            }
            // A second round of the hand would find no more than the first.
            let slot = if full { None } else { state.claim(number) };
            full = slot.is_none();
            staged.push(row);
            slots.push(slot.unwrap_or(NO_SLOT));
            self.claimed.extend(slot.map(|slot| (*key, slot)));
        }
    }

    /// What was claimed is in its slots: calls to come find it.
    pub(crate) fn stored(&mut self) {
        if !self.claimed.is_empty() {
            let mut state = self.table.lock();
            self.claimed.drain(..).for_each(|(key, slot)| state.store(key, slot));
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.table.lock().running.retain(|n| *n != number);
        }
    }
}

impl State {
    /// The next call's number.
    fn begin(&mut self) -> u64 {
        self.calls += 1;
        self.running.push(self.calls);
        self.calls
    }

    fn find(&mut self, key: u128, number: u64) -> Option<u32> {
        let at = *self.places.get(&key)?;
        let slot = self.slots.get_mut(at as usize)?;
        slot.used = slot.used.max(number); // a later call may have found it before
        slot.found = true;
        Some(at)
    }

    /// A slot for a call to write, whose item cannot be found any more; none where all are in use.
    fn claim(&mut self, number: u64) -> Option<u32> {
        let oldest = self.running.iter().copied().min().unwrap_or(u64::MAX);
        // In the first round it may be that all were found.
        for _ in 0..2 * self.slots.len() {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len();
            let slot = &mut self.slots[at];
            if slot.used >= oldest {
                continue;
            }
            if !std::mem::take(&mut slot.found) {
                if let Some(key) = slot.key.take() {
                    self.places.remove(&key);
                }
                slot.used = number;
                return Some(at as u32);
            }
        }
        None
    }

    fn store(&mut self, key: u128, at: u32) {
        let slot = &mut self.slots[at as usize];
        // Another call may have brought the same item: this slot is then nobody's.
        if let std::collections::hash_map::Entry::Vacant(entry) = self.places.entry(key) {
            entry.insert(at);
            slot.key = Some(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::world::{batch, schema};

    /// Items of the batch's rows, all of them different.
    fn items(count: usize) -> FeatureBatch {
        batch(&schema(4, 20), &[(3, count)], 5, |_| false)
    }

    /// One whole call: which of the rows were staged.
    fn call(table: &ItemTable, batch: &FeatureBatch, rows: Range<usize>) -> Vec<u32> {
        let (mut visit, mut found) = (table.visit(), Found::default());
        visit.find(batch, rows, &mut found);
        visit.stored();
        found.staged
    }

    #[test]
    fn an_item_is_found_once_it_is_stored() {
        let (table, b, mut found) = (ItemTable::new(8), items(4), Found::default());
        let mut visit = table.visit();
        visit.find(&b, 1..3, &mut found);
        assert_eq!((&found.places[..], &found.staged[..]), (&[STAGED, STAGED | 1][..], &[1, 2][..]));
        assert_eq!(found.slots, [0, 1]);
        assert_eq!(call(&table, &b, 1..3), [1, 2], "the first call has not stored it yet");
        visit.stored();
        drop(visit);
        visit = table.visit();
        visit.find(&b, 0..4, &mut found);
        assert_eq!(found.staged, [0, 3]);
        // From the second call, which was done first.
        assert_eq!(found.places, [STAGED, 2, 3, STAGED | 1]);
        assert_eq!(found.slots, [4, 5]);
    }

    #[test]
    fn what_differs_in_one_number_is_another_item() {
        let (table, b) = (ItemTable::new(64), items(3));
        assert_eq!(call(&table, &b, 0..3), [0, 1, 2]);
        assert_eq!(call(&table, &b, 0..3), [] as [u32; 0]);
        let changed = |change: &dyn Fn(&mut FeatureBatch)| {
            let mut other = b.clone();
            change(&mut other);
            call(&table, &other, 0..3)
        };
        // Of row 1: each of its 3 buckets, 2 numbers, and 4 of each embedding.
        for i in 3..6 {
            assert_eq!(changed(&|b| b.item.categorical[i] ^= 1), [1], "bucket {i}");
        }
        for i in 2..4 {
            assert_eq!(changed(&|b| b.item.numeric[i] += 1.0), [1], "number {i}");
        }
        for i in 4..8 {
            assert_eq!(changed(&|b| b.item.embedding[i] += 1.0), [1], "of its embedding {i}");
            assert_eq!(changed(&|b| b.candidate[i] += 1.0), [1], "of the candidate {i}");
        }
    }

    #[test]
    fn rows_of_one_item_are_staged_once() {
        let (table, b, mut found) = (ItemTable::new(8), items(2), Found::default());
        let mut twice = b.clone();
        twice.item.categorical.extend_from_slice(&b.item.categorical);
        twice.item.numeric.extend_from_slice(&b.item.numeric);
        twice.item.embedding.extend_from_slice(&b.item.embedding);
        twice.candidate.extend_from_slice(&b.candidate);
        twice.row_offsets = vec![0, 4];
        table.visit().find(&twice, 0..4, &mut found);
        assert_eq!(found.places, [STAGED, STAGED | 1, STAGED, STAGED | 1]);
        assert_eq!(found.staged, [0, 1]);
    }

    #[test]
    fn slots_in_use_are_not_taken() {
        let (table, b) = (ItemTable::new(4), items(9));
        let (mut first, mut second) = (table.visit(), table.visit());
        let (mut found, mut other) = (Found::default(), Found::default());
        call(&table, &b, 0..2);
        first.find(&b, 0..3, &mut found); // finds two, claims one
        assert_eq!(found.slots, [2]);
        second.find(&b, 3..6, &mut other);
        assert_eq!(other.slots, [3, NO_SLOT, NO_SLOT], "three of four are the first call's");
        second.stored();
        drop(second);
        // What the second one brought can be found, though the first one, which is older, has not ended.
        assert_eq!(call(&table, &b, 3..4), [] as [u32; 0]);
        drop(first);
        // It ended without having stored anything: what it claimed is not found, and may be taken.
        let mut third = table.visit();
        third.find(&b, 2..3, &mut found);
        assert_eq!((&found.staged[..], &found.slots[..]), (&[2][..], &[2][..]));
    }

    /// A later call that ends first must not free what an earlier one still reads, nor the other way round.
    #[test]
    fn a_slot_is_used_until_its_last_reader_ends() {
        for earlier_ends_first in [true, false] {
            let (table, b, mut found) = (ItemTable::new(1), items(2), Found::default());
            call(&table, &b, 0..1);
            let (mut earlier, mut later) = (table.visit(), table.visit());
            earlier.find(&b, 0..0, &mut found); // takes its number
            later.find(&b, 0..1, &mut found);
            earlier.find(&b, 0..1, &mut found);
            assert_eq!(found.places, [0]);
            let (first, last) = if earlier_ends_first { (earlier, later) } else { (later, earlier) };
            drop(first);
            assert_eq!(call(&table, &b, 1..2), [1]);
            assert_eq!(call(&table, &b, 1..2), [1], "there was no slot for it");
            drop(last);
            assert_eq!(call(&table, &b, 1..2), [1]);
            assert_eq!(call(&table, &b, 1..2), [] as [u32; 0], "now there was");
        }
    }

    #[test]
    fn items_that_are_found_outlive_those_that_are_not() {
        let (table, b) = (ItemTable::new(4), items(40));
        call(&table, &b, 0..2);
        for row in 2..40 {
            assert_eq!(call(&table, &b, row..row + 1), [row as u32]);
            assert_eq!(call(&table, &b, 0..2), [] as [u32; 0], "after row {row}");
        }
        assert_eq!(call(&table, &b, 39..40), [] as [u32; 0]);
        assert_eq!(call(&table, &b, 2..3), [2], "long gone");
    }

    #[test]
    fn a_table_without_slots_keeps_nothing() {
        let (table, b) = (ItemTable::new(0), items(2));
        assert_eq!(call(&table, &b, 0..2), [0, 1]);
        assert_eq!(call(&table, &b, 0..2), [0, 1]);
    }
}
