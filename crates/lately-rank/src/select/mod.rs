//! From scores to a page: pure functions over positions. Read [`blend`] first.
//!
//! One greedy loop fills the first places: what an item is worth there (its relevance, and with SSD or DPP what its
//! embedding adds to the latest ones, `relevance` over `residual`), less what the soft rules ask, where no hard rule
//! forbids it (`rules`). The rest follows by score. Pins come last (`pins`); what a user blocked was left out before (`filter`); `diversity` says how varied a page is.

mod config;
mod diversity;
mod filter;
mod pins;
mod relevance;
mod residual;
mod rules;
mod spaced;

#[cfg(test)]
mod tests;

pub use config::{
    BlockRule, CapRule, Diversity, DppConfig, SelectConfig, SpacingMode, SpacingRule, SsdConfig,
};
pub use diversity::{PageDiversity, page_diversity};
use filter::Blocks;
pub(crate) use pins::place;

use std::cmp::Ordering;

use lately_features::batch::Layout;
use lately_features::{Features, Schema};

use crate::error::RankConfigError;
use relevance::Worth;
use rules::Rules;
use spaced::{full_topic, spaced};

/// The candidates of a page, as blending sees them.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'a> {
    /// One score a candidate, finite.
    pub scores: &'a [f32],
    /// First topics, one a candidate; 0: none, which is never spaced.
    pub topics: &'a [u32],
    /// One embedding a candidate; of another length than `dim`, or zeros: unlike anything.
    pub embeddings: &'a [&'a [f32]],
    /// Numbers of an embedding.
    pub dim: usize,
    /// For each spacing rule, then for each cap, one label a candidate; 0: none, which no rule touches.
    pub labels: &'a [Vec<u32>],
}

/// At most `limit` candidates, in the order of their places. Deterministic; ties go to the better score, then to the
/// earlier candidate.
pub fn blend(pool: Pool<'_>, limit: usize, config: &SelectConfig) -> Vec<usize> {
    let order = by_score(pool.scores);
    if config.diversity == Diversity::None && config.spacing.is_empty() && config.caps.is_empty() {
        return spaced(&order, pool.topics, limit, config.topic_run, config.spacing_window);
    }
    let mut page = Page {
        pool,
        config,
        used: vec![false; order.len()],
        out: Vec::new(),
        rules: Rules::new(config, pool.labels),
        order,
    };
    page.blended(limit.min(config.blend_places));
    page.by_score(limit);
    page.out
}

/// Best first, ties in the order of the candidates.
pub(crate) fn by_score(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order
}

/// A page in the making.
struct Page<'a> {
    pool: Pool<'a>,
    config: &'a SelectConfig,
    rules: Rules<'a>,
    order: Vec<usize>,
    /// Of positions in `order`.
    used: Vec<bool>,
    out: Vec<usize>,
}

impl Page<'_> {
    /// Greedily among the best.
    fn blended(&mut self, places: usize) {
        let best = &self.order[..self.order.len().min(self.config.blend_candidates)];
        let scores: Vec<f32> = best.iter().map(|i| self.pool.scores[*i]).collect();
        let embeddings: Vec<&[f32]> = best.iter().map(|i| self.pool.embeddings[*i]).collect();
        let mut worth = Worth::new(&scores, &embeddings, self.pool.dim, self.config);
        while self.out.len() < places {
            let full = full_topic(&self.out, self.pool.topics, self.config.topic_run);
            let other = self.dearest(worth.of(), full, self.config.spacing_window);
            let Some(at) = other.or_else(|| self.dearest(worth.of(), 0, usize::MAX)) else { return };
            self.take(at);
            worth.take(at);
        }
    }

    /// The position of the most worth that may come next and is not of the topic `full`; for that only so far down.
    fn dearest(&self, worth: &[f32], full: u32, window: usize) -> Option<usize> {
        let first = self.used.iter().position(|used| !used)?;
        let far = if full == 0 { worth.len() } else { window.saturating_add(1) };
        let mut best: Option<(f32, usize)> = None;
        for (at, plain) in worth.iter().copied().enumerate().skip(first).take(far) {
            let beats = |value: f32| best.is_none_or(|(b, _)| value.total_cmp(&b) == Ordering::Greater);
            let i = self.order[at];
            // Prices only take away: what is not worth enough without them need not be looked at.
            if self.used[at] || !beats(plain) || self.topic_is(i, full) || !self.rules.allow(i) {
                continue;
            }
            let value = plain - self.rules.price(i);
            if beats(value) {
                best = Some((value, at));
            }
        }
        best.map(|(_, at)| at)
    }

    /// The rest by score, within the hard rules.
    fn by_score(&mut self, limit: usize) {
        while self.out.len() < limit {
            let full = full_topic(&self.out, self.pool.topics, self.config.topic_run);
            let mut free =
                (0..self.order.len()).filter(|at| !self.used[*at] && self.rules.allow(self.order[*at]));
            let Some(first) = free.next() else { return };
            let near = |at: &usize| *at <= first + self.config.spacing_window;
            let other = |at: &usize| !self.topic_is(self.order[*at], full);
            let at = std::iter::once(first).chain(free).take_while(near).find(other).unwrap_or(first);
            self.take(at);
        }
    }

    fn topic_is(&self, candidate: usize, full: u32) -> bool {
        full != 0 && self.pool.topics[candidate] == full
    }

    fn take(&mut self, at: usize) {
        self.used[at] = true;
        self.out.push(self.order[at]);
        self.rules.take(self.order[at]);
    }
}

/// A configuration with what the schema says of its features.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Selection {
    pub(crate) config: SelectConfig,
    pub(crate) labels: Labels,
    pub(crate) blocks: Blocks,
}

impl Selection {
    /// Refuses features that the schema does not have.
    pub(crate) fn new(config: &SelectConfig, schema: &Schema) -> Result<Self, RankConfigError> {
        let (labels, blocks) = (Labels::new(config, schema)?, Blocks::new(config, schema)?);
        Ok(Self { config: config.clone(), labels, blocks })
    }
}

/// Where the features stand that the rules name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Labels {
    slots: Vec<usize>,
}

impl Labels {
    /// Refuses names that are no categorical item features.
    fn new(config: &SelectConfig, schema: &Schema) -> Result<Self, RankConfigError> {
        let layout = Layout::of(&schema.item_features).categorical;
        let names = config.spacing.iter().map(|r| &r.feature).chain(config.caps.iter().map(|c| &c.feature));
        let slot = |name: &String| {
            let found = layout.iter().find(|c| c.name == *name).map(|c| c.start);
            found.ok_or_else(|| RankConfigError::UnknownFeature {
                name: name.clone(),
                features: layout.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", "),
            })
        };
        Ok(Self { slots: names.map(slot).collect::<Result<_, _>>()? })
    }

    /// Rules x candidates; an item without features has none.
    pub(crate) fn of(&self, items: &[Option<&Features>]) -> Vec<Vec<u32>> {
        let of = |slot: &usize| items.iter().map(|f| f.map_or(0, |f| f.categorical[*slot])).collect();
        self.slots.iter().map(of).collect()
    }
}
