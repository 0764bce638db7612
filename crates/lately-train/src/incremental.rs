//! Retraining from where a model stands: the rows that came since, and a sample of those that it has seen.
//!
//! A model that goes on with new rows alone forgets what they do not show. The remedy is as old as the trouble: rehearse
//! a sample of the past beside them (Robins 1995; "experience replay"). Both are shuffled together, so that a step never
//! holds a day alone.

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, TrainConfig};
use crate::dataset::Slice;
use crate::random::Random;

/// Purpose of the random draws.
const REPLAY: u64 = 6;

/// Settings of an incremental training, `[train.incremental]`; all else is as in `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IncrementalConfig {
    /// Rows from before for each new one. Default 0.3.
    pub replay: f64,
    /// Passes over the rows. Default 1.
    pub epochs: u32,
    /// Highest learning rate as a share of `[train] learning_rate`. Default 0.5: the weights are near where they belong.
    pub learning_rate: f64,
}

impl Default for IncrementalConfig {
    fn default() -> Self {
        Self { replay: 0.3, epochs: 1, learning_rate: 0.5 }
    }
}

impl IncrementalConfig {
    /// Checks all ranges.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let rate = self.learning_rate > 0.0 && self.learning_rate <= 10.0;
        for (name, value, good, range) in [
            ("incremental.replay", self.replay, (0.0..=100.0).contains(&self.replay), "0 to 100"),
            ("incremental.epochs", f64::from(self.epochs), self.epochs > 0, "1 or more"),
            ("incremental.learning_rate", self.learning_rate, rate, "above 0, to 10"),
        ] {
            if !good {
                return Err(ConfigError::Range { name, value, range });
            }
        }
        Ok(())
    }
}

impl TrainConfig {
    /// The settings of an incremental training.
    pub fn incremental(&self) -> Self {
        let own = &self.incremental;
        Self { epochs: own.epochs, learning_rate: self.learning_rate * own.learning_rate, ..self.clone() }
    }
}

impl<'a> Slice<'a> {
    /// The requests later than `seen_ms`, and of the others so many, drawn at random by `seed`, that `replay` of their
    /// rows stand beside each new one. All in order of time.
    pub fn since(&self, seen_ms: i64, replay: f64, seed: u64) -> Slice<'a> {
        let requests = &self.dataset.requests;
        let rows = |r: &u32| requests[*r as usize].candidates.len();
        let (new, mut old): (Vec<u32>, Vec<u32>) =
            self.requests.iter().partition(|r| requests[**r as usize].time_ms > seen_ms);
        let wanted = replay * new.iter().map(rows).sum::<usize>() as f64;
        Random::of(seed, &[REPLAY, seen_ms as u64]).shuffle(&mut old);
        let mut taken = 0;
        let enough = |r: &u32| {
            let more = (taken as f64) < wanted;
            taken += rows(r);
            more
        };
        let mut all: Vec<u32> = old.into_iter().take_while(enough).chain(new).collect();
        all.sort_unstable();
        Slice { dataset: self.dataset, requests: all }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::fixtures::{T0, impression, schema};
    use crate::{JoinOptions, join};
    use lately_features::Event;

    #[test]
    fn new_rows_are_all_there_and_old_ones_in_proportion() {
        let log = (0..100).map(|n| {
            let shown = impression(&format!("r{n}"), &format!("u{}", n % 7), &["a", "b"], n);
            Ok::<_, Infallible>((n as u64, Event::Impression(shown)))
        });
        let dataset = join(&schema(), log, JoinOptions::default()).unwrap();
        let (all, seen) = (dataset.all(), T0 + 79_000);
        let times = |slice: &Slice<'_>| -> Vec<i64> { slice.iter().map(|r| r.time_ms - T0).collect() };
        let slice = all.since(seen, 0.5, 1);
        let times_of = times(&slice);
        assert!(times_of.is_sorted(), "in order of time");
        let new: Vec<i64> = (80..100).map(|n| n * 1000).collect();
        assert_eq!(times_of.len(), 30, "half as many again");
        assert_eq!(&times_of[10..], new);
        assert_eq!(times(&all.since(seen, 0.5, 1)), times_of);
        assert_ne!(times(&all.since(seen, 0.5, 2)), times_of);
        assert_eq!(all.since(seen, 100.0, 1).requests.len(), 100, "no more than there are");
        assert_eq!(all.since(seen, 0.0, 1).requests.len(), 20);
    }
}
