//! All batches of a run, in their order.

use std::ops::Range;

use crate::examples::Examples;
use crate::sampler::Epoch;

/// Which batches a run goes through.
pub(crate) struct Course<'e> {
    pub(crate) examples: &'e Examples<'e>,
    /// Batches of each epoch.
    counts: Vec<u64>,
    /// Rows of all.
    pub(crate) rows: u64,
    /// Batches in all, each a step.
    pub(crate) steps: u64,
}

impl<'e> Course<'e> {
    pub(crate) fn new(examples: &'e Examples<'e>) -> Self {
        let (mut counts, mut rows) = (Vec::new(), 0);
        for epoch in (0..examples.config.epochs.into()).map(|number| Epoch::new(examples, number)) {
            counts.push(epoch.batches.len() as u64);
            rows += epoch.size(&(0..epoch.groups.len())).rows as u64;
        }
        let steps = counts.iter().sum();
        Self { examples, counts, rows, steps }
    }

    /// Epoch of a step, and the step's number in it; `None` after the last.
    fn at(&self, step: u64) -> Option<(u64, usize)> {
        let mut left = step;
        for (epoch, count) in (0..).zip(&self.counts) {
            if left < *count {
                return Some((epoch, left as usize));
            }
            left -= count;
        }
        None
    }

    /// Its batches from a step on.
    pub(crate) fn from(&self, step: u64) -> Batches<'_> {
        Batches { course: self, step, order: None }
    }
}

/// The batches from a step on. An epoch's order is drawn when its first batch is asked for.
pub(crate) struct Batches<'c> {
    course: &'c Course<'c>,
    step: u64,
    order: Option<Epoch>,
}

impl Batches<'_> {
    /// The next one: its epoch's order and a range of groups there.
    pub(crate) fn next(&mut self) -> Option<(&Epoch, Range<usize>)> {
        let (epoch, at) = self.course.at(self.step)?;
        self.step += 1;
        self.order.take_if(|order| order.number != epoch);
        let order = self.order.get_or_insert_with(|| Epoch::new(self.course.examples, epoch));
        Some((order, order.batches[at].clone()))
    }
}
