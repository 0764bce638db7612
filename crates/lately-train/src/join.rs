//! From the log to training rows: what was served, joined with what followed.
//!
//! **The watermark.** A row's sequence, user and item features are what had been ingested when the request was
//! ranked: the records with an offset below `Impression::watermark`. Not event time: an action that happened before
//! the request but arrived after it is unknown to the row, as it was to the ranker. Between watermark and impression
//! the log may hold other actions of the user. The join therefore keeps, beyond the schema's `sequence.stored`
//! newest actions, [`JoinOptions::slack`] more a user, and versions of features; a row for which that was not enough
//! is left out and counted as `unknowable` rather than approximated.
//!
//! **Labels.** The order of arrival of actions and impressions does not matter. An action with a
//! request id belongs to that request; without one, to the user's latest impression of the item at or before it.
//! It counts if it came within its type's `attribution_seconds` of the impression, by event time.

use std::collections::HashMap;
use std::sync::Arc;

use lately_features::{Action, Event, Impression, ImpressionItem, ItemVectors, Schema, SequenceEntry};
use lately_store::{Store, StoreError};

use crate::dataset::{Candidate, Dataset, Request};
use crate::dates::DateRange;
use crate::known::{Known, View};
use crate::labels::{Acted, Change, Fate, Labels, Shown};
pub use crate::stats::JoinStats;

/// Records that are read from the store at once: a few MB.
const PAGE: usize = 4_096;
/// The one trouble that stays in training, and what orders instead: what was ordered by popularity before there was a
/// model is as good to learn from as any list from outside, and it is all that a new product has.
const NO_MODEL: &str = "no_model";
const WITHOUT_MODEL: [&str; 3] = [NO_MODEL, "popularity", "input_order"];

/// Whether an impression is no example of what serving does: a rung was in force, by trouble or as an exercise.
pub(crate) fn is_degraded(rungs: &[String]) -> bool {
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
    options: JoinOptions,
    last: Option<u64>,
    known: Known,
    labels: Labels,
    requests: Vec<Request>,
    /// Marks that changed; they are taken from the labels at the end.
    changes: Vec<Change>,
    /// By number of the user the offset of the last wish to be forgotten.
    forgotten: HashMap<u32, u64>,
    stats: JoinStats,
}

