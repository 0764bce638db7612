//! The streaming join: what is known, what waits for labels, and what has changed since it was written.
//!
//! Its state is a function of the log up to a place and of which rows were written where. So it can be made again from a
//! snapshot by reading the log from there and closing what the commits since have closed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use lately_features::{Event, Impression, Schema, UserId};
use serde::{Deserialize, Serialize};

use super::config::LakeConfig;
use super::delays::{self, Delays};
use super::row::Row;
use crate::join::{self, JoinError};
use crate::known::{Known, Version};
use crate::labels::{Change, Fate, Labels};
use crate::stats::JoinStats;

/// An hour, ms.
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// A row whose wait is over, with what was observed on its candidates.
pub(crate) type Closed = (Row<Arc<Version>>, Vec<(u16, u64)>);

/// What one commit wrote.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Since {
    /// First log record that it had not joined.
    pub(crate) next_offset: u64,
    /// Offsets of the requests that it wrote.
    pub(crate) closed: Vec<u64>,
}

/// How many actions of one user fell into an hour and the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    hour: i64,
    now: u32,
    before: u32,
}

impl Rate {
    fn count(&mut self, time_ms: i64) {
        let hour = time_ms.div_euclid(HOUR_MS);
        match hour.saturating_sub(self.hour) {
            0 => self.now = self.now.saturating_add(1),
            1 => *self = Self { hour, now: 1, before: self.now },
            2.. => *self = Self { hour, now: 1, before: 0 },
            -1 => self.before = self.before.saturating_add(1),
            _ => {}
        }
    }

    /// The larger of the two where the request is in the hour or soon after it.
    fn at(self, time_ms: i64) -> u32 {
        match time_ms.div_euclid(HOUR_MS).saturating_sub(self.hour) {
            0 => self.now.max(self.before),
            1 => self.now,
            -1 => self.before,
            _ => 0,
        }
    }
}

/// Rows that commits since the snapshot have written, while the log is read again.
#[derive(Default)]
pub(crate) struct Replay {
    pub(crate) commits: VecDeque<Since>,
    closed: HashSet<u64>,
    /// User and time of those that were read again.
    places: HashMap<u64, (u32, i64)>,
}

impl Replay {
    pub(crate) fn new(commits: VecDeque<Since>) -> Self {
        let closed = commits.iter().flat_map(|c| c.closed.iter().copied()).collect();
        Self { commits, closed, places: HashMap::new() }
    }
}

/// See the module.
pub(crate) struct Stream {
    pub(crate) config: LakeConfig,
    pub(crate) known: Known,
    pub(crate) labels: Labels,
    /// By number of the user.
    pub(crate) rates: Vec<Rate>,
    /// By action type.
    pub(crate) delays: Vec<Delays>,
    /// By action type those that came after their row was written.
    pub(crate) late: Vec<u64>,
    /// Requests that wait, by time and offset.
    pub(crate) open: BTreeMap<(i64, u64), Row<Arc<Version>>>,
    pub(crate) last: Option<u64>,
    /// Time of the latest request, ms.
    pub(crate) log_time_ms: i64,
    pub(crate) stats: JoinStats,
    pub(crate) replay: Replay,
    /// What is no longer as it was written, by hour, offset and candidate.
    pub(crate) corrections: BTreeMap<(i64, u64, u16), u64>,
    pub(crate) forgotten: Vec<(UserId, u64)>,
    changes: Vec<Change>,
}

impl Stream {
    pub(crate) fn new(schema: &Arc<Schema>, config: &LakeConfig) -> Result<Self, JoinError> {
        let actions = schema.actions.len();
        if actions > 64 {
            return Err(JoinError::TooManyActions(actions));
        }
        Ok(Self {
            config: config.clone(),
            known: Known::new(schema, config.slack, None),
            labels: Labels::new(schema),
            rates: Vec::new(),
            delays: vec![Delays::default(); actions],
            late: vec![0; actions],
            open: BTreeMap::new(),
            last: None,
            log_time_ms: i64::MIN,
            stats: JoinStats::default(),
            replay: Replay::default(),
            corrections: BTreeMap::new(),
            forgotten: Vec::new(),
            changes: Vec::new(),
        })
    }

    /// How long a request waits now, ms.
    pub(crate) fn wait_ms(&self) -> i64 {
        delays::wait_ms(&self.delays, &self.known.schema, &self.config)
    }

    /// First record that it has not taken.
    pub(crate) fn next_offset(&self) -> u64 {
        self.last.map_or(0, |last| last + 1)
    }

    /// Takes the next record; no time of a request counts as later than `now_ms`. Whether it is new: not one that is
    /// only read again.
    pub(crate) fn push(&mut self, offset: u64, event: &Event, now_ms: i64) -> Result<bool, JoinError> {
        if let Some(last) = self.last
            && offset <= last
        {
            return Err(JoinError::Order { last, offset });
        }
        self.close_again(offset);
        self.last = Some(offset);
        self.stats.events += 1;
        match event {
            Event::Action(e) => self.action(offset, e),
            Event::Impression(e) => self.impression(offset, e, now_ms),
            Event::Item(_) | Event::User(_) => join::learn(&mut self.known, &mut self.stats, offset, event),
            Event::Forget(e) => self.forget(offset, &e.user),
        }
        Ok(!self.replays())
    }

