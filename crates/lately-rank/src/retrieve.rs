//! Where a feed's candidates come from: popularity, followed topics, nearest item embeddings, chance.
//!
//! Each source has its quota; a source that has fewer leaves its places to the popular, then to random ones. The same
//! snapshot, query and seed give the same candidates.

use std::collections::HashSet;
use std::sync::Arc;

use lately_features::ItemId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::catalogue::{Catalogue, unit};
use crate::config::RetrieveConfig;
use crate::request::Source;

/// What the sources draw on; replaced as a whole by the follower.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) catalogue: Arc<Catalogue>,
    /// Positions of the most popular active items, best first.
    pub(crate) popular: Vec<u32>,
}

/// What is known of the user.
#[derive(Debug, Default)]
pub(crate) struct Query {
    /// Followed topics, as buckets.
    pub(crate) followed: Vec<u32>,
    /// Item embeddings of the latest liked items, newest first.
    pub(crate) likes: Vec<Vec<f32>>,
    pub(crate) seed: u64,
}

/// The candidates, each once, none of `exclude`.
pub(crate) fn retrieve(
    snapshot: &Snapshot,
    config: &RetrieveConfig,
    query: &Query,
    exclude: &HashSet<ItemId>,
) -> Vec<(ItemId, Source)> {
    let catalogue = &snapshot.catalogue;
    let taken = exclude.iter().filter_map(|id| catalogue.position(id)).collect();
    let mut picks = Picks { taken, out: Vec::with_capacity(config.total()) };
    let mut rng = ChaCha8Rng::seed_from_u64(query.seed);

    picks.interleave(
        &nearest(catalogue, config.nearest + exclude.len(), query),
        Source::Nearest,
        config.nearest,
    );
    let mut followed: Vec<u32> =
        query.followed.iter().flat_map(|t| catalogue.of_topic(*t)).copied().collect();
    shuffle_front(&mut followed, config.followed * 2, &mut rng);
    picks.take(followed, Source::Followed, config.followed);
    // What is left of those two goes to the popular.
    let popular = config.nearest + config.followed + config.popular - picks.out.len();
    picks.take(snapshot.popular.iter().copied(), Source::Popular, popular);
    picks.random(catalogue.len(), config.total(), &mut rng);

    let id = |(i, source): (u32, Source)| Some((catalogue.items.get(i as usize)?.0.clone(), source));
    picks.out.into_iter().filter_map(id).collect()
}

/// The lists of nearest items: to the mean of the likes and to each.
fn nearest(catalogue: &Catalogue, count: usize, query: &Query) -> Vec<Vec<u32>> {
    let mut lists = Vec::with_capacity(query.likes.len() + 1);
    if query.likes.len() > 1 {
        let mut mean = vec![0.0; query.likes[0].len()];
        for like in &query.likes {
            mean.iter_mut().zip(unit(like)).for_each(|(m, x)| *m += x);
        }
        lists.push(catalogue.nearest(&mean, count));
    }
    lists.extend(query.likes.iter().map(|like| catalogue.nearest(like, count)));
    lists
}

/// Puts a random choice of at most `count` at the front and cuts the rest.
fn shuffle_front(list: &mut Vec<u32>, count: usize, rng: &mut ChaCha8Rng) {
    for i in 0..count.min(list.len()) {
        let j = rng.random_range(i..list.len());
        list.swap(i, j);
    }
    list.truncate(count);
}

struct Picks {
    taken: HashSet<u32>,
    out: Vec<(u32, Source)>,
}

impl Picks {
    fn take(&mut self, from: impl IntoIterator<Item = u32>, source: Source, quota: usize) {
        let end = self.out.len() + quota;
        for i in from {
            if self.out.len() >= end {
                return;
            }
            if self.taken.insert(i) {
                self.out.push((i, source));
            }
        }
    }

    /// One of each list in turn.
    fn interleave(&mut self, lists: &[Vec<u32>], source: Source, quota: usize) {
        let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
        let in_turn = (0..longest).flat_map(|i| lists.iter().filter_map(move |l| l.get(i).copied()));
        self.take(in_turn, source, quota);
    }

