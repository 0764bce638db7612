//! Where a feed's candidates come from: nearest item embeddings, followed topics, trends, new items, popularity, chance.
//!
//! Each source has its quota; a source that has fewer leaves its places to the popular, then to random ones. The same
//! snapshot, query and seed give the same candidates.
//!
//! `catalogue` has the active items, and is changed item by item; `near` finds the nearest, by looking at all (`scan`) or in a
//! graph (`graph`); `popularity` counts, `trending` compares counts, `fresh` knows what is new. A new source is a list of
//! positions in [`Snapshot`] (or what one is drawn from), its line in [`retrieve`], a variant of [`Source`] and a quota.

mod catalogue;
mod config;
mod fresh;
mod graph;
mod keeper;
mod near;
mod popularity;
mod scan;
mod topics;
mod trending;

use std::collections::HashSet;
use std::sync::Arc;

use lately_features::ItemId;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::request::Source;
use catalogue::Catalogue;
pub(crate) use catalogue::unit;
pub use config::RetrieveConfig;
use fresh::Fresh;
pub(crate) use keeper::Keeper;
use near::Indexed;
pub(crate) use popularity::Popularity;
use scan::Queries;
pub(crate) use topics::Topics;

/// Draws of a place by chance, a place that is missing, before the catalogue is gone through.
const ATTEMPTS: usize = 8;

/// What the sources draw on at a moment: it never changes.
#[derive(Debug, Default)]
pub struct Snapshot {
    catalogue: Arc<Catalogue>,
    /// The graph for nearest items, where there are many.
    indexed: Option<Indexed>,
    /// Positions of the most popular active items, best first.
    popular: Vec<u32>,
    /// Positions of the trending ones, strongest first.
    trending: Vec<u32>,
    /// The new ones, by position.
    fresh: Vec<Fresh>,
}

impl Snapshot {
    /// Active items.
    pub fn items(&self) -> usize {
        self.catalogue.active()
    }

    /// Items in the graph of nearest ones; 0 where there is none.
    pub fn indexed(&self) -> usize {
        self.indexed.as_ref().map_or(0, Indexed::items)
    }

    /// Bytes of the catalogue's vectors, places and topics, and of the graph. Ids and features are the store's.
    pub fn bytes(&self) -> (usize, usize) {
        (self.catalogue.bytes(), self.indexed.as_ref().map_or(0, Indexed::bytes))
    }

    /// The same without its graph: all items are looked at.
    #[must_use]
    pub fn exact(&self) -> Self {
        Self {
            catalogue: Arc::clone(&self.catalogue),
            indexed: None,
            popular: self.popular.clone(),
            trending: self.trending.clone(),
            fresh: self.fresh.clone(),
        }
    }
}

/// What is known of the user.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Followed topics, as buckets.
    pub followed: Vec<u32>,
    /// Item embeddings of the latest liked items (d numbers each, of any length), newest first.
    pub likes: Vec<Vec<f32>>,
    /// What is left to chance follows from it.
    pub seed: u64,
}

/// The candidates, each once, none of `exclude`; fewer than the quotas together only where there are no more items.
pub fn retrieve(
    snapshot: &Snapshot,
    config: &RetrieveConfig,
    query: &Query,
    exclude: &HashSet<ItemId>,
) -> Vec<(ItemId, Source)> {
    let catalogue = &snapshot.catalogue;
    let mut picks = Picks {
        catalogue,
        exclude,
        taken: HashSet::with_capacity(2 * config.total()),
        out: Vec::with_capacity(config.total()),
    };
    let mut rng = ChaCha8Rng::seed_from_u64(query.seed);

    if config.nearest > 0 {
        // What is excluded may be nearest.
        let lists = nearest(snapshot, config.nearest + exclude.len(), query);
        picks.interleave(&lists, Source::Nearest, config.nearest);
    }
    // Twice as many, for what is taken or excluded.
    let followed = of_topics(catalogue, &query.followed, 2 * config.followed, &mut rng);
    picks.take(followed, Source::Followed, config.followed);
    picks.take(snapshot.trending.iter().copied(), Source::Trending, config.trending);
    picks.take(fresh::draw(&snapshot.fresh, config.fresh, &mut rng), Source::Fresh, config.fresh);
    // What is left of those goes to the popular.
    let popular = (config.total() - config.random).saturating_sub(picks.out.len());
    picks.take(snapshot.popular.iter().copied(), Source::Popular, popular);
    picks.random(config.total(), &mut rng);
    picks.out
}

/// The lists of nearest items: to the mean of the likes and to each.
fn nearest(snapshot: &Snapshot, count: usize, query: &Query) -> Vec<Vec<u32>> {
    let mut mean = Vec::new();
    if query.likes.len() > 1 {
        mean = vec![0.0; query.likes[0].len()];
        for like in &query.likes {
            mean.iter_mut().zip(unit(like)).for_each(|(m, x)| *m += x);
        }
    }
    let vectors = std::iter::once(&mean).chain(&query.likes).map(Vec::as_slice);
    let queries = Queries::new(vectors, snapshot.catalogue.dim());
    near::nearest(&snapshot.catalogue, snapshot.indexed.as_ref(), &queries, count)
}

/// A random choice of at most `count` of the items of some topics; one of two of them may come twice.
fn of_topics(catalogue: &Catalogue, topics: &[u32], count: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let lists: Vec<&[u32]> = topics.iter().map(|t| catalogue.of_topic(*t)).collect();
    let all: usize = lists.iter().map(|list| list.len()).sum();
    // The lists are not put together: those of a large catalogue's topics are long.
    let at = |mut i: usize| {
        lists.iter().find_map(|list| {
            let found = list.get(i).copied();
            i = i.saturating_sub(list.len());
            found
        })
    };
    rand::seq::index::sample(rng, all, count.min(all)).into_iter().filter_map(at).collect()
}

struct Picks<'a> {
    catalogue: &'a Catalogue,
    exclude: &'a HashSet<ItemId>,
    taken: HashSet<u32>,
    out: Vec<(ItemId, Source)>,
}

impl Picks<'_> {
    fn take(&mut self, from: impl IntoIterator<Item = u32>, source: Source, quota: usize) {
        let end = self.out.len() + quota;
        for position in from {
            if self.out.len() >= end {
                return;
            }
            let Some(id) = self.catalogue.id(position) else { continue };
            if self.taken.insert(position) && !self.exclude.contains(id) {
                self.out.push((id.clone(), source));
            }
        }
    }

    /// One of each list in turn.
    fn interleave(&mut self, lists: &[Vec<u32>], source: Source, quota: usize) {
        let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
        let in_turn = (0..longest).flat_map(|i| lists.iter().filter_map(move |l| l.get(i).copied()));
        self.take(in_turn, source, quota);
    }

    /// Random ones until there are `total`. A small or holey catalogue is gone through from a random place instead.
    fn random(&mut self, total: usize, rng: &mut ChaCha8Rng) {
        let slots = self.catalogue.slots() as u32;
        let missing = total.saturating_sub(self.out.len());
        if slots == 0 || missing == 0 {
            return;
        }
        for _ in 0..ATTEMPTS * missing {
            self.take([rng.random_range(0..slots)], Source::Random, 1);
            if self.out.len() >= total {
                return;
            }
        }
        let mut rest: Vec<u32> = (0..slots).filter(|i| !self.taken.contains(i)).collect();
        let all = rest.len();
        // All of it: any part of it may be excluded.
        let (chosen, _) = rest.partial_shuffle(rng, all);
        self.take(chosen.iter().copied(), Source::Random, total - self.out.len());
    }
}

#[cfg(test)]
mod tests;
