//! `[rank.retrieve]`: how many candidates of a feed come from where, and what the sources go by.

use serde::{Deserialize, Serialize};

use crate::error::RankConfigError;

/// How many candidates of a feed come from where. A source that has fewer leaves its places to the popular, then to
/// random ones.
///
/// The quotas and `recent_likes` may differ in a variant of an experiment. The other keys say what all requests draw on:
/// there the server's own count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrieveConfig {
    /// The most popular. Default 80.
    pub popular: usize,
    /// Of topics that the user follows. Default 80.
    pub followed: usize,
    /// Nearest by item embedding to what the user liked last. Default 80.
    pub nearest: usize,
    /// With more actions now than usual. Default 20.
    pub trending: usize,
    /// New ones, rather those with few impressions. Default 20.
    pub fresh: usize,
    /// Any. Default 20.
    pub random: usize,
    /// Latest liked items to whose embeddings, and to whose mean, the nearest are sought. Default 3.
    pub recent_likes: usize,
    /// An action counts half for popularity after this time, hours. Default 24.
    pub half_life_hours: f64,
    /// An action counts half as one of now after this time, hours, less than `half_life_hours`. Default 1.
    pub trending_half_life_hours: f64,
    /// Actions of now below which nothing trends; see `retrieve/trending.rs`. Default 10.
    pub trending_actions: f64,
    /// Time after its first record for which an item is new, hours. Default 24.
    pub fresh_hours: f64,
    /// Items with an embedding from which on nearest ones are sought in a graph. Fewer are all looked at. Default 50,000.
    pub ann_items: usize,
    /// Items that a search of the graph keeps in view: more find more of the nearest and take longer. Default 200.
    pub ann_search: usize,
    /// Items whose popularity is kept, in memory. Default 200,000.
    pub popularity_items: usize,
    /// Records at the log's end from which popularity is made again at a start. Default 1,000,000.
    pub popularity_tail: u64,
}

impl Default for RetrieveConfig {
    fn default() -> Self {
        Self {
            popular: 80,
            followed: 80,
            nearest: 80,
            trending: 20,
            fresh: 20,
            random: 20,
            recent_likes: 3,
            half_life_hours: 24.0,
            trending_half_life_hours: 1.0,
            trending_actions: 10.0,
            fresh_hours: 24.0,
            ann_items: 50_000,
            ann_search: 200,
            popularity_items: 200_000,
            popularity_tail: 1_000_000,
        }
    }
}

impl RetrieveConfig {
    /// Candidates in all.
    pub(crate) fn total(&self) -> usize {
        self.popular + self.followed + self.nearest + self.trending + self.fresh + self.random
    }

    /// Checks the ranges of the numbers; a feed has at most `max_candidates`.
    pub(crate) fn check(&self, max_candidates: usize) -> Result<(), RankConfigError> {
        let range = |name, value: usize, low: usize, high: usize| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(RankConfigError::Range { name, value, low, high }),
        };
        range("retrieve: candidates of a feed", self.total(), 1, max_candidates)?;
        range("retrieve.popularity_items", self.popularity_items, 1, 1 << 28)?;
        range("retrieve.recent_likes", self.recent_likes, 0, 64)?;
        // A graph of fewer is no faster than looking at all.
        range("retrieve.ann_items", self.ann_items, 1_000, 1 << 28)?;
        range("retrieve.ann_search", self.ann_search, 10, 10_000)?;
        let hours = |name, hours: f64, most: f64| match hours > 0.01 && hours <= most {
            true => Ok(()),
            false => Err(RankConfigError::Hours { name, hours, most }),
        };
        hours("half_life_hours", self.half_life_hours, 1e6)?;
        hours("trending_half_life_hours", self.trending_half_life_hours, self.half_life_hours)?;
        hours("fresh_hours", self.fresh_hours, 1e6)?;
        if !(1.0..=1e9).contains(&self.trending_actions) {
            return Err(RankConfigError::TrendingActions(self.trending_actions));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        let default = RetrieveConfig::default;
        assert_eq!((default().total(), default().check(2_000).is_ok()), (300, true));
        for (bad, name) in [
            (RetrieveConfig { trending: 1_900, ..default() }, "candidates of a feed is 2180"),
            (RetrieveConfig { ann_items: 999, ..default() }, "ann_items is 999"),
            (RetrieveConfig { ann_search: 9, ..default() }, "ann_search is 9"),
            (RetrieveConfig { half_life_hours: f64::NAN, ..default() }, "half_life_hours is NaN"),
            (
                RetrieveConfig { trending_half_life_hours: 25.0, ..default() },
                "trending_half_life_hours is 25",
            ),
            (RetrieveConfig { fresh_hours: 0.0, ..default() }, "fresh_hours is 0"),
            (RetrieveConfig { trending_actions: 0.5, ..default() }, "trending_actions is 0.5"),
        ] {
            let said = bad.check(2_000).unwrap_err().to_string();
            assert!(said.contains(name), "{said}");
        }
    }
}
