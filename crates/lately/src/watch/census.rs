//! Counts of the log's newest hours: who did what, what was served, and how well.

use std::collections::{BTreeMap, HashMap};

use lately_features::{Event, Schema, UserId};
use serde::Serialize;

pub(crate) const HOUR_MS: i64 = 3_600_000;
/// Users that are named as too busy.
const NAMED: usize = 3;

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Census {
    /// Records of the whole log.
    pub records: u64,
    /// Time of the newest action, ms since 1970 UTC.
    pub newest_action_ms: Option<i64>,
    /// Time of the newest impression.
    pub newest_impression_ms: Option<i64>,
    /// Impressions of the window.
    pub impressions: u64,
    /// Those of them that a model ranked.
    pub ranked: u64,
    /// Impressions of the window by rung that was in force; those that are put on one on purpose included.
    pub rungs: BTreeMap<String, u64>,
    /// Impressions on any rung.
    pub degraded: u64,
    /// Actions of the window by hour and by type, in the schema's order.
    pub actions: BTreeMap<i64, Vec<u64>>,
    /// Users with more actions in an hour than a person makes.
    pub busy: u64,
    /// The busiest of them, with their actions in that hour.
    pub busiest: Vec<(String, u32)>,
}

impl Census {
    /// Share of each action type in the window, by name; empty where there was none.
    pub(crate) fn shares(&self, schema: &Schema) -> Vec<(String, f64)> {
        let sum = |at: usize| self.actions.values().map(|of| of[at]).sum::<u64>();
        let sums: Vec<u64> = (0..schema.actions.len()).map(sum).collect();
        let all = sums.iter().sum::<u64>();
        if all == 0 {
            return Vec::new();
        }
        let named = schema.actions.iter().zip(sums);
        named.map(|(action, n)| (action.name.clone(), n as f64 / all as f64)).collect()
    }
}

/// Takes the log record by record.
pub(super) struct Counter<'a> {
    schema: &'a Schema,
    start_ms: i64,
    end_ms: i64,
    busy_from: u32,
    census: Census,
    /// The hour whose users are counted, and they: one hour at a time bounds the memory.
    hour: i64,
    of_user: HashMap<UserId, u32>,
}

impl<'a> Counter<'a> {
    pub(super) fn new(schema: &'a Schema, start_ms: i64, end_ms: i64, busy_from: u32) -> Self {
        let (census, of_user) = (Census::default(), HashMap::new());
        Self { schema, start_ms, end_ms, busy_from, census, hour: i64::MIN, of_user }
    }

    pub(super) fn add(&mut self, event: &Event) {
        self.census.records += 1;
        let time_ms = event.time_ms();
        let newest = match event {
            Event::Action(_) => &mut self.census.newest_action_ms,
            Event::Impression(_) => &mut self.census.newest_impression_ms,
            _ => return,
        };
        *newest = Some(newest.map_or(time_ms, |n| n.max(time_ms)));
        if !(self.start_ms..=self.end_ms).contains(&time_ms) {
            return;
        }
        match event {
            Event::Action(e) => self.action(&e.user, &e.action, time_ms),
            Event::Impression(e) => {
                self.census.impressions += 1;
                self.census.ranked += u64::from(e.model.is_some());
                self.census.degraded += u64::from(!e.degraded.is_empty());
                for rung in &e.degraded {
                    *self.census.rungs.entry(rung.clone()).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    fn action(&mut self, user: &UserId, action: &str, time_ms: i64) {
        let Some(at) = self.schema.action(action) else { return };
        let hour = time_ms.div_euclid(HOUR_MS) * HOUR_MS;
        let none = || vec![0; self.schema.actions.len()];
        self.census.actions.entry(hour).or_insert_with(none)[usize::from(at)] += 1;
        if hour > self.hour {
            self.close();
            self.hour = hour;
        }
        // What comes an hour late is not counted again.
        if hour == self.hour {
            *self.of_user.entry(user.clone()).or_default() += 1;
        }
    }

    fn close(&mut self) {
        for (user, actions) in self.of_user.drain().filter(|(_, n)| *n > self.busy_from) {
            self.census.busy += 1;
            self.census.busiest.push((user.to_string(), actions));
        }
        self.census.busiest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        self.census.busiest.truncate(NAMED);
    }

    pub(super) fn finish(mut self) -> Census {
        self.close();
        self.census
    }
}

#[cfg(test)]
mod tests {
    use lately_features::{Action, EventId, Impression, ItemId, RequestId};

    use super::*;
    use crate::world::schema;

    const START: i64 = 1_700_000_000_000 / HOUR_MS * HOUR_MS;

    fn action(user: &str, action: &str, time_ms: i64) -> Event {
        Event::Action(Action {
            event_id: EventId::new(format!("{user}{time_ms}")).unwrap(),
            user: UserId::new(user).unwrap(),
            item: ItemId::new("i").unwrap(),
            action: action.to_owned(),
            time_ms,
            request: None,
            surface: None,
        })
    }

    fn list(model: Option<&str>, rungs: &[&str], time_ms: i64) -> Event {
        let (request, user) = (RequestId::new(format!("r{time_ms}")).unwrap(), UserId::new("u").unwrap());
        Event::Impression(Impression {
            model: model.map(str::to_owned),
            degraded: rungs.iter().map(|r| (*r).to_owned()).collect(),
            ..Impression::outside(request, user, None, time_ms, Vec::new())
        })
    }

    #[test]
    fn the_window_is_counted_by_hour_rung_and_user() {
        let schema = schema().unwrap();
        let mut counter = Counter::new(&schema, START, START + 2 * HOUR_MS, 3);
        counter.add(&action("before", "click", START - 1));
        // Four actions of `bot` in the first hour are too many, three are not; nor are two times two in two hours.
        (0..4).for_each(|n| counter.add(&action("bot", "click", START + n)));
        (0..3).for_each(|n| counter.add(&action("person", "save", START + n)));
        (0..2).for_each(|n| counter.add(&action("slow", "seen", START + n)));
        (0..2).for_each(|n| counter.add(&action("slow", "seen", START + HOUR_MS + n)));
        counter.add(&action("slow", "unheard of", START + HOUR_MS));
        counter.add(&list(Some("m"), &[], START + 5));
        counter.add(&list(Some("m"), &["stale", "first"], START + 6));
        counter.add(&list(None, &["popularity"], START + 7));
        counter.add(&list(Some("m"), &["popularity"], START + 3 * HOUR_MS));
        let census = counter.finish();
        assert_eq!((census.records, census.impressions, census.ranked, census.degraded), (17, 3, 2, 2));
        assert_eq!(census.rungs, ["first", "popularity", "stale"].map(|r| (r.to_owned(), 1)).into());
        assert_eq!(census.actions[&START], [2, 4, 3, 0], "seen, click, save, hide");
        assert_eq!(census.actions[&(START + HOUR_MS)], [2, 0, 0, 0]);
        assert_eq!((census.busy, census.busiest.as_slice()), (1, &[("bot".to_owned(), 4)][..]));
        assert_eq!(census.newest_impression_ms, Some(START + 3 * HOUR_MS), "beyond the window too");
        let shares = census.shares(&schema);
        assert_eq!(shares[0], ("seen".to_owned(), 4.0 / 11.0));
        assert_eq!(Census::default().shares(&schema), []);
    }
}
