//! Which requests stand in which batch, and what of their sequence an example shows. Every draw is named by its
//! place (seed, epoch, request), so that a resumed run, and any number of threads, draw the same.

use std::ops::Range;

use lately_features::{FeatureBatch, Token};

use crate::config::{TrainConfig, Weights};
use crate::dataset::{Request, Slice, push};
use crate::random::Random;

/// Purposes of random draws.
const ORDER: u64 = 1;
const EXAMPLE: u64 = 2;

/// One epoch's requests in its order, cut into batches of whole requests.
pub(crate) struct Epoch {
    /// Positions in `Dataset::requests`.
    pub(crate) requests: Vec<u32>,
    /// Ranges of `requests`.
    pub(crate) batches: Vec<Range<usize>>,
}

impl Epoch {
    pub(crate) fn new(slice: &Slice<'_>, config: &TrainConfig, epoch: u64) -> Self {
        let mut requests = slice.requests.clone();
        Random::of(config.seed, &[ORDER, epoch]).shuffle(&mut requests);
        let rows = |at: usize| slice.dataset.requests[requests[at] as usize].candidates.len();
        let mut batches = Vec::new();
        let (mut start, mut count) = (0, 0);
        for at in 0..requests.len() {
            count += rows(at);
            if count >= config.batch_rows || at + 1 == requests.len() {
                batches.push(start..at + 1);
                (start, count) = (at + 1, 0);
            }
        }
        Self { requests, batches }
    }

    /// Cuts a batch into `shards` parts of about as many rows each; some are empty where requests are few.
    pub(crate) fn shards(&self, slice: &Slice<'_>, batch: &Range<usize>, shards: usize) -> Vec<Range<usize>> {
        let rows = |at: usize| slice.dataset.requests[self.requests[at] as usize].candidates.len();
        let total: usize = batch.clone().map(rows).sum();
        let mut out = Vec::with_capacity(shards);
        let (mut at, mut done) = (batch.start, 0);
        for shard in 1..=shards {
            let start = at;
            while at < batch.end && done * shards < total * shard {
                done += rows(at);
                at += 1;
            }
            out.push(start..at);
        }
        out
    }
}

/// Puts examples into a batch with their weights (rows x heads), each weight times `scale`.
pub(crate) struct Examples<'a> {
    pub(crate) slice: &'a Slice<'a>,
    pub(crate) config: &'a TrainConfig,
    pub(crate) weights: &'a Weights,
}

