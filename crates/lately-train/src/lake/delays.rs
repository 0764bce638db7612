//! How long actions take to come, measured, and the wait that follows from it.

use lately_features::Schema;
use serde::{Deserialize, Serialize};

use super::config::LakeConfig;

/// Delays below which a type's own are not believed yet: a 0.99 quantile of fewer is its largest one.
const BELIEVED: u64 = 100;
/// Delays of one type at which all its counts are halved: newer ones then weigh more.
const HALVED_AT: u64 = 1 << 20;
/// Bits of a delay after its first: buckets are at most an eighth wide.
const BITS: u32 = 3;

/// Delays of one action type, ms, in buckets that grow with them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Delays {
    counts: Vec<u64>,
}

/// What is known of one action type's delays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DelayReport {
    /// Name of the action type.
    pub action: String,
    /// Delays counted; older ones weigh less.
    pub count: u64,
    /// Half of the actions came within, s.
    pub p50_seconds: f64,
    /// 90 % came within, s.
    pub p90_seconds: f64,
    /// 99 % came within, s.
    pub p99_seconds: f64,
    /// Share that came later than the wait.
    pub later: f64,
}

impl Delays {
    pub(crate) fn add(&mut self, delay_ms: i64) {
        let bucket = bucket(delay_ms.max(0) as u64);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        if self.count() >= HALVED_AT {
            self.counts.iter_mut().for_each(|n| *n /= 2);
        }
    }

    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A delay, ms, that a share `q` of all do not pass.
    fn quantile(&self, q: f64) -> u64 {
        let want = (self.count() as f64 * q).ceil().max(1.0) as u64;
        let mut sum = 0;
        let reached = |n: &u64| {
            sum += n;
            sum >= want
        };
        self.counts.iter().position(reached).map_or(0, end)
    }

    /// Share of the delays above.
    fn above(&self, delay_ms: u64) -> f64 {
        let above: u64 = self.counts.iter().skip(bucket(delay_ms) + 1).sum();
        above as f64 / self.count().max(1) as f64
    }

    fn report(&self, action: &str, wait_ms: i64) -> DelayReport {
        let seconds = |q| self.quantile(q) as f64 / 1000.0;
        DelayReport {
            action: action.to_owned(),
            count: self.count(),
            p50_seconds: seconds(0.5),
            p90_seconds: seconds(0.9),
            p99_seconds: seconds(0.99),
            later: self.above(wait_ms as u64),
        }
    }
}

/// The bucket of a delay.
fn bucket(ms: u64) -> usize {
    let log = ms.max(1).ilog2();
    if log < BITS {
        return ms as usize;
    }
    let rest = (ms >> (log - BITS)) & ((1 << BITS) - 1);
    (((log - BITS + 1) << BITS) as u64 + rest) as usize
}

/// The largest delay of a bucket.
fn end(bucket: usize) -> u64 {
    let (log, rest) = (bucket as u64 >> BITS, bucket as u64 & ((1 << BITS) - 1));
    match log {
        0 => rest,
        _ => (((1 << BITS) + rest + 1) << (log - 1)) - 1,
    }
}

/// How long a request waits for its labels, ms: the longest over the action types that make a head's label 1.
pub(crate) fn wait_ms(delays: &[Delays], schema: &Schema, config: &LakeConfig) -> i64 {
    let labels = schema.head_labels();
    let feeds = |action: &usize| labels.iter().any(|head| head[*action]);
    let of = |action: usize| {
        let window = i64::from(schema.actions[action].attribution_seconds) * 1000;
        let delays = &delays[action];
        match delays.count() {
            0..BELIEVED => window,
            _ => window.min(delays.quantile(config.wait_quantile) as i64),
        }
    };
    let longest = (0..schema.actions.len()).filter(feeds).map(of).max().unwrap_or(0);
    longest.clamp(i64::from(config.min_wait_seconds) * 1000, i64::from(config.max_wait_seconds) * 1000)
}

/// All types' delays, against a wait.
pub(crate) fn report(delays: &[Delays], schema: &Schema, wait_ms: i64) -> Vec<DelayReport> {
    schema.actions.iter().zip(delays).map(|(action, delays)| delays.report(&action.name, wait_ms)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::schema;

    #[test]
    fn buckets_hold_what_they_say() {
        let mut last = 0;
        for ms in (0..5_000).chain((13..40).map(|bits| 1u64 << bits)) {
            let bucket = bucket(ms);
            assert!(bucket >= last && end(bucket) >= ms, "{ms}");
            assert!(bucket == 0 || end(bucket - 1) < ms, "{ms}");
            last = bucket;
        }
        assert!(end(bucket(1_000_000)) < 1_130_000, "an eighth wide at most");
    }

    #[test]
    fn the_wait_is_the_quantile_of_the_slowest_type_that_feeds_a_head_within_its_limits() {
        let (schema, config) = (schema(), LakeConfig { min_wait_seconds: 10, ..LakeConfig::default() });
        let mut delays = vec![Delays::default(); schema.actions.len()];
        // `hide` and `share` have half an hour, and nothing has been seen.
        assert_eq!(wait_ms(&delays, &schema, &config), 1_800_000);
        for (action, seconds) in [(0, 1_700), (1, 1), (2, 100), (3, 5), (4, 20)] {
            (0..1000).for_each(|n| delays[action].add(if n < 985 { seconds * 900 } else { seconds * 1000 }));
        }
        let wait = wait_ms(&delays, &schema, &config);
        assert!((100_000..=112_500).contains(&wait), "{wait}: of saves; `seen` feeds no head");
        let low = LakeConfig { wait_quantile: 0.9, ..config.clone() };
        assert!((90_000..100_000).contains(&wait_ms(&delays, &schema, &low)));
        let short = LakeConfig { max_wait_seconds: 30, ..config };
        assert_eq!(wait_ms(&delays, &schema, &short), 30_000);
        let later = report(&delays, &schema, 95_000)[2].later;
        assert!((later - 0.015).abs() < 1e-9, "{later}");
    }
}
