//! From the log to training rows: what was served, joined with what followed.
//!
//! **The watermark.** A row's sequence, user and item features are what had been ingested when the request was
//! ranked: the records with an offset below `Impression::watermark`. Not event time: an action that happened before
//! the request but arrived after it is unknown to the row, as it was to the ranker. Between watermark and impression
//! the log may hold other actions of the user. The join therefore keeps, beyond the schema's `sequence.stored`
//! newest actions, [`JoinOptions::slack`] more a user, and versions of features; a row for which that was not enough
//! is left out and counted as `unknowable` rather than approximated.
//!
//! **Labels.** Actions are joined when all have been read, so the order of arrival does not matter. An action with a
//! request id belongs to that request; without one, to the user's latest impression of the item at or before it.
//! It counts if it came within its type's `attribution_seconds` of the impression, by event time.

use std::collections::HashSet;
use std::sync::Arc;

use lately_features::{
    Action, Assembler, Event, EventError, Features, Impression, ItemId, ItemVectors, Schema, SequenceEntry,
    Token, UserId, UserSequence, tokens,
};
use lately_store::{Store, StoreError};

use crate::dataset::{Candidate, Dataset, Request, head_bits};
use crate::dates::DateRange;
use crate::known::{Interner, Versions};
use crate::labels::{Labelled, NO_ROW, Shown, label};
pub use crate::stats::JoinStats;

/// Records that are read from the store at once: a few MB.
const PAGE: usize = 4_096;
/// The one trouble that stays in training, and what orders instead: what was ordered by popularity before there was a
/// model is as good to learn from as any list from outside, and it is all that a new product has.
const NO_MODEL: &str = "no_model";
const WITHOUT_MODEL: [&str; 3] = [NO_MODEL, "popularity", "input_order"];

/// Whether an impression is no example of what serving does: a rung was in force, by trouble or as an exercise.
fn is_degraded(rungs: &[String]) -> bool {
    let before_the_first = rungs.iter().any(|r| r == NO_MODEL);
    rungs.iter().any(|r| !before_the_first || !WITHOUT_MODEL.contains(&r.as_str()))
}

/// Limits of a join.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Requests outside are not made into rows; their records still feed sequences and labels.
    pub range: DateRange,
    /// Actions of one user kept beyond `sequence.stored`: as many may be logged between a request's watermark and
    /// its impression. Default 1,024.
    pub slack: usize,
    /// Most rows (shown items) in memory, 64 bytes each while joining. Default 20 million.
    pub max_rows: usize,
    /// Most tokens in memory, 24 bytes each. Default 100 million.
    pub max_tokens: usize,
    /// Table that gives all items their vectors, past rows included: the one that the model is to be served with.
    /// Default: none, each item has what it was sent with.
    pub vectors: Option<Arc<ItemVectors>>,
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self {
            range: DateRange::ALL,
            slack: 1_024,
            max_rows: 20_000_000,
            max_tokens: 100_000_000,
            vectors: None,
        }
    }
}

/// Why a join failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Labels are kept as bits.
    #[error("the schema has {0} action types: training takes at most 64; merge rare ones")]
    TooManyActions(usize),
    /// Too many rows or tokens.
    #[error("the range holds more than {limit} {what}: train on fewer days or raise the limit")]
    TooLarge {
        /// Rows or tokens.
        what: &'static str,
        /// The limit that was passed.
        limit: usize,
    },
    /// Offsets must grow.
    #[error("the log went back from offset {last} to {offset}: read it in order, each record once")]
    Order {
        /// Offset before.
        last: u64,
        /// Offset that came.
        offset: u64,
    },
    /// The log could not be read.
    #[error("the log could not be read: {0}")]
    Read(Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for JoinError {
    fn from(e: StoreError) -> Self {
        Self::Read(Box::new(e))
    }
}

/// Joins a store's whole log.
pub fn join_store(store: &Store, schema: &Arc<Schema>, options: JoinOptions) -> Result<Dataset, JoinError> {
    let mut joiner = Joiner::new(schema, options)?;
    let mut next = 0;
    loop {
        let page = store.read(next, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(joiner.finish()) };
        next = last + 1;
        for (offset, event) in page {
            joiner.push(offset, event)?;
        }
    }
}

/// Joins records in the order of the log; `E` is the reader's error.
pub fn join<E>(
    schema: &Arc<Schema>,
    events: impl IntoIterator<Item = Result<(u64, Event), E>>,
    options: JoinOptions,
) -> Result<Dataset, JoinError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut joiner = Joiner::new(schema, options)?;
    for event in events {
        let (offset, event) = event.map_err(|e| JoinError::Read(Box::new(e)))?;
        joiner.push(offset, event)?;
    }
    Ok(joiner.finish())
}