impl Examples<'_> {
    pub(crate) fn assemble(
        &self,
        epoch: u64,
        requests: &[u32],
        scale: f64,
        batch: &mut FeatureBatch,
        weights: &mut Vec<f32>,
    ) {
        batch.clear();
        weights.clear();
        for at in requests {
            let request = &self.slice.dataset.requests[*at as usize];
            push(batch, self.slice.dataset, request, self.visible(request, epoch, *at));
            let rows = request.candidates.iter().flat_map(|c| self.weights.of(c.observed));
            weights.extend(rows.map(|weight| (weight * scale) as f32));
        }
    }

    /// The tokens that an example shows: all, none, or those older than a random window.
    fn visible<'r>(&self, request: &'r Request, epoch: u64, at: u32) -> &'r [Token] {
        let mut random = Random::of(self.config.seed, &[EXAMPLE, epoch, u64::from(at)]);
        // Always the same draws, so that changing one setting does not change the others' outcomes.
        let (whole, window, hours) = (random.uniform(), random.uniform(), random.uniform());
        if whole < self.config.sequence_dropout {
            return &[];
        }
        if window >= self.config.window_probability || self.config.window_hours == 0.0 {
            return &request.tokens;
        }
        let hidden_ms = (hours * self.config.window_hours * 3_600_000.0) as i64;
        // Newest first, so that the hidden ones are at the front.
        let age = |t: &Token| request.time_ms.saturating_sub(t.time_ms);
        &request.tokens[request.tokens.partition_point(|t| age(t) < hidden_ms)..]
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::dataset::Dataset;
    use crate::fixtures::*;
    use crate::join::{JoinOptions, join};
    use lately_features::Event;

    /// 40 users with actions 1, 2, ... 8 hours before a request of 1 to 5 items.
    fn dataset() -> Dataset {
        let mut log = Vec::new();
        for u in 0..40 {
            let name = format!("u{u}");
            log.extend((1..=8).map(|h| action(&name, "a", "seen", -3600 * h, "")));
            log.push(Event::Impression(impression(&name, &name, &["a", "b", "c", "d", "e"][..1 + u % 5], 0)));
        }
        let log = log.into_iter().enumerate().map(|(i, e)| Ok::<_, Infallible>((i as u64, e)));
        join(&schema(), log, JoinOptions::default()).unwrap()
    }

    #[test]
    fn an_epoch_holds_every_request_once_in_whole_batches() {
        let d = dataset();
        let slice = d.all();
        let config = TrainConfig { batch_rows: 16, ..TrainConfig::default() };
        let (a, b) = (Epoch::new(&slice, &config, 0), Epoch::new(&slice, &config, 1));
        assert_ne!(a.requests, b.requests);
        let mut sorted = a.requests.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, slice.requests);
        let rows = |range: &Range<usize>| -> usize {
            a.requests[range.clone()].iter().map(|r| d.requests[*r as usize].candidates.len()).sum()
        };
        assert_eq!(a.batches.iter().map(rows).sum::<usize>(), slice.rows());
        assert!(a.batches[..a.batches.len() - 1].iter().all(|b| (16..21).contains(&rows(b))));
        for batch in &a.batches {
            let shards = a.shards(&slice, batch, 4);
            assert_eq!((shards[0].start, shards[3].end, shards.len()), (batch.start, batch.end, 4));
            assert!(shards.windows(2).all(|w| w[0].end == w[1].start));
            assert!(shards.iter().all(|s| rows(s) <= rows(batch) / 4 + 5));
        }
    }

    #[test]
    fn the_window_hides_the_newest_actions_of_some_examples() {
        let d = dataset();
        let slice = d.all();
        let shown = |config: TrainConfig| -> Vec<usize> {
            let weights = Weights::new(&d.schema, &config.label_weights).unwrap();
            let examples = Examples { slice: &slice, config: &config, weights: &weights };
            let of = |at: &u32| {
                let request = &d.requests[*at as usize];
                let tokens = examples.visible(request, 0, *at);
                // What is hidden is the newest.
                let newest = tokens.first().map_or(9, |t| (request.time_ms - t.time_ms) / 3_600_000);
                assert_eq!(newest as usize, 9 - tokens.len());
                tokens.len()
            };
            slice.requests.iter().map(of).collect()
        };
        let base = TrainConfig { sequence_dropout: 0.0, window_probability: 1.0, ..TrainConfig::default() };
        assert_eq!(shown(TrainConfig { window_hours: 0.0, ..base.clone() }), [8; 40]);
        assert_eq!(shown(TrainConfig { window_probability: 0.0, ..base.clone() }), [8; 40]);
        assert_eq!(shown(TrainConfig { sequence_dropout: 1.0, ..base.clone() }), [0; 40]);
        // T uniform in 0 to 24 h hides 8 of 8 in two thirds of the examples.
        let hidden = shown(base).iter().filter(|n| **n == 0).count();
        assert!((18..36).contains(&hidden), "{hidden}");
    }

    #[test]
    fn weights_are_scaled_and_labels_stand_beside_them() {
        let d = dataset();
        let slice = d.all();
        let (config, mut batch, mut out) = (TrainConfig::default(), FeatureBatch::default(), Vec::new());
        let weights = Weights::new(&d.schema, &config.label_weights).unwrap();
        let examples = Examples { slice: &slice, config: &config, weights: &weights };
        examples.assemble(0, &slice.requests[..2], 0.5, &mut batch, &mut out);
        assert_eq!((batch.requests(), out.len(), batch.label.len()), (2, 3 * batch.rows(), 3 * batch.rows()));
        assert!(out.iter().all(|w| *w == 0.5));
    }
}
