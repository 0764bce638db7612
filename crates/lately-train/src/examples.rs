//! Examples as the model takes them: which rows, with what of their sequence, in which list, with which weight. Every
//! draw is named by its place (seed, epoch, request), so that a resumed run, and any number of threads, draw the same.

use std::collections::BTreeMap;

use lately_features::batch::Columns;
use lately_features::{FeatureBatch, RequestContext, Token};
use lately_model::{Lists, Objective};

use crate::config::{ConfigError, TrainConfig};
use crate::dataset::{Candidate, Request, Slice, push_rows};
use crate::groups::{Groups, ListSequence, cuts};
use crate::random::Random;
use crate::weights::{Users, Weights};

/// Purposes of the random draws.
const EXAMPLE: u64 = 2;
const NEGATIVE: u64 = 4;

/// A slice's rows as examples.
pub(crate) struct Examples<'a> {
    pub(crate) slice: &'a Slice<'a>,
    pub(crate) config: &'a TrainConfig,
    pub(crate) groups: Groups,
    weights: Weights,
    users: Users,
    /// Bits of the actions that make some head's label 1.
    positive: u64,
    /// Whether a row may stand for several of its list.
    copies: bool,
}

/// A row and how many it stands for: 1, or more for one of the negatives that were kept.
type Row<'a> = (&'a Candidate, f64);

/// How much a group holds in an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    /// How many rows they stand for.
    pub(crate) stands_for: f64,
}

impl Size {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, stands_for: self.stands_for + other.stands_for }
    }
}

/// Some groups of examples; memory is reused.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) batch: FeatureBatch,
    /// Rows x heads.
    pub(crate) weights: Vec<f32>,
    /// Where lists begin and end; empty where there are none.
    offsets: Vec<u32>,
    /// For each row how many rows of its list it stands for; empty: each for itself.
    copies: Vec<f32>,
}

impl Part {
    fn clear(&mut self) {
        self.batch.clear();
        self.weights.clear();
        self.offsets.clear();
        self.copies.clear();
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        let b = &self.batch;
        let columns = |c: &Columns| c.categorical.len() + c.numeric.len() + c.embedding.len();
        let words = [&b.row_offsets, &b.token_offsets, &self.offsets].map(Vec::len).iter().sum::<usize>()
            + [&b.token_item, &b.candidate, &b.label, &self.weights, &self.copies]
                .map(Vec::len)
                .iter()
                .sum::<usize>()
            + columns(&b.user)
            + columns(&b.item);
        // Of a token its age, action and surface.
        4 * words + 2 * b.surface.len() + 11 * b.token_action.len()
    }

    /// What the rows are trained for; `head_weight`: of the list term.
    pub(crate) fn objective<'p>(&'p self, head_weight: &'p [f32]) -> Objective<'p> {
        let lists = Lists { offsets: &self.offsets, head_weight, copies: &self.copies };
        Objective { weight: &self.weights, lists: (!self.offsets.is_empty()).then_some(lists) }
    }
}

/// Rows that are seen with one user part.
struct Page<'a> {
    request: &'a Request,
    surface: u16,
    rows: Vec<Row<'a>>,
}

impl<'a> Examples<'a> {
    pub(crate) fn new(slice: &'a Slice<'a>, config: &'a TrainConfig) -> Result<Self, ConfigError> {
        let schema = &slice.dataset.schema;
        let weights = Weights::new(schema, &config.label_weights)?;
        let users = Users::new(schema, &config.user_weights)?;
        let positive = slice.dataset.head_bits.iter().fold(0, |all, bits| all | bits);
        let thinned = slice.iter().flat_map(|r| &r.candidates).any(|c| c.stands_for != 1.0);
        let copies = config.negative_rate < 1.0 || thinned;
        Ok(Self { slice, config, groups: Groups::of(slice, config), weights, users, positive, copies })
    }

    fn request(&self, at: u32) -> &'a Request {
        &self.slice.dataset.requests[at as usize]
    }

    /// The rows of a request that an epoch keeps.
    fn kept(&self, epoch: u64, at: u32) -> impl Iterator<Item = Row<'a>> {
        let (rate, positive) = (self.config.negative_rate, self.positive);
        let mut random = Random::of(self.config.seed, &[NEGATIVE, epoch, u64::from(at)]);
        self.request(at).candidates.iter().filter_map(move |candidate| {
            let drawn = rate >= 1.0 || random.uniform() < rate; // one draw a row, whatever it is
            let stands_for = f64::from(candidate.stands_for);
            match candidate.observed & positive != 0 {
                true => Some((candidate, stands_for)),
                false => drawn.then_some((candidate, stands_for / rate)),
            }
        })
    }

    /// How much of a group an epoch keeps.
    pub(crate) fn size(&self, epoch: u64, group: u32) -> Size {
        let rows = self.groups.get(group).iter().flat_map(|at| self.kept(epoch, *at));
        rows.fold(Size::default(), |sum, (_, stands_for)| sum.plus(Size { rows: 1, stands_for }))
    }

    /// Tokens of some groups.
    pub(crate) fn tokens(&self, groups: &[u32]) -> usize {
        groups.iter().flat_map(|group| self.groups.get(*group)).map(|at| self.request(*at).tokens.len()).sum()
    }

    /// Every row and its weight in each head, with all rows kept.
    pub(crate) fn weighted(&self) -> impl Iterator<Item = (&'a Candidate, impl Iterator<Item = f64>)> {
        self.slice.iter().flat_map(move |request| {
            let user = self.users.of(request.features.as_deref());
            request.candidates.iter().map(move |c| {
                let times = user * f64::from(c.stands_for);
                (c, self.weights.of(c.observed).map(move |w| w * times))
            })
        })
    }

    /// Puts groups into `part`, each weight times `scale`.
    pub(crate) fn assemble(&self, epoch: u64, groups: &[u32], scale: f64, part: &mut Part) {
        part.clear();
        for group in groups {
            let members = self.groups.get(*group);
            let first = part.batch.rows();
            for page in self.pages(epoch, members) {
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
    fn pages(&self, epoch: u64, members: &[u32]) -> Vec<Page<'a>> {
        let own = |at: &u32| {
            let request = self.request(*at);
            Page { request, surface: request.surface, rows: self.kept(epoch, *at).collect() }
        };
        let pages = members.iter().map(own).filter(|page| !page.rows.is_empty());
        if self.config.list_sequence == ListSequence::Own || members.len() == 1 {
            return pages.collect();
        }
        let request = self.request(members[0]);
        let mut surfaces = BTreeMap::<u16, Vec<Row<'_>>>::new();
        pages.for_each(|page| surfaces.entry(page.surface).or_default().extend(page.rows));
        surfaces.into_iter().map(|(surface, rows)| Page { request, surface, rows }).collect()
    }

    fn push(&self, page: &Page<'_>, hidden: Hidden, scale: f64, part: &mut Part) {
        let context = RequestContext { surface: page.surface, ..page.request.context() };
        let (dataset, user) = (self.slice.dataset, page.request.features.as_deref());
        let (rows, scale) = (page.rows.iter().map(|(row, _)| *row), scale * self.users.of(user));
        push_rows(&mut part.batch, dataset, page.request, &context, hidden.of(page.request), rows);
        for (row, copies) in &page.rows {
            let weights = self.weights.of(row.observed);
            part.weights.extend(weights.map(|weight| (weight * copies * scale) as f32));
            if self.copies {
                part.copies.push(*copies as f32);
            }
        }
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