/// Takes the log record by record; see [`join`] for the usual way.
pub struct Joiner {
    schema: Arc<Schema>,
    assembler: Assembler,
    options: JoinOptions,
    stored: usize,
    last: Option<u64>,
    users: Interner<UserId>,
    states: Vec<UserState>,
    items: Interner<ItemId>,
    item_features: Vec<Versions>,
    requests: Vec<Request>,
    shown: Vec<Shown>,
    actions: Vec<Labelled>,
    stats: JoinStats,
}

#[derive(Default)]
struct UserState {
    sequence: UserSequence,
    features: Versions,
    seen_events: HashSet<u64>,
    seen_requests: HashSet<u64>,
    /// What stands before these positions is of before the user was forgotten.
    first_request: usize,
    first_shown: usize,
    first_action: usize,
}

impl Joiner {
    /// Starts an empty join.
    pub fn new(schema: &Arc<Schema>, options: JoinOptions) -> Result<Self, JoinError> {
        if schema.actions.len() > 64 {
            return Err(JoinError::TooManyActions(schema.actions.len()));
        }
        Ok(Self {
            schema: schema.clone(),
            assembler: Assembler::new(schema),
            options,
            stored: usize::from(schema.sequence.stored),
            last: None,
            users: Interner::default(),
            states: Vec::new(),
            items: Interner::default(),
            item_features: Vec::new(),
            requests: Vec::new(),
            shown: Vec::new(),
            actions: Vec::new(),
            stats: JoinStats::default(),
        })
    }

    /// Takes the next record. Offsets grow; gaps (scrubbed records) are fine.
    pub fn push(&mut self, offset: u64, event: Event) -> Result<(), JoinError> {
        if let Some(last) = self.last
            && offset <= last
        {
            return Err(JoinError::Order { last, offset });
        }
        self.last = Some(offset);
        self.stats.events += 1;
        match event {
            Event::Action(e) => self.action(offset, &e),
            Event::Impression(e) => self.impression(offset, &e)?,
            Event::Item(e) => {
                let item = self.item(&e.item);
                let vectors = self.options.vectors.as_deref();
                let encoded = Features::encode_item(&self.schema, vectors, &e.item, &e.features);
                keep(&mut self.stats, encoded, &mut self.item_features[item as usize], offset);
            }
            Event::User(e) => {
                let user = self.user(&e.user);
                let encoded = Features::encode(&self.schema.user_features, &e.features);
                keep(&mut self.stats, encoded, &mut self.states[user as usize].features, offset);
            }
            Event::Forget(e) => {
                let user = self.user(&e.user);
                self.states[user as usize] = UserState {
                    first_request: self.requests.len(),
                    first_shown: self.shown.len(),
                    first_action: self.actions.len(),
                    ..UserState::default()
                };
            }
        }
        Ok(())
    }

    fn user(&mut self, id: &UserId) -> u32 {
        let user = self.users.number(id);
        if user as usize == self.states.len() {
            self.states.push(UserState::default());
        }
        user
    }

    fn item(&mut self, id: &ItemId) -> u32 {
        let item = self.items.number(id);
        if item as usize == self.item_features.len() {
            self.item_features.push(Versions::default());
        }
        item
    }

    fn action(&mut self, offset: u64, e: &Action) {
        self.stats.actions += 1;
        let Some(action) = self.schema.action(&e.action) else {
            self.stats.unknown_actions += 1;
            return;
        };
        let user = self.user(&e.user);
        let state = &mut self.states[user as usize];
        let event = e.event_id.hash64();
        if !state.seen_events.insert(event) {
            self.stats.repeated_actions += 1;
            return;
        }
        let request = e.request.as_ref().map_or(0, |r| r.hash64());
        let surface = e.surface.as_deref().and_then(|s| self.schema.surface(s)).unwrap_or(0);
        if self.schema.actions[usize::from(action)].sequence {
            let item = e.item.clone();
            let entry = SequenceEntry { time_ms: e.time_ms, offset, event, request, action, surface, item };
            state.sequence.apply(entry, self.stored + self.options.slack);
        }
        let item = self.item(&e.item);
        self.actions.push(Labelled { user, item, time_ms: e.time_ms, request, action });
    }

