//! What people met and did, from the log: the matter of all methods.

use std::collections::HashMap;
use std::sync::Arc;

use lately_features::schema::Polarity;
use lately_features::{Action, Event, Features, Impression, Item, ItemId, RequestId, Schema, UserId};

use super::EmbedError;
use crate::dates::DateRange;
use crate::known::Interner;

/// One meeting of a person with an item: shown, or acted on.
#[derive(Debug, Clone, Copy)]
struct Meeting {
    user: u32,
    /// XXH3-64 of the request id, 0 where there is none.
    request: u64,
    item: u32,
    time_ms: i64,
    offset: u64,
    /// 1 wanted, -1 unwanted, 0 only met.
    value: i8,
    /// Whether it is an action; a showing alone is none.
    acted: bool,
}

/// What a person thought of an item, over all their meetings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    pub(super) user: u32,
    pub(super) item: u32,
    /// Mean over the meetings of 1 (wanted), -1 (unwanted) or 0 (neither).
    pub(super) value: f64,
}

/// Meetings of a range of time, from records in the order of the log.
pub struct Histories {
    schema: Arc<Schema>,
    range: DateRange,
    limit: usize,
    polarity: HashMap<String, i8>,
    users: Interner<UserId>,
    items: Interner<ItemId>,
    meetings: Vec<Meeting>,
    features: HashMap<u32, Features>,
}

impl Histories {
    /// Most meetings held, 48 bytes each.
    pub const LIMIT: usize = 50_000_000;

    /// Takes records of `range` (by event time) and holds at most `limit` meetings.
    pub fn new(schema: &Arc<Schema>, range: DateRange, limit: usize) -> Self {
        let value = |polarity| match polarity {
            Polarity::Positive => 1,
            Polarity::Negative => -1,
            Polarity::Neutral => 0,
        };
        let polarity = schema.actions.iter().map(|a| (a.name.clone(), value(a.polarity))).collect();
        let (users, items) = (Interner::default(), Interner::default());
        let (schema, features) = (schema.clone(), HashMap::new());
        Self { schema, range, limit, polarity, users, items, meetings: Vec::new(), features }
    }

    /// Takes the next record of the log; what people did outside of the range passes by.
    ///
    /// # Errors
    /// [`EmbedError::TooLarge`].
    pub fn push(&mut self, offset: u64, event: &Event) -> Result<(), EmbedError> {
        match event {
            Event::Action(e) if self.range.contains(e.time_ms) => self.action(offset, e),
            Event::Impression(e) if self.range.contains(e.time_ms) => self.impression(offset, e),
            Event::Item(e) => self.item(e),
            Event::Forget(e) => {
                // A store removes the records, so that a forgotten user is rarely known here.
                if let Some(user) = self.users.find(&e.user) {
                    self.meetings.retain(|m| m.user != user);
                }
            }
            _ => {}
        }
        if self.meetings.len() > self.limit {
            return Err(EmbedError::TooLarge(self.limit));
        }
        Ok(())
    }

    fn action(&mut self, offset: u64, e: &Action) {
        let Some(value) = self.polarity.get(&e.action).copied() else { return };
        let request = e.request.as_ref().map_or(0, RequestId::hash64);
        let (user, item) = (self.users.number(&e.user), self.items.number(&e.item));
        let time_ms = e.time_ms;
        self.meetings.push(Meeting { user, request, item, time_ms, offset, value, acted: true });
    }

    fn impression(&mut self, offset: u64, e: &Impression) {
        let (user, request, time_ms) = (self.users.number(&e.user), e.request.hash64(), e.time_ms);
        for shown in &e.items {
            let item = self.items.number(&shown.item);
            self.meetings.push(Meeting { user, request, item, time_ms, offset, value: 0, acted: false });
        }
    }

    /// An item's features are the last of the range, or the first after it: an importer may send all items late.
    fn item(&mut self, e: &Item) {
        let item = self.items.number(&e.item);
        let later = self.features.contains_key(&item) && e.time_ms >= self.range.end_ms;
        if let Ok(features) = Features::encode(&self.schema.item_features, &e.features)
            && !later
        {
            self.features.insert(item, features);
        }
    }

    /// Features of an item by its number, where they were sent.
    pub(super) fn features(&self, item: usize) -> Option<&Features> {
        self.features.get(&(item as u32))
    }

    /// The items that were sent or met; methods number them by their place here.
    pub fn items(&self) -> &[ItemId] {
        &self.items.list
    }

    /// People, and records of what they did or were shown.
    pub fn counts(&self) -> (usize, usize) {
        (self.users.list.len(), self.meetings.len())
    }

    /// First and last time of what was taken, ms since 1970 UTC.
    pub fn range_ms(&self) -> Option<(i64, i64)> {
        let times = self.meetings.iter().map(|m| m.time_ms);
        times.clone().min().zip(times.max())
    }

