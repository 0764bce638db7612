//! Positive actions an item, each counting half after a half-life.
//!
//! With one half-life for all, an old sum need not be touched to decay: a sum is kept as if at a fixed moment, with
//! actions after it counting more, and as a logarithm, so that it never overflows. The order by that sum is the order
//! by the decayed one at any time.

use std::collections::HashMap;

use lately_features::{Event, ItemId, Schema, schema::Polarity};

use super::catalogue::Ledger;

/// Decayed counts of positive actions, one an item.
#[derive(Debug)]
pub(crate) struct Popularity {
    /// Names of the positive action types.
    positive: Vec<String>,
    half_life_ms: f64,
    limit: usize,
    /// 2^`value` as at the year 1970.
    log2: HashMap<ItemId, f64>,
    /// Of all items together, forgotten ones too.
    total_log2: f64,
}

impl Popularity {
    /// `limit`: items that are kept, the most popular.
    pub(crate) fn new(schema: &Schema, half_life_hours: f64, limit: usize) -> Self {
        let positive = schema.actions.iter().filter(|a| a.polarity == Polarity::Positive);
        Self {
            positive: positive.map(|a| a.name.clone()).collect(),
            half_life_ms: half_life_hours * 3.6e6,
            limit,
            log2: HashMap::new(),
            total_log2: f64::NEG_INFINITY,
        }
    }

    /// Counts a positive action; anything else is nothing to it.
    pub(crate) fn observe(&mut self, event: &Event) {
        let Event::Action(action) = event else { return };
        if !self.positive.contains(&action.action) {
            return;
        }
        let one = action.time_ms as f64 / self.half_life_ms;
        self.total_log2 = added(self.total_log2, one);
        match self.log2.get_mut(&action.item) {
            Some(sum) => *sum = added(*sum, one),
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

    /// Decayed number of positive actions on all items.
    pub(crate) fn total(&self, now_ms: i64) -> f64 {
        (self.total_log2 - now_ms as f64 / self.half_life_ms).exp2()
    }

    /// Items whose decayed number of positive actions is at least `least` (above 0), and that number.
    pub(crate) fn at_least(&self, least: f64, now_ms: i64) -> impl Iterator<Item = (&ItemId, f64)> {
        let now = now_ms as f64 / self.half_life_ms;
        // In logarithms first: most items have fewer, and need no power.
        let cut = least.log2() + now;
        self.log2
            .iter()
            .filter(move |(_, sum)| **sum >= cut)
            .map(move |(item, sum)| (item, (sum - now).exp2()))
    }

    /// Positions of the most popular active items, at most `count`, best first, ties by position.
    pub(crate) fn popular(&self, ledger: &Ledger, count: usize) -> Vec<u32> {
        let mut all: Vec<(f64, &ItemId)> = self.log2.iter().map(|(item, sum)| (*sum, item)).collect();
        // A look-up of each would take most of the time: twice as many as are wanted are nearly always enough.
        if all.len() > 2 * count {
            all.select_nth_unstable_by(2 * count, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
            let best = active(ledger, &all[..2 * count]);
            if best.len() >= count {
                return first(best, count);
            }
        }
        first(active(ledger, &all), count)
    }
}

fn active(ledger: &Ledger, items: &[(f64, &ItemId)]) -> Vec<(f64, u32)> {
    items.iter().filter_map(|(sum, item)| Some((*sum, ledger.position(item)?))).collect()
}

fn first(mut items: Vec<(f64, u32)>, count: usize) -> Vec<u32> {
    items.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    items.into_iter().take(count).map(|(_, position)| position).collect()
}

/// log2(2^a + 2^b).
fn added(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    high + (low - high).exp2().ln_1p() / std::f64::consts::LN_2
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
