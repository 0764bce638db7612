//! What has more of all positive actions now than usual.
//!
//! An item's decayed sum of positive actions is s with the short half-life and l with the long one; S and L are those of all
//! items together. Where an item has its usual share, s is l x S / L: neither the hour of the day nor a log that has only
//! begun makes anything trend. The trend is a ratio of rates with a prior of m actions on both sides (`trending_actions`;
//! the posterior mean of a Gamma-Poisson model whose prior says "as usual", as strongly as m actions do):
//!
//! ```text
//! trend = (s + m) / (l x S / L + m)
//! ```
//!
//! An item trends from [`TREND`] on. So where it usually has nothing it takes more than m actions of about one short
//! half-life; one click gives at most (1 + 10) / 10 = 1.1. A burst that is over decays: s halves with each short half-life.

use super::catalogue::Ledger;
use super::popularity::Popularity;

/// From how many times the usual on an item trends. At 2 and m = 10 a steady stream of e usual actions would have to vary by
/// e + 10, which is never less than 8 of its standard deviations: sqrt(e / 2), by Poisson.
const TREND: f64 = 2.0;

/// Positions of the active items that trend at `now_ms`, at most `count`, strongest first, ties by position. `prior`: m.
pub(super) fn trending(
    ledger: &Ledger,
    short: &Popularity,
    long: &Popularity,
    prior: f64,
    now_ms: i64,
    count: usize,
) -> Vec<u32> {
    let usual = short.total(now_ms) / long.total(now_ms).max(f64::MIN_POSITIVE);
    // (s + m) / (usual + m) >= TREND needs at least so many; most items have fewer, and end here.
    let least = (TREND - 1.0) * prior;
    let trend = |(item, s): (&_, f64)| {
        let trend = (s + prior) / (f64::from(long.at(item, now_ms)) * usual + prior);
        (trend >= TREND).then(|| ledger.position(item).map(|position| (trend, position)))?
    };
    let mut all: Vec<(f64, u32)> = short.at_least(least, now_ms).filter_map(trend).collect();
    all.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    all.truncate(count);
    all.into_iter().map(|(_, position)| position).collect()
}
