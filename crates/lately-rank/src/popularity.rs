//! Positive actions an item, each counting half after a half-life.
//!
//! With one half-life for all, an old sum need not be touched to decay: a sum is kept as if at a fixed moment, with
//! actions after it counting more, and as a logarithm, so that it never overflows. The order by that sum is the order
//! by the decayed one at any time.

use std::collections::HashMap;

use lately_features::{Event, ItemId, Schema, schema::Polarity};

/// Sums kept: 2^`value` as at the year 1970.
#[derive(Debug)]
pub(crate) struct Popularity {
    /// Names of the positive action types.
    positive: Vec<String>,
    half_life_ms: f64,
    limit: usize,
    log2: HashMap<ItemId, f64>,
}

impl Popularity {
    pub(crate) fn new(schema: &Schema, half_life_hours: f64, limit: usize) -> Self {
        let positive = schema.actions.iter().filter(|a| a.polarity == Polarity::Positive);
        Self {
            positive: positive.map(|a| a.name.clone()).collect(),
            half_life_ms: half_life_hours * 3.6e6,
            limit,
            log2: HashMap::new(),
        }
    }

    /// Counts a positive action; anything else is nothing to it.
    pub(crate) fn observe(&mut self, event: &Event) {
        let Event::Action(action) = event else { return };
        if !self.positive.contains(&action.action) {
            return;
        }
        let one = action.time_ms as f64 / self.half_life_ms;
        match self.log2.get_mut(&action.item) {
            Some(sum) => {
                let (high, low) = if *sum > one { (*sum, one) } else { (one, *sum) };
                *sum = high + (low - high).exp2().ln_1p() / std::f64::consts::LN_2;
            }
            None => {
                self.log2.insert(action.item.clone(), one);
                self.prune();
            }
        }
    }

    /// At one and a half times the limit the least popular go, so that the cost is spread over many inserts.
    fn prune(&mut self) {
        if self.log2.len() <= self.limit + self.limit / 2 {
            return;
        }
        let mut sums: Vec<f64> = self.log2.values().copied().collect();
        let cut = sums.len() - self.limit;
        let (_, least, _) = sums.select_nth_unstable_by(cut, f64::total_cmp);
        let least = *least;
        self.log2.retain(|_, sum| *sum >= least);
    }

    /// Decayed number of positive actions at a time; 0 for an unknown item. Finite.
    pub(crate) fn at(&self, item: &ItemId, now_ms: i64) -> f32 {
        let now = now_ms as f64 / self.half_life_ms;
        self.log2.get(item).map_or(0.0, |sum| (sum - now).exp2().min(1e30) as f32)
    }

    /// All items with a comparable sum.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ItemId, f64)> {
        self.log2.iter().map(|(item, sum)| (item, *sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranker::tests::{action, item_id, schema};

    const HOUR: i64 = 3_600_000;
    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn counts_decay_by_the_half_life_and_only_positive_actions_count() {
        let mut p = Popularity::new(&schema(), 24.0, 100);
        for (name, item, age) in [("save", "a", 0), ("click", "a", 24), ("save", "b", 48), ("hide", "c", 0)] {
            p.observe(&action("u", item, name, NOW - age * HOUR));
        }
        let at = |item: &str| p.at(&item_id(item), NOW);
        assert!((at("a") - 1.5).abs() < 1e-4, "{}", at("a"));
        assert!((at("b") - 0.25).abs() < 1e-4);
        assert_eq!(at("c"), 0.0);
        assert!(p.at(&item_id("a"), 0).is_finite(), "a clock set back gives no infinity");
    }

    #[test]
    fn the_least_popular_go_when_it_is_full() {
        let mut p = Popularity::new(&schema(), 24.0, 10);
        for i in 0..100 {
            p.observe(&action("u", &format!("i{i}"), "save", NOW + i * HOUR));
        }
        assert!(p.log2.len() <= 15);
        assert!(p.at(&item_id("i99"), NOW) > 0.0 && p.at(&item_id("i0"), NOW) == 0.0);
    }
}
