//! What was served against what followed: the logged probabilities over the observed rate, by head and by hour.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::dataset::{Request, Slice};
use crate::replay::Logged;

const HOUR_MS: i64 = 3_600_000;
/// Normal quantile of a two-sided interval of 95 %.
const Z: f64 = 1.96;
/// Fewest expected or observed positives that say anything: the ratio is then known to a third.
const LEAST: f64 = 30.0;
/// Positives that stand for none, so that there is a ratio.
const HALF: f64 = 0.5;

/// Predicted over observed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Calibrated {
    /// Shown items.
    pub rows: u64,
    /// Sum of the logged probabilities.
    pub predicted: f64,
    /// Items whose label came out as 1.
    pub observed: f64,
    /// Predicted over observed; half a positive where there was none.
    pub ratio: f64,
    /// Lower end of its interval of 95 %, in which users are independent and rows of one are not.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Calibrated {
    /// Whether its whole interval is outside of `low` to `high`, with enough positives to say so.
    pub fn is_off(&self, low: f64, high: f64) -> bool {
        self.predicted.max(self.observed) >= LEAST && (self.low > high || self.high < low)
    }
}

/// One head.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeadServed {
    /// Its name.
    pub head: String,
    /// Over the whole window.
    pub all: Calibrated,
    /// By hour: its start, ms since 1970 UTC.
    pub hours: BTreeMap<i64, Calibrated>,
}

#[derive(Default)]
struct Sums {
    rows: u64,
    predicted: f64,
    observed: f64,
    /// Observed minus predicted.
    of_user: HashMap<u32, f64>,
}

impl Sums {
    fn add(&mut self, user: u32, predicted: f64, observed: f64) {
        self.rows += 1;
        self.predicted += predicted;
        self.observed += observed;
        *self.of_user.entry(user).or_default() += observed - predicted;
    }

    fn finish(&self) -> Calibrated {
        let observed = self.observed.max(HALF);
        let ratio = self.predicted / observed;
        let spread = self.of_user.values().map(|x| x * x).sum::<f64>().sqrt() / observed;
        let (low, high) = (ratio * (-Z * spread).exp(), ratio * (Z * spread).exp());
        Calibrated { rows: self.rows, predicted: self.predicted, observed: self.observed, ratio, low, high }
    }
}

/// Compares, for each head, the requests of the `window_ms` whose labels were complete at `end_ms`: those older than
/// `wait_ms[head]`. `logged` holds what was said of requests by their offset; requests without are left out.
pub fn calibration(
    slice: &Slice<'_>,
    logged: &HashMap<u64, Logged>,
    end_ms: i64,
    window_ms: i64,
    wait_ms: &[i64],
) -> Vec<HeadServed> {
    let heads = slice.dataset.schema.heads.iter().zip(wait_ms).enumerate();
    let of = |(at, (head, wait)): (usize, (&lately_features::schema::Head, &i64))| {
        let (mut all, mut hours) = (Sums::default(), BTreeMap::<i64, Sums>::new());
        let last = end_ms - wait;
        let ripe = |r: &&Request| (last - window_ms..=last).contains(&r.time_ms);
        for request in slice.iter().filter(ripe) {
            let Some(logged) = logged.get(&request.offset) else { continue };
            let hour = hours.entry(request.time_ms.div_euclid(HOUR_MS) * HOUR_MS).or_default();
            for candidate in &request.candidates {
                let item = slice.dataset.items[candidate.item as usize].as_str();
                let Some(p) = logged.of(item).and_then(|p| p.get(at)) else { continue };
                let observed = f64::from(u8::from(slice.dataset.label(candidate, at)));
                all.add(request.user, f64::from(*p), observed);
                hour.add(request.user, f64::from(*p), observed);
            }
        }
        let hours = hours.iter().filter(|(_, sums)| sums.rows > 0);
        HeadServed {
            head: head.name.clone(),
            all: all.finish(),
            hours: hours.map(|(hour, sums)| (*hour, sums.finish())).collect(),
        }
    };
    heads.map(of).collect()
}

/// For each head the longest attribution window of its actions, ms: before that, labels may still come.
pub fn label_delay_ms(schema: &lately_features::Schema) -> Vec<i64> {
    let window = |name: &String| {
        let action = schema.action(name).map(|a| &schema.actions[usize::from(a)]);
        action.map_or(0, |a| i64::from(a.attribution_seconds) * 1_000)
    };
    schema.heads.iter().map(|h| h.actions.iter().map(window).max().unwrap_or(0)).collect()
}
