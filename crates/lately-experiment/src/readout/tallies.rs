//! Sums of each group, metric and variant.

use super::design::Design;
use super::segment::{Group, Segment};
use crate::statistics::{Observation, Sums};

/// What is known of a person.
#[derive(Debug, Clone, PartialEq)]
pub struct PersonSums {
    /// Position of the variant in the experiment.
    pub variant: usize,
    /// What the person was.
    pub segment: Segment,
    /// Sums of the pre-period, in the order of the design's columns; 0 where there was nothing.
    pub before: Vec<f64>,
    /// Sums since the first exposure.
    pub during: Vec<f64>,
}

/// Sums by group, metric and variant.
#[derive(Debug, Clone)]
pub(super) struct Tallies {
    variants: usize,
    /// For each metric the columns of numerator and denominator.
    metrics: Vec<(usize, Option<usize>)>,
    sums: Vec<Sums>,
    users: Vec<u64>,
    /// People who did anything in the pre-period.
    pub(super) with_past: u64,
}

impl Tallies {
    /// Of nobody. The design was checked, so that its metrics name columns.
    pub(super) fn new(design: &Design) -> Self {
        let variants = design.experiment.variants.len();
        let columns = |m: &super::Metric| {
            let per = m.per.as_ref().map(|per| design.column(per));
            Some((design.column(&m.of)?, per.map_or(Some(None), |per| per.map(Some))?))
        };
        let metrics: Vec<_> = design.metrics.iter().filter_map(columns).collect();
        let sums = vec![Sums::default(); Group::EACH.len() * metrics.len() * variants];
        Self { variants, metrics, sums, users: vec![0; Group::EACH.len() * variants], with_past: 0 }
    }

    /// Counts a person in; one of a variant that there is not, or with other columns, counts nowhere.
    pub(super) fn add(&mut self, person: &PersonSums) {
        let columns = self.metrics.iter().flat_map(|(of, per)| [Some(*of), *per]).flatten().max();
        let least = columns.map_or(0, |last| last + 1);
        if person.variant >= self.variants || person.before.len() < least || person.during.len() < least {
            return;
        }
        self.with_past += u64::from(person.before.iter().any(|n| *n != 0.0));
        for (group, _) in Group::EACH.iter().enumerate().filter(|(_, g)| g.holds(person.segment)) {
            self.users[group * self.variants + person.variant] += 1;
            for at in 0..self.metrics.len() {
                let observation = observed(person, self.metrics[at]);
                let at = (group * self.metrics.len() + at) * self.variants + person.variant;
                self.sums[at].add(&observation);
            }
        }
    }

    pub(super) fn sums(&self, group: usize, metric: usize, variant: usize) -> &Sums {
        &self.sums[(group * self.metrics.len() + metric) * self.variants + variant]
    }

    /// People of each variant.
    pub(super) fn users(&self, group: usize) -> &[u64] {
        &self.users[group * self.variants..(group + 1) * self.variants]
    }
}

fn observed(person: &PersonSums, (of, per): (usize, Option<usize>)) -> Observation {
    match per {
        None => Observation::mean(person.during[of], person.before[of]),
        Some(per) => Observation {
            of: person.during[of],
            per: person.during[per],
            of_before: person.before[of],
            per_before: person.before[per],
        },
    }
}