    /// Random ones until there are `total`. A small catalogue is gone through from a random place instead.
    fn random(&mut self, items: usize, total: usize, rng: &mut ChaCha8Rng) {
        if items == 0 {
            return;
        }
        let missing = total.saturating_sub(self.out.len());
        if items >= 4 * (self.taken.len() + missing) {
            while self.out.len() < total {
                self.take([rng.random_range(0..items as u32)], Source::Random, 1);
            }
            return;
        }
        let mut rest: Vec<u32> = (0..items as u32).filter(|i| !self.taken.contains(i)).collect();
        shuffle_front(&mut rest, missing, rng);
        self.take(rest, Source::Random, missing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Topics;
    use crate::popularity::Popularity;
    use crate::ranker::tests::{action, item_features, item_id, schema};
    use lately_features::Assembler;
    use lately_features::schema::bucket;

    const NOW: i64 = 1_700_000_000_000;

    /// 60 items: topics t0 to t2 in turn, embeddings around a circle; i5 is popular.
    fn snapshot() -> Snapshot {
        let schema = schema();
        let items: Vec<_> = (0..60)
            .map(|i| {
                let angle = i as f32 * 0.1;
                let features = item_features(&format!("t{}", i % 3), [angle.cos(), angle.sin()]);
                (item_id(&format!("i{i:02}")), Arc::new(features))
            })
            .collect();
        let catalogue = Catalogue::new(&Arc::new(items), &Assembler::new(&schema), &Topics::new(&schema), 2);
        let mut popularity = Popularity::new(&schema, 24.0, 100);
        popularity.observe(&action("u", "i05", "save", NOW));
        popularity.observe(&action("u", "gone", "save", NOW));
        let popular = catalogue.popular(&popularity, 10);
        Snapshot { catalogue: Arc::new(catalogue), popular }
    }

    fn config() -> RetrieveConfig {
        RetrieveConfig { popular: 4, followed: 4, nearest: 4, random: 4, ..RetrieveConfig::default() }
    }

    fn of(found: &[(ItemId, Source)], source: Source) -> Vec<&str> {
        found.iter().filter(|f| f.1 == source).map(|f| f.0.as_str()).collect()
    }

    #[test]
    fn every_source_gives_its_share_and_no_item_comes_twice() {
        let query = Query {
            followed: vec![bucket("t1", 32)],
            likes: vec![vec![2.0f32.cos(), 2.0f32.sin()]],
            seed: 7,
        };
        let exclude = HashSet::from([item_id("i20")]);
        let found = retrieve(&snapshot(), &config(), &query, &exclude);
        assert_eq!(of(&found, Source::Nearest), ["i19", "i21", "i18", "i22"], "i20 itself is excluded");
        let followed = of(&found, Source::Followed);
        assert_eq!(followed.len(), 4);
        assert!(followed.iter().all(|i| i[1..].parse::<u32>().unwrap() % 3 == 1), "{followed:?}");
        assert_eq!(of(&found, Source::Popular), ["i05"]);
        assert_eq!(found.len(), 16, "the places that popularity left are filled");
        assert_eq!(found.iter().map(|f| &f.0).collect::<HashSet<_>>().len(), 16);
        assert_eq!(found, retrieve(&snapshot(), &config(), &query, &exclude), "the same seed, the same feed");
        assert_ne!(found, retrieve(&snapshot(), &config(), &Query { seed: 8, ..query }, &exclude));
    }

    #[test]
    fn a_stranger_gets_popular_and_random_items_and_an_empty_catalogue_nothing() {
        let found = retrieve(&snapshot(), &config(), &Query::default(), &HashSet::new());
        assert_eq!((found.len(), found[0].0.as_str()), (16, "i05"));
        let all = RetrieveConfig { random: 500, ..config() };
        assert_eq!(retrieve(&snapshot(), &all, &Query::default(), &HashSet::new()).len(), 60);
        assert!(retrieve(&Snapshot::default(), &config(), &Query::default(), &HashSet::new()).is_empty());
    }
}