    /// For each person the items that they acted on, oldest first; several actions on one item in one request count
    /// once.
    pub(super) fn sequences(&mut self) -> Vec<Vec<u32>> {
        self.meetings.sort_unstable_by_key(|m| (m.user, m.request, m.item, m.time_ms, m.offset));
        let one = |a: &Meeting, b: &Meeting| same(a, b) && a.request != 0;
        let first = |run: &[Meeting]| run.iter().find(|m| m.acted).copied();
        let mut acted: Vec<Meeting> = self.meetings.chunk_by(one).filter_map(first).collect();
        acted.sort_unstable_by_key(|m| (m.user, m.time_ms, m.offset));
        let items = |run: &[Meeting]| run.iter().map(|m| m.item).collect();
        acted.chunk_by(|a, b| a.user == b.user).map(items).collect()
    }

    /// The outcome of each pair of person and item. Of several actions in one request an unwanted one decides, then
    /// a wanted one; without a request each action is a meeting.
    pub(super) fn outcomes(&mut self) -> Vec<Outcome> {
        self.meetings.sort_unstable_by_key(|m| (m.user, m.item, m.request, m.offset));
        let pair = |run: &[Meeting]| {
            let meetings = run.chunk_by(|a, b| same(a, b) && a.request != 0);
            let values: Vec<f64> = meetings.map(verdict).collect();
            let value = values.iter().sum::<f64>() / values.len() as f64;
            Outcome { user: run[0].user, item: run[0].item, value }
        };
        self.meetings.chunk_by(|a, b| (a.user, a.item) == (b.user, b.item)).map(pair).collect()
    }
}

fn same(a: &Meeting, b: &Meeting) -> bool {
    (a.user, a.request, a.item) == (b.user, b.request, b.item)
}

fn verdict(run: &[Meeting]) -> f64 {
    let value = |v: i8| run.iter().any(|m| m.value == v);
    if value(-1) { -1.0 } else { f64::from(u8::from(value(1))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{T0, action, forget, impression, item, schema};

    fn histories(events: &[Event], range: DateRange) -> Histories {
        let mut histories = Histories::new(&schema(), range, 100);
        for (offset, event) in (0..).zip(events) {
            histories.push(offset, event).unwrap();
        }
        histories
    }

    fn log() -> Vec<Event> {
        vec![
            item("a", [0.0; 4], 1.0),
            Event::Impression(impression("r", "u", &["a", "b", "c"], 10)),
            action("u", "a", "seen", 11, "r"),
            action("u", "b", "seen", 12, "r"),
            action("u", "b", "click", 13, "r"),
            action("u", "a", "hide", 14, "r"),
            action("u", "a", "save", 15, "r"),
            action("u", "d", "save", 5, ""), // late
            action("u", "d", "seen", 16, ""),
            action("v", "a", "seen", 900, ""),
        ]
    }

    #[test]
    fn histories_are_in_order_of_time_with_one_place_an_item_of_a_request() {
        let mut h = histories(&log(), DateRange::ALL);
        let ids: Vec<Vec<&str>> = h.sequences().iter().map(|s| names(&h, s)).collect();
        assert_eq!(ids, [vec!["d", "a", "b", "d"], vec!["a"]]);
        assert_eq!(h.range_ms(), Some((T0 + 5_000, T0 + 900_000)));
    }

    fn names<'a>(h: &'a Histories, items: &[u32]) -> Vec<&'a str> {
        items.iter().map(|i| h.items()[*i as usize].as_str()).collect()
    }

    #[test]
    fn outcomes_tell_wanted_unwanted_and_only_shown() {
        let mut h = histories(&log(), DateRange::ALL);
        let outcomes = h.outcomes();
        let of = |user: u32| outcomes.iter().filter(move |o| o.user == user);
        let told: Vec<(&str, f64)> = of(0).map(|o| (names(&h, &[o.item])[0], o.value)).collect();
        assert_eq!(told, [("a", -1.0), ("b", 1.0), ("c", 0.0), ("d", 0.5)]);
        assert_eq!(of(1).count(), 1);
    }

    #[test]
    fn what_is_outside_of_the_range_forgotten_or_too_much_is_not_taken() {
        let range = DateRange { start_ms: i64::MIN, end_ms: T0 + 900_000 };
        assert_eq!(histories(&log(), range).counts(), (1, 10));
        let mut forgotten = log();
        forgotten.extend([forget("u"), action("u", "b", "save", 20, "")]);
        assert_eq!(histories(&forgotten, range).counts(), (1, 1));
        let mut few = Histories::new(&schema(), range, 2);
        let refused = (0..).zip(&log()).find_map(|(offset, event)| few.push(offset, event).err());
        assert!(matches!(refused, Some(EmbedError::TooLarge(2))));
    }
}
