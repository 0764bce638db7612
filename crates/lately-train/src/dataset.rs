//! Training rows in memory: requests, each with its user part once and its candidates many times.

use std::collections::HashMap;
use std::sync::Arc;

use lately_features::schema::FeatureKind;
use lately_features::{
    Assembler, FeatureBatch, Features, ItemId, RequestContext, Schema, Token, UserId, assemble,
};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::dates::DateRange;
use crate::join::JoinStats;

/// One shown item.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Position in [`Dataset::items`].
    pub item: u32,
    /// Its features when the request was ranked; `None` where the item was unknown.
    pub features: Option<Arc<Features>>,
    /// Action types that followed within their attribution window: bit a is position a of the schema's actions.
    pub observed: u64,
    /// Its place in the list, from 0.
    pub position: u16,
    /// How many candidates of its request it stands for: 1, or more for one of the negatives that were kept of a thinned
    /// request.
    pub stands_for: f32,
}

/// One ranking, as it was served.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it was ranked, ms since 1970 UTC.
    pub time_ms: i64,
    /// Offset of the impression in the log.
    pub offset: u64,
    /// Position in [`Dataset::users`].
    pub user: u32,
    /// Surface plus 1; 0 where none was named.
    pub surface: u16,
    /// Whether the user was core by the schema's rule.
    pub core: bool,
    /// What had been ingested of the user's actions when the request was ranked, newest first.
    pub tokens: Box<[Token]>,
    /// The user's features at that time.
    pub features: Option<Arc<Features>>,
    /// What was shown.
    pub candidates: Box<[Candidate]>,
}

impl Request {
    /// The context under which the request is assembled; its tokens are cut by the watermark already.
    pub fn context(&self) -> RequestContext {
        RequestContext { time_ms: self.time_ms, surface: self.surface, watermark: self.offset }
    }
}

/// Requests in order of time.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The schema under which the rows were joined.
    pub schema: Arc<Schema>,
    /// Version of the item vectors under which they were joined; empty where items have what they were sent with.
    pub embedding_version: String,
    /// Users by their number.
    pub users: Vec<UserId>,
    /// Items by their number.
    pub items: Vec<ItemId>,
    /// Requests by (time, offset).
    pub requests: Vec<Request>,
    /// What the join counted.
    pub stats: JoinStats,
    /// What a batch looks like.
    pub(crate) assembler: Assembler,
    /// For each head the bits of the actions that make its label 1.
    pub(crate) head_bits: Vec<u64>,
}

/// The bits of [`Candidate::observed`] that make each head's label 1.
pub(crate) fn head_bits(schema: &Schema) -> Vec<u64> {
    let bits = |flags: Vec<bool>| {
        flags.iter().enumerate().filter(|(_, on)| **on).fold(0, |bits, (action, _)| bits | 1u64 << action)
    };
    schema.head_labels().into_iter().map(bits).collect()
}

impl Dataset {
    /// Puts requests in order, with users and items numbered by their first appearance in it; `ids`: those that the
    /// requests' numbers mean.
    pub(crate) fn new(
        schema: Arc<Schema>,
        embedding_version: String,
        ids: (Vec<UserId>, Vec<ItemId>),
        mut requests: Vec<Request>,
        stats: JoinStats,
    ) -> Self {
        requests.sort_by_key(|r| (r.time_ms, r.offset));
        let (mut users, mut items) = (Renumber::new(ids.0), Renumber::new(ids.1));
        for request in &mut requests {
            request.user = users.number(request.user);
            request.candidates.iter_mut().for_each(|c| c.item = items.number(c.item));
        }
        let (assembler, head_bits) = (Assembler::new(&schema), head_bits(&schema));
        let (users, items) = (users.list, items.list);
        let mut dataset =
            Self { schema, embedding_version, users, items, requests, stats, assembler, head_bits };
        dataset.stats.requests = dataset.requests.len() as u64;
        dataset.stats.rows = dataset.requests.iter().map(|r| r.candidates.len() as u64).sum();
        dataset.stats.tokens = dataset.requests.iter().map(|r| r.tokens.len() as u64).sum();
        dataset.stats.positives = dataset.all().positives();
        dataset
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.head_bits.len()
    }

    /// Whether the candidate's label of a head is 1.
    pub fn label(&self, candidate: &Candidate, head: usize) -> bool {
        candidate.observed & self.head_bits[head] != 0
    }

    /// The requests of a range of time.
    pub fn slice(&self, range: DateRange) -> Slice<'_> {
        let inside = |r: &u32| range.contains(self.requests[*r as usize].time_ms);
        Slice { dataset: self, requests: (0..self.requests.len() as u32).filter(inside).collect() }
    }

    /// All requests.
    pub fn all(&self) -> Slice<'_> {
        self.slice(DateRange::ALL)
    }
}

/// Numbers by order of appearance, in place of others.
struct Renumber<Id> {
    ids: Vec<Id>,
    numbers: Vec<u32>,
    list: Vec<Id>,
}

