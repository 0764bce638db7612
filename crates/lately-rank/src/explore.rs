//! A share of the rankings is shown in a random order at the top, and every ranking says how likely its order was.
//!
//! With probability `share` the first `places` items are a uniform permutation of themselves, else they stand by score. So an
//! item stands at its place with probability `share / places`, and `1 - share` more where it would stand there anyway. From
//! that what another order would have been worth can be estimated (Li et al., KDD 2018, "Offline evaluation of ranking
//! policies with click models": the item-position model).

use lately_features::RequestId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::draw;
use crate::error::RankConfigError;

/// `[rank.explore]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExploreConfig {
    /// Share of the slates whose first places are shuffled, 0 to 1. Default 0.
    pub share: f64,
    /// How many places. Default 10.
    pub places: usize,
}

impl Default for ExploreConfig {
    fn default() -> Self {
        Self { share: 0.0, places: 10 }
    }
}

impl ExploreConfig {
    pub(crate) fn check(&self) -> Result<(), RankConfigError> {
        if !(0.0..=1.0).contains(&self.share) {
            return Err(RankConfigError::Share { name: "explore.share", share: self.share, most: 1.0 });
        }
        if !(2..=1_000).contains(&self.places) {
            let (name, value) = ("explore.places", self.places);
            return Err(RankConfigError::Range { name, value, low: 2, high: 1_000 });
        }
        Ok(())
    }
}

/// Perhaps shuffles the items at `places` (positions that may be shuffled, in order), by the request's own chance. Returns
/// the probability of each item to stand where it now stands; empty: all is certain.
pub(crate) fn explore<T>(
    items: &mut [T],
    places: &[usize],
    config: &ExploreConfig,
    request: &RequestId,
) -> Vec<f32> {
    let places = &places[..places.len().min(config.places)];
    if config.share <= 0.0 || places.len() < 2 {
        return Vec::new();
    }
    // Where each of the shuffled ones came from.
    let mut from: Vec<usize> = (0..places.len()).collect();
    if draw::explore(request, config.share) {
        let mut rng = ChaCha8Rng::seed_from_u64(request.hash64());
        for i in (1..places.len()).rev() {
            let j = rng.random_range(0..=i);
            items.swap(places[i], places[j]);
            from.swap(i, j);
        }
    }
    let by_chance = config.share / places.len() as f64;
    let mut out = vec![1.0; items.len()];
    for (i, place) in places.iter().enumerate() {
        let by_score = if from[i] == i { 1.0 - config.share } else { 0.0 };
        out[*place] = (by_score + by_chance) as f32;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// The logged probability of an item at a place is how often it stands there.
    #[test]
    fn what_is_logged_is_how_often_it_happens() {
        let config = ExploreConfig { share: 0.3, places: 4 };
        let places: Vec<usize> = vec![0, 1, 3, 4, 5]; // the third is pinned
        let mut seen: HashMap<(usize, usize), (f64, f32)> = HashMap::new();
        let n = 40_000;
        for i in 0..n {
            let mut items: Vec<usize> = (0..6).collect();
            let request = RequestId::new(format!("r{i}")).unwrap();
            let p = explore(&mut items, &places, &config, &request);
            assert_eq!((p.len(), items[2], items[5], p[2], p[5]), (6, 2, 5, 1.0, 1.0));
            for (place, item) in items.iter().enumerate() {
                let entry = seen.entry((*item, place)).or_default();
                entry.0 += 1.0 / f64::from(n);
                entry.1 = p[place];
            }
        }
        assert_eq!(seen.len(), 16 + 2, "every order of the four happens");
        for ((item, place), (share, logged)) in seen {
            // Six standard deviations.
            assert!((share - f64::from(logged)).abs() < 0.014, "{item} at {place}: {share} for {logged}");
        }
    }

    #[test]
    fn off_is_off_and_the_same_request_is_the_same() {
        let request = RequestId::new("r").unwrap();
        let run = |share| {
            let mut items: Vec<usize> = (0..9).collect();
            let p = explore(
                &mut items,
                &(0..9).collect::<Vec<_>>(),
                &ExploreConfig { share, places: 10 },
                &request,
            );
            (items, p)
        };
        assert_eq!(run(0.0), ((0..9).collect(), Vec::new()));
        assert_eq!(run(1.0), run(1.0));
        assert!(run(1.0).1.iter().all(|p| (*p - 1.0 / 9.0).abs() < 1e-6));
        assert!(ExploreConfig { share: f64::NAN, places: 3 }.check().is_err());
        assert!(ExploreConfig { share: 0.1, places: 1 }.check().is_err());
    }
}
