//! The candidates: given ones less what the caller's rules drop, or those that retrieval finds.

use std::collections::HashSet;
use std::sync::Arc;

use lately_features::schema::Polarity;
use lately_features::{Features, ItemId, UserId};

use super::{Ask, Known, Ranker};
use crate::request::{Dropped, Pin, Reason, Source};
use crate::retrieve::{Query, retrieve};

/// Most pins of a ranking.
const MAX_PINS: usize = 16;

/// One candidate with what is known of it.
pub(super) struct Candidate {
    pub(super) item: ItemId,
    pub(super) source: Option<Source>,
    pub(super) features: Option<Arc<Features>>,
}

impl Ranker {
    /// Given candidates, without those that the caller's rules drop.
    pub(super) fn admitted(&self, ask: &mut Ask, known: &Known, items: Vec<ItemId>) -> Vec<Candidate> {
        let hidden = if ask.rules.hidden { self.hidden(&ask.user, known) } else { HashSet::new() };
        let shown =
            if ask.rules.shown { self.shown.of(&ask.user, known.context.time_ms) } else { HashSet::new() };
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let candidate = self.candidate(item, None);
            let reason = match () {
                () if hidden.contains(&candidate.item) => Reason::Hidden,
                () if ask.rules.hidden && blocked(ask, known, &candidate) => Reason::Blocked,
                () if shown.contains(&candidate.item) => Reason::Shown,
                () => {
                    out.push(candidate);
                    continue;
                }
            };
            ask.dropped.push(Dropped { item: candidate.item, reason });
        }
        out
    }

    pub(super) fn retrieved(&self, ask: &Ask, known: &Known) -> Vec<Candidate> {
        let snapshot = self.follower.snapshot();
        let query = self.query(ask, known);
        let hidden = self.hidden(&ask.user, known);
        let mut exclude = self.shown.of(&ask.user, known.context.time_ms);
        exclude.extend(hidden.iter().cloned());
        let mut found = retrieve(&snapshot, &ask.policy.retrieve, &query, &exclude);
        if found.len() < ask.limit {
            // A small catalogue is through: better seen again than nothing.
            found = retrieve(&snapshot, &ask.policy.retrieve, &query, &hidden);
        }
        let candidates = found.into_iter().map(|(item, source)| self.candidate(item, Some(source)));
        candidates.filter(|c| !blocked(ask, known, c)).collect()
    }

    /// Adds pinned items that are no candidates, and drops the pins that cannot be: hidden ones, unknown ones, those
    /// whose place is taken or not on the page, and more than [`MAX_PINS`].
    pub(super) fn pinned(&self, ask: &mut Ask, known: &Known, candidates: &mut Vec<Candidate>) {
        if ask.pins.is_empty() {
            return;
        }
        let hidden = self.hidden(&ask.user, known);
        let mut kept: Vec<Pin> = Vec::new();
        for pin in std::mem::take(&mut ask.pins) {
            let taken = kept.iter().any(|k| k.item == pin.item || k.position == pin.position);
            let there = candidates.iter().any(|c| c.item == pin.item);
            let room = there || candidates.len() < self.config.max_candidates;
            let fits = kept.len() < MAX_PINS && room && usize::from(pin.position) < ask.limit;
            let reason = match () {
                () if hidden.contains(&pin.item) => Reason::Hidden,
                () if blocked(ask, known, &self.candidate(pin.item.clone(), None)) => Reason::Blocked,
                () if taken || !fits || self.store.item(&pin.item).is_none() => Reason::Pin,
                () => {
                    if !there {
                        candidates.push(self.candidate(pin.item.clone(), None));
                    }
                    kept.push(pin);
                    continue;
                }
            };
            ask.dropped.push(Dropped { item: pin.item, reason });
        }
        ask.pins = kept;
    }

    fn query(&self, ask: &Ask, known: &Known) -> Query {
        Query {
            followed: known.user.as_deref().map_or_else(Vec::new, |u| self.topics.followed(u).collect()),
            likes: self.likes(ask, known),
            seed: ask.request.hash64(),
        }
    }

    /// Item embeddings of the latest liked items, newest first.
    pub(super) fn likes(&self, ask: &Ask, known: &Known) -> Vec<Vec<f32>> {
        let liked = self.by_polarity(known, Polarity::Positive);
        let mut seen = HashSet::new();
        let likes = liked.filter(|item| seen.insert(*item)).filter_map(|item| self.store.item(item));
        let likes = likes.take(ask.policy.retrieve.recent_likes);
        likes.map(|f| self.assembler.item_embedding(&f).to_vec()).collect()
    }

    /// Items of the known actions of a polarity, newest first.
    fn by_polarity<'a>(&'a self, known: &'a Known, polarity: Polarity) -> impl Iterator<Item = &'a ItemId> {
        let of = move |action: u8| {
            self.schema.actions.get(usize::from(action)).is_some_and(|a| a.polarity == polarity)
        };
        let entries = known.sequence.entries().iter();
        entries.filter(move |e| e.offset < known.context.watermark && of(e.action)).map(|e| &e.item)
    }

    /// What the user hid, ever. Where that cannot be read, what the sequence tells.
    fn hidden(&self, user: &UserId, known: &Known) -> HashSet<ItemId> {
        self.store.hidden(user, known.context.watermark).unwrap_or_else(|error| {
            metrics::counter!("lately_rank_hidden_errors_total").increment(1);
            tracing::warn!(%error, "the items that a user hid cannot be read: taking those of the latest actions");
            self.by_polarity(known, Polarity::Negative).cloned().collect()
        })
    }

    fn candidate(&self, item: ItemId, source: Option<Source>) -> Candidate {
        let features = self.store.item(&item);
        if features.is_none() {
            metrics::counter!("lately_rank_unknown_candidates_total").increment(1);
        }
        Candidate { item, source, features }
    }
}

fn blocked(ask: &Ask, known: &Known, candidate: &Candidate) -> bool {
    ask.policy.select.blocks.block(known.user.as_deref(), candidate.features.as_deref())
}