impl<Id: Clone> Renumber<Id> {
    fn new(ids: Vec<Id>) -> Self {
        Self { numbers: vec![u32::MAX; ids.len()], ids, list: Vec::new() }
    }

    fn number(&mut self, former: u32) -> u32 {
        let number = &mut self.numbers[former as usize];
        if *number == u32::MAX {
            *number = self.list.len() as u32;
            self.list.push(self.ids[former as usize].clone());
        }
        *number
    }
}

/// Some requests of a dataset, in order of time.
#[derive(Debug, Clone)]
pub struct Slice<'a> {
    /// Where they are.
    pub dataset: &'a Dataset,
    /// Positions in [`Dataset::requests`].
    pub requests: Vec<u32>,
}

impl<'a> Slice<'a> {
    /// The requests in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a Request> + Clone + '_ {
        let dataset = self.dataset;
        self.requests.iter().map(move |r| &dataset.requests[*r as usize])
    }

    /// Number of rows (candidates).
    pub fn rows(&self) -> usize {
        self.iter().map(|r| r.candidates.len()).sum()
    }

    /// For each head the number of rows whose label is 1.
    pub fn positives(&self) -> Vec<u64> {
        let mut sums = vec![0; self.dataset.heads()];
        for candidate in self.iter().flat_map(|r| &r.candidates) {
            for (head, sum) in sums.iter_mut().enumerate() {
                *sum += u64::from(self.dataset.label(candidate, head));
            }
        }
        sums
    }

    /// Cuts off the newest `share` (0 to 1) of the rows, between requests: (older, newest), a split for training and
    /// validation by time.
    pub fn split_newest(&self, share: f64) -> (Self, Self) {
        let want = self.rows() as f64 * (1.0 - share.clamp(0.0, 1.0));
        let mut rows = 0;
        let fits = |r: &&Request| {
            rows += r.candidates.len();
            rows as f64 <= want
        };
        let at = self.iter().take_while(fits).count();
        let part = |requests: &[u32]| Self { dataset: self.dataset, requests: requests.to_vec() };
        (part(&self.requests[..at]), part(&self.requests[at..]))
    }

    /// A hash of all that training sees: schema, order, tokens, features, labels.
    pub fn fingerprint(&self) -> u128 {
        let mut hasher = Xxh3Default::new();
        hasher.update(self.dataset.schema.hash().as_bytes());
        for kind in self.dataset.schema.user_features.iter().chain(&self.dataset.schema.item_features) {
            // Not in the schema's hash, as it shapes the model and no batch.
            if let FeatureKind::Categorical { min_count: min_count @ 1.., .. } = kind {
                hasher.update(format!("{} {min_count}", kind.name()).as_bytes());
            }
        }
        let mut known = HashMap::new();
        let mut number = |features: &Option<Arc<Features>>| {
            features.as_ref().map_or(0, |f| {
                *known.entry(Arc::as_ptr(f)).or_insert_with(|| content(f)) // once for each of the shared vectors
            })
        };
        for r in self.iter() {
            hasher.update(&r.time_ms.to_le_bytes());
            hasher.update(&r.user.to_le_bytes());
            hasher.update(&r.surface.to_le_bytes());
            hasher.update(&number(&r.features).to_le_bytes());
            hasher.update(&(r.tokens.len() as u64).to_le_bytes());
            for token in &r.tokens {
                hasher.update(&token.time_ms.to_le_bytes());
                hasher.update(&[token.action]);
                hasher.update(&token.surface.to_le_bytes());
                hasher.update(&number(&token.item).to_le_bytes());
            }
            for c in &r.candidates {
                hasher.update(&number(&c.features).to_le_bytes());
                hasher.update(&c.observed.to_le_bytes());
                if c.stands_for != 1.0 {
                    hasher.update(&c.stands_for.to_le_bytes());
                }
            }
        }
        hasher.digest128()
    }
}

fn content(features: &Features) -> u64 {
    let numbers = features.numeric.iter().chain(&features.embedding).map(|x| x.to_bits());
    let words = features.categorical.iter().copied().chain(numbers);
    xxh3_64(&words.flat_map(u32::to_le_bytes).collect::<Vec<_>>())
}

/// Appends rows that are seen with one user part, that of `request` with other tokens and context, to a batch, labels
/// included.
pub(crate) fn push_rows<'a>(
    batch: &mut FeatureBatch,
    dataset: &Dataset,
    request: &Request,
    context: &RequestContext,
    tokens: &[Token],
    rows: impl Iterator<Item = &'a Candidate> + Clone,
) {
    let candidates = rows.clone().map(|c| c.features.as_deref());
    assemble(batch, &dataset.assembler, context, request.features.as_deref(), tokens, candidates);
    for candidate in rows {
        let labels = dataset.head_bits.iter().map(|bits| f32::from(u8::from(candidate.observed & bits != 0)));
        batch.label.extend(labels);
    }
}