    fn action(&mut self, offset: u64, e: &lately_features::Action) {
        let user = self.known.user(&e.user);
        self.rate(user).count(e.time_ms);
        let mark = join::act(&mut self.known, &mut self.labels, &mut self.stats, offset, e);
        let Some((action, change, new)) = mark else { return };
        // It was known when it happened or when it arrived, whichever is later.
        let known_ms = e.time_ms.max(self.log_time_ms);
        self.delays[usize::from(action)].add(known_ms.saturating_sub(change.time_ms));
        if new {
            self.late[usize::from(action)] += u64::from(change.fate == Fate::Written);
            self.correct(change);
        }
    }

    fn rate(&mut self, user: u32) -> &mut Rate {
        if self.rates.len() <= user as usize {
            self.rates.resize(user as usize + 1, Rate::default());
        }
        &mut self.rates[user as usize]
    }

    fn correct(&mut self, change: Change) {
        if change.fate == Fate::Written && !self.replays() {
            let hour = change.time_ms.div_euclid(HOUR_MS);
            self.corrections.insert((hour, change.offset, change.candidate), change.observed);
        }
    }

    fn impression(&mut self, offset: u64, e: &Impression, now_ms: i64) {
        self.stats.impressions += 1;
        let user = self.known.user(&e.user);
        if self.labels.knows_request(user, e.request.hash64()) {
            self.stats.repeated_impressions += 1;
            return;
        }
        self.log_time_ms = self.log_time_ms.max(e.time_ms.min(now_ms));
        let shown = join::shown(&mut self.known, offset, e, Fate::Open);
        if self.replay.closed.contains(&offset) {
            self.replay.places.insert(offset, (user, e.time_ms));
        } else {
            let bot = self.rate(user).at(e.time_ms) > self.config.bot_actions_per_hour;
            let row = Row::new(&self.known, user, offset, e, &shown.items, bot);
            self.open.insert((e.time_ms, offset), row);
        }
        let mut changes = std::mem::take(&mut self.changes);
        self.labels.show(user, shown, &mut changes);
        changes.drain(..).for_each(|change| self.correct(change));
        self.changes = changes;
    }

    fn forget(&mut self, offset: u64, id: &UserId) {
        let user = self.known.user(id);
        self.known.forget(user);
        self.labels.forget(user);
        *self.rate(user) = Rate::default();
        self.open.retain(|_, row| row.user != user);
        if !self.replays() {
            self.forgotten.push((id.clone(), offset));
        }
    }

    /// Candidates of the rows whose wait is over at `at_ms`.
    pub(crate) fn due(&self, at_ms: i64) -> usize {
        let due = at_ms.saturating_sub(self.wait_ms());
        let surplus = self.open.len().saturating_sub(self.config.open_requests);
        let is_due = |(n, (key, _)): &(usize, (&(i64, u64), _))| *n < surplus || key.0 <= due;
        self.open.iter().enumerate().take_while(is_due).map(|(_, (_, row))| row.candidates.len()).sum()
    }

    /// Takes out the rows whose wait is over at `at_ms`, and the oldest where too many wait; those of about
    /// `commit_candidates` at once.
    pub(crate) fn close(&mut self, at_ms: i64) -> Vec<Closed> {
        let due = at_ms.saturating_sub(self.wait_ms());
        let (mut closed, mut candidates) = (Vec::new(), 0);
        while let Some(first) = self.open.first_entry()
            && (first.key().0 <= due || self.open.len() > self.config.open_requests)
            && candidates < self.config.commit_candidates
        {
            let Some((_, row)) = self.open.pop_first() else { break };
            candidates += row.candidates.len();
            let shown = self.labels.past(row.user).of(row.time_ms, row.offset);
            let marks = shown.map(|shown| {
                shown.fate = Fate::Written;
                shown.marks.clone()
            });
            closed.push((row, marks.unwrap_or_default()));
        }
        closed
    }

    /// Drops what no action can belong to any more; not the labels of requests that are still to be written.
    pub(crate) fn evict(&mut self) {
        let oldest = self.open.keys().next().map_or(i64::MAX, |(ms, _)| *ms);
        self.labels.evict(oldest.min(self.log_time_ms.saturating_sub(self.horizon_ms())));
    }

    /// Age, ms, from which a request is forgotten by the stream: no action is joined to it any more.
    pub(crate) fn horizon_ms(&self) -> i64 {
        self.labels.longest_ms() + i64::from(self.config.late_seconds) * 1000
    }

    /// Whether the log is being read again.
    pub(crate) fn replays(&self) -> bool {
        !self.replay.commits.is_empty()
    }

    /// Actions that the sequences hold.
    pub(crate) fn actions(&self) -> u64 {
        self.known.people.iter().map(|p| p.sequence.entries().len() as u64).sum()
    }

    /// While the log is read again: closes what the commits closed that had not seen `offset`.
    pub(crate) fn close_again(&mut self, offset: u64) {
        while let Some(commit) = self.replay.commits.front()
            && commit.next_offset <= offset
        {
            let Some(commit) = self.replay.commits.pop_front() else { break };
            for offset in &commit.closed {
                if let Some((user, time_ms)) = self.replay.places.remove(offset)
                    && let Some(shown) = self.labels.past(user).of(time_ms, *offset)
                {
                    shown.fate = Fate::Written;
                }
            }
            // Those that the snapshot holds.
            let closed: HashSet<u64> = commit.closed.into_iter().collect();
            let rows: Vec<_> = self.open.keys().filter(|key| closed.contains(&key.1)).copied().collect();
            for key in rows {
                let Some(row) = self.open.remove(&key) else { continue };
                if let Some(shown) = self.labels.past(row.user).of(key.0, key.1) {
                    shown.fate = Fate::Written;
                }
            }
            if self.replay.commits.is_empty() {
                self.replay = Replay::default();
            }
        }
    }
}
