//! Which groups of examples stand in which batch and shard: drawn from (seed, epoch), so that a resumed run, and any
//! number of threads, see the same.

use std::ops::Range;

use crate::examples::{Examples, Size};
use crate::random::Random;

/// Purpose of the random draws.
const ORDER: u64 = 1;

/// One epoch's groups in its order, cut into batches of whole groups.
pub(crate) struct Epoch {
    /// Its number, from 0.
    pub(crate) number: u64,
    /// Numbers of the groups of which it keeps rows.
    pub(crate) groups: Vec<u32>,
    /// For each of `groups` what it keeps.
    sizes: Vec<Size>,
    /// Ranges of `groups`.
    pub(crate) batches: Vec<Range<usize>>,
}

impl Epoch {
    pub(crate) fn new(examples: &Examples<'_>, number: u64) -> Self {
        let mut groups: Vec<u32> = (0..examples.groups.len() as u32).collect();
        Random::of(examples.config.seed, &[ORDER, number]).shuffle(&mut groups);
        let mut sizes: Vec<Size> = groups.iter().map(|group| examples.size(number, *group)).collect();
        let mut kept = sizes.iter().map(|size| size.rows > 0);
        groups.retain(|_| kept.next() == Some(true));
        sizes.retain(|size| size.rows > 0);
        let mut batches = Vec::new();
        let (mut start, mut count) = (0, 0);
        for (at, size) in sizes.iter().enumerate() {
            count += size.rows;
            if count >= examples.config.batch_rows || at + 1 == groups.len() {
                batches.push(start..at + 1);
                (start, count) = (at + 1, 0);
            }
        }
        Self { number, groups, sizes, batches }
    }

    /// How much some groups hold.
    pub(crate) fn size(&self, groups: &Range<usize>) -> Size {
        self.sizes[groups.clone()].iter().fold(Size::default(), |sum, size| sum.plus(*size))
    }
}
