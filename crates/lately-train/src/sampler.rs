//! Which groups of examples stand in which batch and shard: drawn from (seed, epoch), so that a resumed run, and any
//! number of threads, see the same.

use std::ops::Range;

use crate::examples::Examples;
use crate::random::Random;

/// Purpose of the random draws.
const ORDER: u64 = 1;

/// One epoch's groups in its order, cut into batches of whole groups.
pub(crate) struct Epoch {
    /// Its number, from 0.
    pub(crate) number: u64,
    /// Numbers of groups.
    pub(crate) groups: Vec<u32>,
    /// For each of `groups` its rows.
    rows: Vec<u32>,
    /// Ranges of `groups`.
    pub(crate) batches: Vec<Range<usize>>,
}

impl Epoch {
    pub(crate) fn new(examples: &Examples<'_>, number: u64) -> Self {
        let mut groups: Vec<u32> = (0..examples.groups.len() as u32).collect();
        Random::of(examples.config.seed, &[ORDER, number]).shuffle(&mut groups);
        let rows: Vec<u32> = groups.iter().map(|group| examples.rows(*group) as u32).collect();
        let mut batches = Vec::new();
        let (mut start, mut count) = (0, 0);
        for (at, rows) in rows.iter().enumerate() {
            count += *rows as usize;
            if count >= examples.config.batch_rows || at + 1 == groups.len() {
                batches.push(start..at + 1);
                (start, count) = (at + 1, 0);
            }
        }
        Self { number, groups, rows, batches }
    }

    /// Rows of some groups.
    pub(crate) fn rows(&self, groups: &Range<usize>) -> usize {
        self.rows[groups.clone()].iter().map(|rows| *rows as usize).sum()
    }

    /// Cuts a batch into `shards` parts of about as many rows each; some are empty where groups are few.
    pub(crate) fn shards(&self, batch: &Range<usize>, shards: usize) -> Vec<Range<usize>> {
        let total = self.rows(batch);
        let mut out = Vec::with_capacity(shards);
        let (mut at, mut done) = (batch.start, 0);
        for shard in 1..=shards {
            let start = at;
            while at < batch.end && done * shards < total * shard {
                done += self.rows[at] as usize;
                at += 1;
            }
            out.push(start..at);
        }
        out
    }
}