impl Joiner {
    /// Starts an empty join.
    pub fn new(schema: &Arc<Schema>, options: JoinOptions) -> Result<Self, JoinError> {
        if schema.actions.len() > 64 {
            return Err(JoinError::TooManyActions(schema.actions.len()));
        }
        Ok(Self {
            last: None,
            known: Known::new(schema, options.slack, options.vectors.clone()),
            labels: Labels::new(schema),
            requests: Vec::new(),
            changes: Vec::new(),
            forgotten: HashMap::new(),
            stats: JoinStats::default(),
            options,
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
            Event::Action(e) => {
                act(&mut self.known, &mut self.labels, &mut self.stats, offset, &e);
            }
            Event::Impression(e) => self.impression(offset, &e)?,
            Event::Item(_) | Event::User(_) => learn(&mut self.known, &mut self.stats, offset, &event),
            Event::Forget(e) => {
                let user = self.known.user(&e.user);
                self.known.forget(user);
                self.labels.forget(user);
                self.forgotten.insert(user, offset);
            }
        }
        Ok(())
    }

    fn impression(&mut self, offset: u64, e: &Impression) -> Result<(), JoinError> {
        self.stats.impressions += 1;
        let user = self.known.user(&e.user);
        if self.labels.knows_request(user, e.request.hash64()) {
            self.stats.repeated_impressions += 1;
            return Ok(());
        }
        let view = if is_degraded(&e.degraded) {
            self.stats.degraded += 1;
            None
        } else if !self.options.range.contains(e.time_ms) {
            self.stats.outside += 1;
            None
        } else {
            let view = self.known.view(user, watermark(e, offset));
            self.stats.unknowable += u64::from(view.tokens.is_none());
            Some(view).filter(|view| view.tokens.is_some())
        };
        let fate = if view.is_some() { Fate::Open } else { Fate::NoRow };
        let shown = shown(&mut self.known, offset, e, fate);
        if let Some(view) = view {
            self.row(user, offset, e, view, &shown.items);
        }
        self.changes.clear();
        self.labels.show(user, shown, &mut self.changes);
        self.within_limits()
    }

    fn row(&mut self, user: u32, offset: u64, e: &Impression, view: View, items: &[u32]) {
        let schema = &self.known.schema;
        let candidate = |(item, shown): (&u32, &ImpressionItem)| Candidate {
            item: *item,
            features: self.known.item_at(*item, watermark(e, offset)).features.clone(),
            observed: 0,
            position: shown.position,
            stands_for: 1.0,
        };
        let request = Request {
            time_ms: e.time_ms,
            offset,
            user,
            surface: e.surface.as_deref().and_then(|s| schema.surface(s)).unwrap_or(0),
            core: view.is_core(schema),
            tokens: view.tokens.unwrap_or_default().into(),
            features: view.features,
            candidates: items.iter().zip(&e.items).map(candidate).collect(),
        };
        self.stats.rows += request.candidates.len() as u64;
        self.stats.tokens += request.tokens.len() as u64;
        self.requests.push(request);
    }

    fn within_limits(&self) -> Result<(), JoinError> {
        check_size(&self.stats, self.options.max_rows, self.options.max_tokens)
    }

    /// Joins the labels and gives the dataset.
    pub fn finish(mut self) -> Dataset {
        self.labels.count(&mut self.stats);
        for shown in self.labels.pasts.iter().flat_map(|past| &past.shown) {
            // By offset, as they were pushed; one that made no row is not there.
            if let Ok(at) = self.requests.binary_search_by_key(&shown.offset, |r| r.offset) {
                for (candidate, bits) in &shown.marks {
                    self.requests[at].candidates[usize::from(*candidate)].observed = *bits;
                }
            }
        }
        let all = self.requests.len();
        self.requests.retain(|r| self.forgotten.get(&r.user).is_none_or(|offset| r.offset > *offset));
        self.stats.forgotten = (all - self.requests.len()) as u64;
        let embedding_version = self.options.vectors.map(|v| v.version().to_owned()).unwrap_or_default();
        let known = self.known;
        let ids = (known.users.list, known.items.list);
        Dataset::new(known.schema, embedding_version, ids, self.requests, self.stats)
    }
}

/// What a request's ranker had seen: all records below this offset.
pub(crate) fn watermark(e: &Impression, offset: u64) -> u64 {
    e.watermark.unwrap_or(offset).min(offset)
}

/// A request as actions find it.
pub(crate) fn shown(known: &mut Known, offset: u64, e: &Impression, fate: Fate) -> Shown {
    let items = e.items.iter().map(|shown| known.item(&shown.item)).collect();
    let request = e.request.hash64();
    Shown { offset, time_ms: e.time_ms, request, fate, items, marks: Vec::new() }
}

/// Takes an action into its user's sequence and labels; its mark, where it has one, and whether that is new.
pub(crate) fn act(
    known: &mut Known,
    labels: &mut Labels,
    stats: &mut JoinStats,
    offset: u64,
    e: &Action,
) -> Option<(u8, Change, bool)> {
    stats.actions += 1;
    let Some(action) = known.schema.action(&e.action) else {
        stats.unknown_actions += 1;
        return None;
    };
    let user = known.user(&e.user);
    let (event, time_ms) = (e.event_id.hash64(), e.time_ms);
    let request = e.request.as_ref().map_or(0, |r| r.hash64());
    let item = known.item(&e.item);
    let (new, mark) = labels.act(user, Acted { item, time_ms, event, request, action });
    if !new {
        stats.repeated_actions += 1;
        return None;
    }
    if known.schema.actions[usize::from(action)].sequence {
        let surface = e.surface.as_deref().and_then(|s| known.schema.surface(s)).unwrap_or(0);
        let entry = SequenceEntry { time_ms, offset, event, request, action, surface, item: e.item.clone() };
        known.act(user, item, entry);
    }
    mark.map(|(change, new)| (action, change, new))
}

/// Takes features; what does not fit the schema is counted.
pub(crate) fn learn(known: &mut Known, stats: &mut JoinStats, offset: u64, event: &Event) {
    if let Err(error) = known.learn(offset, event) {
        if stats.bad_features == 0 {
            tracing::warn!(offset, %error, "features in the log do not fit the schema; the first such record");
        }
        stats.bad_features += 1;
    }
}

/// Refuses more rows or tokens than the limits.
pub(crate) fn check_size(stats: &JoinStats, max_rows: usize, max_tokens: usize) -> Result<(), JoinError> {
    for (what, count, limit) in [("rows", stats.rows, max_rows), ("tokens", stats.tokens, max_tokens)] {
        if count > limit as u64 {
            return Err(JoinError::TooLarge { what, limit });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
