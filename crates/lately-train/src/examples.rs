//! Examples as the model takes them: which rows, with what of their sequence, in which list, with which weight. Every
//! draw is named by its place (seed, epoch, request), so that a resumed run, and any number of threads, draw the same.

use std::collections::BTreeMap;

use lately_features::{FeatureBatch, RequestContext, Token};
use lately_model::{Lists, Objective};

use crate::config::TrainConfig;
use crate::dataset::{Candidate, Request, Slice, push_rows};
use crate::groups::{Groups, ListSequence, cuts};
use crate::random::Random;
use crate::weights::Weights;

/// Purpose of the random draws.
const EXAMPLE: u64 = 2;

/// A slice's rows as examples.
pub(crate) struct Examples<'a> {
    pub(crate) slice: &'a Slice<'a>,
    pub(crate) config: &'a TrainConfig,
    pub(crate) weights: &'a Weights,
    pub(crate) groups: Groups,
}

/// Some groups of examples; memory is reused.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) batch: FeatureBatch,
    /// Rows x heads.
    pub(crate) weights: Vec<f32>,
    /// Where lists begin and end; empty where there are none.
    offsets: Vec<u32>,
}

impl Part {
    fn clear(&mut self) {
        self.batch.clear();
        self.weights.clear();
        self.offsets.clear();
    }

    /// What the rows are trained for; `head_weight`: of the list term.
    pub(crate) fn objective<'p>(&'p self, head_weight: &'p [f32]) -> Objective<'p> {
        let lists = Lists { offsets: &self.offsets, head_weight, copies: &[] };
        Objective { weight: &self.weights, lists: (!self.offsets.is_empty()).then_some(lists) }
    }
}

/// Rows that are seen with one user part.
struct Page<'a> {
    request: &'a Request,
    surface: u16,
    rows: Vec<&'a Candidate>,
}

impl<'a> Examples<'a> {
    pub(crate) fn new(slice: &'a Slice<'a>, config: &'a TrainConfig, weights: &'a Weights) -> Self {
        Self { slice, config, weights, groups: Groups::of(slice, config) }
    }

    fn request(&self, at: u32) -> &'a Request {
        &self.slice.dataset.requests[at as usize]
    }

    /// Number of rows of a group.
    pub(crate) fn rows(&self, group: u32) -> usize {
        self.groups.get(group).iter().map(|at| self.request(*at).candidates.len()).sum()
    }

    /// Puts groups into `part`, each weight times `scale`.
    pub(crate) fn assemble(&self, epoch: u64, groups: &[u32], scale: f64, part: &mut Part) {
        part.clear();
        for group in groups {
            let members = self.groups.get(*group);
            let first = part.batch.rows();
            for page in self.pages(members) {
                self.push(&page, self.hidden(epoch, members[0]), scale, part);
            }
            if self.config.list_weight > 0.0 {
                let ends =
                    cuts(part.batch.rows() - first, self.config.list_rows).map(|end| (first + end) as u32);
                part.offsets.extend(ends.skip(usize::from(!part.offsets.is_empty())));
            }
        }
    }

    /// A group's requests, or, where its start fixes the sequence, one page for each surface: rows keep their own
    /// surface, all else of the user is as at the start.
    fn pages(&self, members: &[u32]) -> Vec<Page<'a>> {
        let page = |request: &'a Request| Page {
            request,
            surface: request.surface,
            rows: request.candidates.iter().collect(),
        };
        if self.config.list_sequence == ListSequence::Own || members.len() == 1 {
            return members.iter().map(|at| page(self.request(*at))).collect();
        }
        let request = self.request(members[0]);
        let mut surfaces = BTreeMap::<u16, Vec<&Candidate>>::new();
        for member in members.iter().map(|at| self.request(*at)) {
            surfaces.entry(member.surface).or_default().extend(&member.candidates);
        }
        surfaces.into_iter().map(|(surface, rows)| Page { request, surface, rows }).collect()
    }

    fn push(&self, page: &Page<'_>, hidden: Hidden, scale: f64, part: &mut Part) {
        let context = RequestContext { surface: page.surface, ..page.request.context() };
        let dataset = self.slice.dataset;
        push_rows(&mut part.batch, dataset, page.request, &context, hidden.of(page.request), &page.rows);
        let rows = page.rows.iter().flat_map(|c| self.weights.of(c.observed));
        part.weights.extend(rows.map(|weight| (weight * scale) as f32));
    }

    /// What a group does not see of its sequence: nothing, all, or what is younger than a random window. One draw for
    /// all its rows, so that a list does not rank rows of different sight.
    fn hidden(&self, epoch: u64, first: u32) -> Hidden {
        let mut random = Random::of(self.config.seed, &[EXAMPLE, epoch, u64::from(first)]);
        // Always the same draws, so that changing one setting does not change the others' outcomes.
        let (whole, window, hours) = (random.uniform(), random.uniform(), random.uniform());
        if whole < self.config.sequence_dropout {
            Hidden::All
        } else if window >= self.config.window_probability || self.config.window_hours == 0.0 {
            Hidden::Nothing
        } else {
            Hidden::Younger((hours * self.config.window_hours * 3_600_000.0) as i64)
        }
    }
}

/// What an example does not see of its sequence.
#[derive(Debug, Clone, Copy)]
enum Hidden {
    Nothing,
    All,
    /// Than this at the request, ms.
    Younger(i64),
}

impl Hidden {
    /// What is left, newest first.
    fn of(self, request: &Request) -> &[Token] {
        match self {
            Self::Nothing => &request.tokens,
            Self::All => &[],
            Self::Younger(hidden_ms) => {
                let age = |t: &Token| request.time_ms.saturating_sub(t.time_ms);
                &request.tokens[request.tokens.partition_point(|t| age(t) < hidden_ms)..]
            }
        }
    }
}

#[cfg(test)]
#[path = "examples_tests.rs"]
mod tests;
