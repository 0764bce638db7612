//! The label join: which shown item an action belongs to, and whether it came in time; [`crate::join`] states the rules.
//!
//! Actions and impressions are taken in any order. After each the marks are those that a join of all that was taken so
//! far would give: an impression that arrives late takes over the actions that belong to it.

use std::collections::HashSet;

use lately_features::Schema;
use lately_features::event::MAX_FUTURE_MS;
use serde::{Deserialize, Serialize};

use crate::stats::JoinStats;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fate {
    /// It made no row: an action on it must not go to an older impression instead.
    NoRow,
    /// Its row waits for its labels.
    Open,
    /// Its row is written: what comes now is a correction.
    Written,
}

/// One request, to be found by the actions on its items.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// Of the impression in the log.
    pub(crate) offset: u64,
    pub(crate) time_ms: i64,
    /// XXH3-64 of the request id.
    pub(crate) request: u64,
    pub(crate) fate: Fate,
    pub(crate) items: Box<[u32]>,
    /// Candidates on which there were actions in time, and the bits of their types.
    pub(crate) marks: Vec<(u16, u64)>,
}

/// One action that can be a label.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Acted {
    pub(crate) item: u32,
    pub(crate) time_ms: i64,
    /// XXH3-64 of the event id.
    pub(crate) event: u64,
    /// XXH3-64 of the request id; 0 where it names none.
    pub(crate) request: u64,
    pub(crate) action: u8,
}

/// A mark that is no longer what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) offset: u64,
    /// Of the request.
    pub(crate) time_ms: i64,
    pub(crate) fate: Fate,
    pub(crate) candidate: u16,
    /// All bits, now.
    pub(crate) observed: u64,
}

/// One user's requests by (time, order of arrival) and actions by time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Past {
    pub(crate) shown: Vec<Shown>,
    pub(crate) acted: Vec<Acted>,
    #[serde(skip)]
    seen: HashSet<u64>,
}

/// Everybody's past, by number of the user.
pub(crate) struct Labels {
    /// Of each action type, ms.
    windows: Vec<i64>,
    pub(crate) pasts: Vec<Past>,
}

impl Labels {
    pub(crate) fn new(schema: &Schema) -> Self {
        let windows = schema.actions.iter().map(|a| i64::from(a.attribution_seconds) * 1000).collect();
        Self { windows, pasts: Vec::new() }
    }

    /// Longest attribution window, ms.
    pub(crate) fn longest_ms(&self) -> i64 {
        self.windows.iter().copied().max().unwrap_or(0)
    }

    pub(crate) fn past(&mut self, user: u32) -> &mut Past {
        if self.pasts.len() <= user as usize {
            self.pasts.resize_with(user as usize + 1, Past::default);
        }
        &mut self.pasts[user as usize]
    }

    /// Whether the user's request of this hash was taken.
    pub(crate) fn knows_request(&self, user: u32, request: u64) -> bool {
        let past = self.pasts.get(user as usize);
        past.is_some_and(|p| p.shown.iter().rev().any(|s| s.request == request))
    }

    /// Takes an action; its own mark, where it has one, and whether that is new. `false` first: it was there before.
    pub(crate) fn act(&mut self, user: u32, acted: Acted) -> (bool, Option<(Change, bool)>) {
        let window = self.windows[usize::from(acted.action)];
        let past = self.past(user);
        if !past.seen.insert(acted.event) {
            return (false, None);
        }
        let at = past.acted.partition_point(|a| a.time_ms <= acted.time_ms);
        past.acted.insert(at, acted);
        let Some((at, candidate)) =
            past.find(&acted, window).filter(|(at, _)| past.in_time(*at, &acted, window))
        else {
            return (true, None);
        };
        let shown = &mut past.shown[at];
        let (before, now) = (shown.observed(candidate), shown.observed(candidate) | 1 << acted.action);
        shown.set(candidate, now);
        (true, Some((shown.change(candidate), before != now)))
    }

    /// Takes a request; gives the marks that differ now, its own included.
    pub(crate) fn show(&mut self, user: u32, shown: Shown, changes: &mut Vec<Change>) {
        let windows = std::mem::take(&mut self.windows);
        self.past(user).show(shown, &windows, changes);
        self.windows = windows;
    }

    /// Drops all of a user.
    pub(crate) fn forget(&mut self, user: u32) {
        *self.past(user) = Past::default();
    }

    /// Drops what is older than `before_ms`.
    pub(crate) fn evict(&mut self, before_ms: i64) {
        for past in &mut self.pasts {
            past.evict(before_ms);
        }
    }

    /// Counts what became of the actions.
    pub(crate) fn count(&self, stats: &mut JoinStats) {
        for past in &self.pasts {
            for acted in &past.acted {
                let window = self.windows[usize::from(acted.action)];
                *match past.find(acted, i64::MAX) {
                    None => &mut stats.unjoined_actions,
                    Some((at, _)) if !past.in_time(at, acted, window) => &mut stats.late_actions,
                    Some((at, _)) if past.shown[at].fate == Fate::NoRow => &mut stats.left_out_actions,
                    Some(_) => &mut stats.joined_actions,
                } += 1;
            }
        }
    }
}