    fn impression(&mut self, offset: u64, e: &Impression) -> Result<(), JoinError> {
        self.stats.impressions += 1;
        let user = self.user(&e.user);
        let hash = e.request.hash64();
        if !self.states[user as usize].seen_requests.insert(hash) {
            self.stats.repeated_impressions += 1;
            return Ok(());
        }
        let watermark = e.watermark.unwrap_or(offset).min(offset);
        let tokens = if is_degraded(&e.degraded) {
            self.stats.degraded += 1;
            None
        } else if !self.options.range.contains(e.time_ms) {
            self.stats.outside += 1;
            None
        } else {
            let tokens = self.tokens(user, watermark);
            self.stats.unknowable += u64::from(tokens.is_none());
            tokens
        };
        let row = if tokens.is_some() { self.requests.len() as u32 } else { NO_ROW };
        let mut candidates = Vec::with_capacity(e.items.len());
        for (at, shown) in e.items.iter().enumerate() {
            let item = self.item(&shown.item);
            let (time_ms, candidate) = (e.time_ms, at as u32);
            self.shown.push(Shown { user, item, time_ms, request: hash, row, candidate });
            let features = self.item_features[item as usize].before(watermark);
            candidates.push(Candidate { item, features, observed: 0, position: shown.position });
        }
        let Some(tokens) = tokens else { return Ok(()) };
        self.stats.rows += candidates.len() as u64;
        self.stats.tokens += tokens.len() as u64;
        let state = &self.states[user as usize];
        let features = state.features.before(watermark);
        let kinds = &self.schema.user_features;
        let rule = self.schema.core_users.as_ref();
        self.requests.push(Request {
            time_ms: e.time_ms,
            offset,
            user,
            surface: e.surface.as_deref().and_then(|s| self.schema.surface(s)).unwrap_or(0),
            core: features.as_ref().map_or(rule.is_none(), |f| f.is_core(kinds, rule)),
            tokens: tokens.into(),
            features,
            candidates: candidates.into(),
        });
        self.within_limits()
    }

    fn within_limits(&self) -> Result<(), JoinError> {
        for (what, count, limit) in [
            ("rows", self.stats.rows, self.options.max_rows),
            ("tokens", self.stats.tokens, self.options.max_tokens),
        ] {
            if count > limit as u64 {
                return Err(JoinError::TooLarge { what, limit });
            }
        }
        Ok(())
    }

    /// What the ranker's store gave at `watermark`: its newest `stored` entries, then the shared token function.
    /// `None` where entries that counted then may have been cut since.
    fn tokens(&mut self, user: u32, watermark: u64) -> Option<Vec<Token>> {
        let sequence = &self.states[user as usize].sequence;
        let entries = sequence.entries();
        let (items, features) = (&self.items, &self.item_features);
        let item = |id: &ItemId| features[items.find(id)? as usize].before(watermark);
        if entries.len() <= self.stored {
            return Some(tokens(&self.assembler, sequence, watermark, item)); // nothing was cut then or since
        }
        let known = entries.iter().filter(|e| e.offset < watermark).take(self.stored);
        let known = UserSequence::from_entries(known.cloned(), self.stored);
        let full = entries.len() == self.stored + self.options.slack;
        if full && known.entries().len() < self.stored {
            return None;
        }
        Some(tokens(&self.assembler, &known, watermark, item))
    }

    /// Joins the labels and gives the dataset.
    pub fn finish(mut self) -> Dataset {
        let states = &self.states;
        let mut index = 0;
        self.shown.retain(|s| {
            index += 1;
            index > states[s.user as usize].first_shown
        });
        let mut index = 0;
        self.actions.retain(|a| {
            index += 1;
            index > states[a.user as usize].first_action
        });
        label(&mut self.requests, self.shown, &self.actions, &self.schema, &mut self.stats);
        let mut index = 0;
        self.requests.retain(|r| {
            index += 1;
            index > states[r.user as usize].first_request
        });
        self.stats.forgotten = (index - self.requests.len()) as u64;
        self.requests.sort_by_key(|r| (r.time_ms, r.offset));
        let head_bits = head_bits(&self.schema);
        let embedding_version = self.options.vectors.map(|v| v.version().to_owned()).unwrap_or_default();
        let mut dataset = Dataset {
            schema: self.schema,
            embedding_version,
            users: self.users.list,
            items: self.items.list,
            requests: self.requests,
            stats: self.stats,
            assembler: self.assembler,
            head_bits,
        };
        dataset.stats.requests = dataset.requests.len() as u64;
        dataset.stats.rows = dataset.requests.iter().map(|r| r.candidates.len() as u64).sum();
        dataset.stats.tokens = dataset.requests.iter().map(|r| r.tokens.len() as u64).sum();
        dataset.stats.positives = dataset.all().positives();
        dataset
    }
}

fn keep(stats: &mut JoinStats, encoded: Result<Features, EventError>, versions: &mut Versions, offset: u64) {
    match encoded {
        Ok(features) => versions.push(offset, Arc::new(features)),
        Err(error) => {
            if stats.bad_features == 0 {
                tracing::warn!(offset, %error, "features in the log do not fit the schema; the first such record");
            }
            stats.bad_features += 1;
        }
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
