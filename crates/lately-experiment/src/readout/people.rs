//! What is kept of each person while a log is read.
//!
//! People are known by the hash of their id, so no id is kept. Each has a state and two sums a column (f32: seconds of a
//! year are exact to 4), so a person takes 48 + 8 x columns bytes and about 40 of the table: 136 with six columns (and for a
//! moment twice that, where the tables grow).

use std::collections::HashMap;

use super::design::{Design, Settings};
use super::segment::{ActiveDays, Segment};
use super::tallies::PersonSums;

/// Somebody exposed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exposed {
    pub(super) time_ms: i64,
    pub(super) variant: u8,
    pub(super) segment: Segment,
    /// Seen in another variant later.
    pub(super) crossed: bool,
}

/// What is known of a person beside the sums.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    pub(super) seen_ms: i64,
    last_ms: i64,
    pub(super) days: ActiveDays,
    pub(super) exposed: Option<Exposed>,
}

// What the documentation promises.
const _: () = assert!(size_of::<Person>() <= 48);

/// Which sums an event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Period {
    Before,
    During,
}

/// Everybody.
#[derive(Debug)]
pub(super) struct People {
    by_hash: HashMap<u64, u32>,
    people: Vec<Person>,
    /// For each person the columns before, then those during.
    sums: Vec<f32>,
    /// Places of people who were forgotten.
    free: Vec<u32>,
    columns: usize,
}

impl People {
    pub(super) fn new(columns: usize) -> Self {
        Self { by_hash: HashMap::new(), people: Vec::new(), sums: Vec::new(), free: Vec::new(), columns }
    }

    /// The place of a person, a new one where need be; `None` where no more are kept. Also whether seen before.
    pub(super) fn place(&mut self, hash: u64, time_ms: i64, settings: &Settings) -> Option<(u32, bool)> {
        if let Some(at) = self.by_hash.get(&hash) {
            return Some((*at, true));
        }
        if self.by_hash.len() >= settings.max_users.min(u32::MAX as usize) {
            return None;
        }
        let fresh =
            Person { seen_ms: time_ms, last_ms: i64::MIN, days: ActiveDays::default(), exposed: None };
        let at = match self.free.pop() {
            Some(at) => {
                self.people[at as usize] = fresh;
                at
            }
            None => {
                self.people.push(fresh);
                self.sums.resize(self.sums.len() + 2 * self.columns, 0.0);
                self.people.len() as u32 - 1
            }
        };
        self.by_hash.insert(hash, at);
        Some((at, false))
    }

    pub(super) fn person(&mut self, at: u32) -> &mut Person {
        &mut self.people[at as usize]
    }

    /// Adds to a column of a period.
    pub(super) fn add(&mut self, at: u32, period: Period, column: usize, amount: f32) {
        let offset = if period == Period::During { self.columns } else { 0 };
        self.sums[2 * self.columns * at as usize + offset + column] += amount;
    }

    /// Nothing of a person is kept.
    pub(super) fn forget(&mut self, hash: u64) {
        if let Some(at) = self.by_hash.remove(&hash) {
            self.people[at as usize].exposed = None;
            self.sums[2 * self.columns * at as usize..][..2 * self.columns].fill(0.0);
            self.free.push(at);
        }
    }

    /// Everybody who counts.
    pub(super) fn exposed(&self) -> impl Iterator<Item = PersonSums> {
        let wide = |sums: &[f32]| sums.iter().map(|n| f64::from(*n)).collect();
        self.people.iter().zip(self.sums.chunks_exact(2 * self.columns)).filter_map(move |(person, sums)| {
            let exposed = person.exposed.filter(|e| !e.crossed)?;
            let (before, during) = sums.split_at(self.columns);
            let variant = usize::from(exposed.variant);
            Some(PersonSums { variant, segment: exposed.segment, before: wide(before), during: wide(during) })
        })
    }

    /// People who were seen in two variants.
    pub(super) fn crossovers(&self) -> u64 {
        self.people.iter().filter(|p| p.exposed.is_some_and(|e| e.crossed)).count() as u64
    }
}

impl Person {
    /// Which sums an event of this time belongs to: those since the first exposure, or those of the pre-period of somebody
    /// not exposed yet. What a phone sends late from before an exposure is in neither.
    pub(super) fn period(&self, design: &Design, time_ms: i64) -> Option<Period> {
        let since = self.since(design)?;
        let end_ms = if self.exposed.is_some() {
            design.experiment.end_ms.unwrap_or(i64::MAX)
        } else {
            design.experiment.start_ms
        };
        let period = if self.exposed.is_some() { Period::During } else { Period::Before };
        (since..end_ms).contains(&time_ms).then_some(period)
    }

    /// When the current sums begin.
    fn since(&self, design: &Design) -> Option<i64> {
        let pre_ms = i64::from(design.settings.pre_days) * super::DAY_MS;
        Some(self.exposed.map_or(design.experiment.start_ms.checked_sub(pre_ms)?, |e| e.time_ms))
    }

    /// Marks an event and gives the seconds since the last one that are time spent in the current period.
    pub(super) fn touch(&mut self, design: &Design, time_ms: i64) -> f32 {
        self.days.mark(time_ms);
        self.seen_ms = self.seen_ms.min(time_ms);
        let last_ms = self.last_ms;
        self.last_ms = last_ms.max(time_ms);
        let within = self.since(design).is_some_and(|since| last_ms >= since);
        let gap_ms = time_ms.saturating_sub(last_ms);
        let spent = within && gap_ms > 0 && gap_ms <= i64::from(design.settings.gap_seconds) * 1000;
        if spent { gap_ms as f32 / 1000.0 } else { 0.0 }
    }
}
