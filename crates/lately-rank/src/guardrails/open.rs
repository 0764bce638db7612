//! Rankings whose actions are still waited for, by request id.
//!
//! An action may stand before its ranking in the log, as that is logged after the answer: whichever comes first opens the
//! entry. Ids are kept as hashes, for the time of waiting.

use std::collections::{HashMap, VecDeque};

use super::lanes::Side;

/// Shown items and actions that are held: 200,000 with 4 heads are 6 MB. Beyond them new rankings are not waited for, so
/// that of what is waited for all is known.
const MOST: usize = 200_000;
/// Actions beyond which one without its ranking is not held: those of rankings that are not watched never get one.
const EARLY: usize = MOST / 4;

/// The shown items of a ranking.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) side: Side,
    pub(super) time_ms: i64,
    pub(super) group: usize,
    /// Hashes of their ids.
    pub(super) items: Vec<u64>,
    /// Items x heads.
    pub(super) probabilities: Vec<f32>,
}

#[derive(Debug, Default)]
struct Entry {
    shown: Option<Shown>,
    /// Item, and a bit a head.
    actions: Vec<(u64, u64)>,
}

/// The rankings that are waited for.
#[derive(Debug, Default)]
pub(super) struct Open {
    entries: HashMap<u64, Entry>,
    /// When each was opened.
    order: VecDeque<(i64, u64)>,
    items: usize,
    actions: usize,
}

/// A ranking whose time is over, and for each item a bit a head.
pub(super) type Closed = (Shown, Vec<u64>);

impl Open {
    pub(super) fn show(&mut self, request: u64, now_ms: i64, shown: Shown) {
        if self.items + self.actions + shown.items.len() > MOST {
            metrics::counter!("lately_guardrail_unwatched_total").increment(1);
            return;
        }
        let entry = entry(&mut self.entries, &mut self.order, request, now_ms);
        if entry.shown.is_none() {
            self.items += shown.items.len();
            entry.shown = Some(shown);
        }
    }

    pub(super) fn act(&mut self, request: u64, now_ms: i64, item: u64, heads: u64) {
        let known = self.entries.get(&request).is_some_and(|e| e.shown.is_some());
        if self.actions >= EARLY && (!known || self.items + self.actions >= MOST) {
            return;
        }
        self.actions += 1;
        entry(&mut self.entries, &mut self.order, request, now_ms).actions.push((item, heads));
    }

    /// The next one that was opened before a time.
    pub(super) fn close(&mut self, opened_before_ms: i64) -> Option<Closed> {
        while self.order.front().is_some_and(|(opened, _)| *opened <= opened_before_ms) {
            let (_, request) = self.order.pop_front()?;
            let Some(Entry { shown, actions }) = self.entries.remove(&request) else { continue };
            self.actions -= actions.len();
            let Some(shown) = shown else { continue };
            self.items -= shown.items.len();
            let of = |item: &u64| actions.iter().filter(|(i, _)| i == item).fold(0, |all, (_, h)| all | h);
            let labels = shown.items.iter().map(of).collect();
            return Some((shown, labels));
        }
        None
    }
}

fn entry<'a>(
    entries: &'a mut HashMap<u64, Entry>,
    order: &mut VecDeque<(i64, u64)>,
    request: u64,
    now_ms: i64,
) -> &'a mut Entry {
    entries.entry(request).or_insert_with(|| {
        order.push_back((now_ms, request));
        Entry::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(items: Vec<u64>) -> Shown {
        Shown {
            side: Side { version: "a".to_owned(), variant: None },
            time_ms: 0,
            group: 0,
            items,
            probabilities: Vec::new(),
        }
    }

    #[test]
    fn actions_find_their_ranking_whichever_comes_first_and_only_in_time() {
        let mut open = Open::default();
        open.act(1, 5, 11, 0b01);
        open.show(1, 6, shown(vec![10, 11]));
        open.act(1, 7, 11, 0b10);
        open.act(1, 8, 99, 0b10);
        open.act(2, 8, 10, 0b1); // of a ranking that never comes
        open.show(3, 9, shown(vec![10]));
        assert!(open.close(4).is_none());
        assert_eq!(open.close(8).map(|c| c.1), Some(vec![0, 0b11]));
        assert!(open.close(8).is_none());
        open.act(1, 9, 10, 0b1);
        assert_eq!(open.close(9).map(|c| c.1), Some(vec![0]));
        assert!(open.close(9).is_none());
        assert_eq!((open.items, open.actions, open.entries.len()), (0, 0, 0), "nothing is left behind");
    }

    #[test]
    fn memory_is_bounded() {
        let mut open = Open::default();
        (0..MOST as u64 * 2).for_each(|i| open.act(i, 0, 0, 1));
        (0..MOST as u64 * 2).for_each(|i| open.show(i, 0, shown(vec![1, 2])));
        assert!(open.actions == EARLY && open.items + open.actions <= MOST);
        assert!(open.close(0).is_some());
    }
}
