//! New items: a place for what nobody can know yet.
//!
//! An item is new for a time after its first record in the log, by that record's time. The catalogue keeps no time of its
//! own: what was active before the records that are read at a start (`popularity_tail`) is not new, and an item whose only
//! such record is a change counts as new since then. What comes back after its time, and was inactive, is new again.

use std::collections::HashMap;

use lately_features::{Impression, Item, ItemId};
use rand::Rng;

use super::catalogue::Ledger;

/// Most items that are kept as new, about 100 bytes each; the oldest go first. An import of all items at once makes more.
const MAX_FRESH: usize = 100_000;
/// So many times the quota is drawn by chance, and of those the least shown are taken: of items half of which were shown
/// often, 15 in 16 that come are of the other half.
const DRAWN: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Newness {
    first_ms: i64,
    impressions: u32,
}

/// The new items, as the log tells.
#[derive(Debug)]
pub(crate) struct FreshItems {
    window_ms: f64,
    items: HashMap<ItemId, Newness>,
}

/// A new item, for readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(crate) position: u32,
    /// On how many pages it was, since it is new.
    pub(crate) impressions: u32,
}

impl FreshItems {
    pub(crate) fn new(fresh_hours: f64) -> Self {
        Self { window_ms: fresh_hours * 3.6e6, items: HashMap::new() }
    }

    /// Takes note of an item that the catalogue does not have, unless it is noted already.
    pub(crate) fn arrived(&mut self, item: &Item) {
        let new = Newness { first_ms: item.time_ms, impressions: 0 };
        self.items.entry(item.item.clone()).or_insert(new);
    }

    /// Counts what was shown.
    pub(crate) fn shown(&mut self, impression: &Impression) {
        if self.items.is_empty() {
            return;
        }
        for shown in &impression.items {
            if let Some(new) = self.items.get_mut(&shown.item) {
                new.impressions = new.impressions.saturating_add(1);
            }
        }
    }

    /// The active ones that are new at `now_ms`, by position. Forgets the others' newness.
    pub(crate) fn at(&mut self, now_ms: i64, ledger: &Ledger) -> Vec<Fresh> {
        self.items.retain(|_, new| (now_ms - new.first_ms) as f64 <= self.window_ms);
        if self.items.len() > MAX_FRESH {
            let mut times: Vec<i64> = self.items.values().map(|new| new.first_ms).collect();
            let cut = times.len() - MAX_FRESH;
            let (_, oldest, _) = times.select_nth_unstable(cut);
            let oldest = *oldest;
            let mut spare = MAX_FRESH;
            // Of one import all may have one time.
            self.items.retain(|_, new| {
                let keep = new.first_ms >= oldest && spare > 0;
                spare -= usize::from(keep);
                keep
            });
        }
        let known = |(item, new): (&ItemId, &Newness)| {
            Some(Fresh { position: ledger.position(item)?, impressions: new.impressions })
        };
        let mut fresh: Vec<Fresh> = self.items.iter().filter_map(known).collect();
        fresh.sort_unstable_by_key(|f| f.position);
        fresh
    }
}

/// A random choice of [`DRAWN`] times `quota`, those with the fewest impressions first; chance decides among equals.
pub(super) fn draw(fresh: &[Fresh], quota: usize, rng: &mut impl Rng) -> Vec<u32> {
    let drawn = rand::seq::index::sample(rng, fresh.len(), (DRAWN * quota).min(fresh.len()));
    let mut drawn: Vec<Fresh> = drawn.into_iter().map(|at| fresh[at]).collect();
    drawn.sort_by_key(|f| f.impressions);
    drawn.into_iter().map(|f| f.position).collect()
}