impl Shown {
    fn observed(&self, candidate: u16) -> u64 {
        self.marks.iter().find(|(c, _)| *c == candidate).map_or(0, |(_, bits)| *bits)
    }

    fn set(&mut self, candidate: u16, bits: u64) {
        match self.marks.iter_mut().find(|(c, _)| *c == candidate) {
            Some(mark) => mark.1 = bits,
            None => self.marks.push((candidate, bits)),
        }
    }

    fn change(&self, candidate: u16) -> Change {
        let (offset, time_ms, fate) = (self.offset, self.time_ms, self.fate);
        Change { offset, time_ms, fate, candidate, observed: self.observed(candidate) }
    }

    /// The place of an item; of an item that stands there twice the first by its request, else the last.
    fn place(&self, item: u32, by_request: bool) -> Option<u16> {
        let is = |i: &u32| *i == item;
        let at = if by_request { self.items.iter().position(is) } else { self.items.iter().rposition(is) };
        at.map(|at| at as u16)
    }
}

impl Past {
    /// The request of an action and its candidate. By request id; without one the latest request that shows the item
    /// at or before the action, or the first where all are later (which is then not in time). One that is more than
    /// `within_ms` older may not be found.
    fn find(&self, acted: &Acted, within_ms: i64) -> Option<(usize, u16)> {
        let place = |at: usize| Some((at, self.shown[at].place(acted.item, acted.request != 0)?));
        if acted.request != 0 {
            let mut of_request =
                (0..self.shown.len()).rev().filter(|at| self.shown[*at].request == acted.request);
            return of_request.find_map(place);
        }
        let end = self.shown.partition_point(|s| s.time_ms <= acted.time_ms);
        let young = |at: &usize| acted.time_ms.saturating_sub(self.shown[*at].time_ms) <= within_ms;
        let before = (0..end).rev().take_while(young).find_map(place);
        before.or_else(|| (end..self.shown.len()).find_map(place))
    }

    fn in_time(&self, at: usize, acted: &Acted, window: i64) -> bool {
        // An action that names its request came after it, even where the client's clock runs behind.
        let earliest = if acted.request == 0 { 0 } else { -MAX_FUTURE_MS };
        (earliest..=window).contains(&acted.time_ms.saturating_sub(self.shown[at].time_ms))
    }

    fn show(&mut self, shown: Shown, windows: &[i64], changes: &mut Vec<Change>) {
        let (time_ms, request) = (shown.time_ms, shown.request);
        let at = self.shown.partition_point(|s| s.time_ms <= time_ms);
        self.shown.insert(at, shown);
        let first = self.acted.partition_point(|a| a.time_ms < time_ms.saturating_sub(MAX_FUTURE_MS));
        let mine = |a: &&Acted| a.request == request || (a.request == 0 && a.time_ms >= time_ms);
        let mut items: Vec<u32> = self.acted[first..].iter().filter(mine).map(|a| a.item).collect();
        items.sort_unstable();
        items.dedup();
        for item in items {
            // Only the request before it can lose the item's actions to it.
            let former = (0..at).rev().find(|at| self.shown[*at].items.contains(&item));
            for at in former.into_iter().chain([at]) {
                self.mark_again(at, item, windows, changes);
            }
        }
    }

    /// Marks an item of a request from all kept actions.
    fn mark_again(&mut self, at: usize, item: u32, windows: &[i64], changes: &mut Vec<Change>) {
        let mut marks: [(Option<u16>, u64); 2] =
            [true, false].map(|by_request| (self.shown[at].place(item, by_request), 0));
        for acted in self.acted.iter().filter(|a| a.item == item) {
            let window = windows[usize::from(acted.action)];
            if let Some((found, candidate)) = self.find(acted, window)
                && found == at
                && self.in_time(at, acted, window)
                && let Some(mark) = marks.iter_mut().find(|(place, _)| *place == Some(candidate))
            {
                mark.1 |= 1 << acted.action;
            }
        }
        let once = if marks[0].0 == marks[1].0 { 1 } else { 2 };
        for (place, bits) in marks.into_iter().take(once) {
            let Some(place) = place else { continue };
            if self.shown[at].observed(place) != bits {
                self.shown[at].set(place, bits);
                changes.push(self.shown[at].change(place));
            }
        }
    }

    fn evict(&mut self, before_ms: i64) {
        self.shown.drain(..self.shown.partition_point(|s| s.time_ms < before_ms));
        // Up to this much older they may be the actions of a request that stays.
        let before_ms = before_ms.saturating_sub(MAX_FUTURE_MS);
        let old = self.acted.partition_point(|a| a.time_ms < before_ms);
        for acted in self.acted.drain(..old) {
            self.seen.remove(&acted.event);
        }
        if self.acted.capacity() > 2 * self.acted.len() {
            self.acted.shrink_to_fit();
            self.seen.shrink_to_fit();
        }
    }

    /// Makes what is not kept in a snapshot.
    pub(crate) fn restore(&mut self) {
        self.seen = self.acted.iter().map(|a| a.event).collect();
    }

    pub(crate) fn of(&mut self, time_ms: i64, offset: u64) -> Option<&mut Shown> {
        let first = self.shown.partition_point(|s| s.time_ms < time_ms);
        self.shown[first..].iter_mut().take_while(|s| s.time_ms == time_ms).find(|s| s.offset == offset)
    }
}
