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
