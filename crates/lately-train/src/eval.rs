//! Evaluation: several scorers on the same rows, by head and group, with a bootstrap over users.
//!
//! The intervals are percentiles over resamples of users (rows of one user are not independent). All scorers see the
//! same resamples, so that the interval of a difference is a paired one.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::chunks::{Chunk, Chunks};
use crate::dataset::{Request, Slice};
use crate::metrics::{Metrics, Prepared, Ranked, Row, auc_sorted};
use crate::random::Random;
pub use crate::report::{Difference, Estimate, EvalReport, Group, GroupReport, HeadReport, ScorerReport};
use crate::scores::Scores;

/// How to evaluate.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// Resamples of users. Default 200: the ends of a 95 % interval are then steady to about a tenth of its width.
    pub resamples: usize,
    /// Seed of resamples and of the shuffle that breaks ties.
    pub seed: u64,
    /// Worker threads; the result does not depend on them.
    pub threads: usize,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { resamples: 200, seed: 1, threads: 2 }
    }
}

/// Why an evaluation is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Nothing to evaluate.
    #[error("there is no row to evaluate: widen the range of days")]
    Empty,
    /// A column has another length than the slice.
    #[error("scorer `{name}` gives {got} scores, the rows need {want}: score this very slice")]
    Length {
        /// Scorer.
        name: String,
        /// Its scores.
        got: usize,
        /// Rows x heads.
        want: usize,
    },
    /// A score is not a number.
    #[error("scorer `{0}` gives a score that is not finite: its model is broken")]
    NotFinite(String),
}

/// Evaluates scorers on a slice; the first is the one that is compared with the others.
pub fn evaluate(
    slice: &Slice<'_>,
    chunks: &Chunks,
    scorers: &[Scores],
    options: &EvalOptions,
) -> Result<EvalReport, EvalError> {
    let view = View::new(slice, chunks);
    check(&view, scorers)?;
    let ranked: Vec<_> = scorers.iter().map(|s| view.rank(s, options.seed)).collect();
    let mut cells = Vec::new();
    for head in 0..view.heads {
        for group in Group::EACH {
            cells.extend(view.cell(head, group, scorers, &ranked));
        }
    }
    let ones = vec![1; view.users];
    let values: Vec<Vec<Metrics<f64>>> =
        cells.iter().map(|c| c.scorers.iter().map(|p| p.weighted(&ones)).collect()).collect();
    let samples = bootstrap(&cells, view.users, options);
    let mut heads: Vec<HeadReport> = Vec::new();
    for (at, cell) in cells.iter().enumerate() {
        let name = &slice.dataset.schema.heads[cell.head].name;
        let of_cell: Vec<_> = samples.iter().map(|resample| &resample[at]).collect();
        let report = cell.report(scorers, &values[at], &of_cell);
        match heads.last_mut() {
            Some(last) if last.head == *name => last.groups.push(report),
            _ => heads.push(HeadReport { head: name.clone(), groups: vec![report] }),
        }
    }
    Ok(EvalReport {
        requests: slice.requests.len(),
        rows: view.rows,
        users: view.users,
        chunk_kind: chunks.kind,
        resamples: options.resamples,
        seed: options.seed,
        heads,
    })
}

pub(crate) fn check(view: &View<'_>, scorers: &[Scores]) -> Result<(), EvalError> {
    if view.rows == 0 {
        return Err(EvalError::Empty);
    }
    let want = view.rows * view.heads;
    for s in scorers {
        let whole = || [Some(&s.rows), s.in_user.as_ref()].into_iter().flatten();
        if let Some(column) = whole().chain(&s.in_chunk).find(|c| c.len() != want) {
            return Err(EvalError::Length { name: s.name.clone(), got: column.len(), want });
        }
        if whole().flatten().any(|x| !x.is_finite()) {
            return Err(EvalError::NotFinite(s.name.clone()));
        }
    }
    Ok(())
}

/// The slice, numbered for evaluation.
pub(crate) struct View<'a> {
    slice: &'a Slice<'a>,
    chunks: &'a Chunks,
    rows: usize,
    pub(crate) heads: usize,
    pub(crate) users: usize,
    /// For each request its first row and its user's number in the evaluation.
    requests: Vec<(usize, u32)>,
}

/// By chunk, then by head.
pub(crate) type Lists = Vec<Vec<Ranked>>;

impl<'a> View<'a> {
    pub(crate) fn new(slice: &'a Slice<'a>, chunks: &'a Chunks) -> Self {
        Self::numbered(slice, chunks, vec![u32::MAX; slice.dataset.users.len()], 0)
    }

    /// Numbers users as the dataset does: resample k then draws the same ones for every slice of it.
    pub(crate) fn joint(slice: &'a Slice<'a>, chunks: &'a Chunks) -> Self {
        let users = slice.dataset.users.len() as u32;
        Self::numbered(slice, chunks, (0..users).collect(), users)
    }

    fn numbered(slice: &'a Slice<'a>, chunks: &'a Chunks, mut numbers: Vec<u32>, mut users: u32) -> Self {
        let mut rows = 0;
        let mut requests = Vec::with_capacity(slice.requests.len());
        for request in slice.iter() {
            let number = &mut numbers[request.user as usize];
            if *number == u32::MAX {
                *number = users;
                users += 1;
            }
            requests.push((rows, *number));
            rows += request.candidates.len();
        }
        Self { slice, chunks, rows, heads: slice.dataset.heads(), users: users as usize, requests }
    }

    fn request(&self, at: u32) -> &Request {
        &self.slice.dataset.requests[self.slice.requests[at as usize] as usize]
    }

    /// The rows of a chunk: their number and the bits of what was observed.
    fn rows_of(&self, chunk: &Chunk) -> Vec<(usize, u64)> {
        let rows = chunk.requests.iter().flat_map(|at| {
            let observed = self.request(*at).candidates.iter().map(|c| c.observed);
            (self.requests[*at as usize].0..).zip(observed)
        });
        rows.collect()
    }

    pub(crate) fn rank(&self, scores: &Scores, seed: u64) -> Lists {
        let column = scores.in_chunk.as_ref().unwrap_or(&scores.rows);
        let bits = &self.slice.dataset.head_bits;
        let of_chunk = |(at, chunk): (usize, &Chunk)| {
            let mut rows = self.rows_of(chunk);
            Random::of(seed, &[0x6869_7473, at as u64]).shuffle(&mut rows); // the order among ties
            let user = self.requests[chunk.requests[0] as usize].1;
            let of_head = |head: usize| {
                let score = |row: usize| column[row * self.heads + head];
                let label = |observed: u64| observed & bits[head] != 0;
                rows.sort_by(|a, b| score(b.0).total_cmp(&score(a.0)));
                let hits = rows.iter().take(3).filter(|(_, observed)| label(*observed)).count() as u32;
                let ascending = rows.iter().rev().map(|(row, observed)| (score(*row), label(*observed)));
                Ranked { user, hits, auc: auc_sorted(ascending) }
            };
            (0..self.heads).map(of_head).collect()
        };
        self.chunks.list.iter().enumerate().map(of_chunk).collect()
    }

    /// One head within one group; `None` where the group has no rows.
    pub(crate) fn cell(
        &self,
        head: usize,
        group: Group,
        scorers: &[Scores],
        ranked: &[Lists],
    ) -> Option<Cell> {
        let mut rows = Vec::new();
        for (request, (first, user)) in self.slice.iter().zip(&self.requests) {
            if group.holds(request) {
                let bits = self.slice.dataset.head_bits[head];
                let labels = request.candidates.iter().map(|c| c.observed & bits != 0);
                rows.extend((*first..).zip(labels).map(|(row, label)| (row, *user, label)));
            }
        }
        if rows.is_empty() {
            return None;
        }
        let inside = |chunk: &Chunk| group.holds(self.request(chunk.requests[0]));
        let chunks: Vec<usize> =
            (0..self.chunks.list.len()).filter(|c| inside(&self.chunks.list[*c])).collect();
        let prepare = |(scores, lists): (&Scores, &Lists)| {
            let fixed = scores.in_user.as_ref().unwrap_or(&scores.rows);
            let row = |&(row, user, label): &(usize, u32, bool)| Row {
                user,
                score: scores.rows[row * self.heads + head],
                fixed: fixed[row * self.heads + head],
                label,
            };
            let lists: Vec<_> = chunks.iter().map(|c| lists[*c][head]).collect();
            Prepared::new(rows.iter().map(row).collect(), &lists, self.users, scores.logits)
        };
        Some(Cell {
            head,
            group,
            rows: rows.len(),
            positives: rows.iter().filter(|(_, _, label)| *label).count(),
            random_hit_at_3: self.random_hits(head, &chunks),
            chunks: chunks.len(),
            scorers: scorers.iter().zip(ranked).map(prepare).collect(),
        })
    }

    fn random_hits(&self, head: usize, chunks: &[usize]) -> Option<f64> {
        let bits = self.slice.dataset.head_bits[head];
        let expected = |c: &usize| {
            let rows = self.rows_of(&self.chunks.list[*c]);
            let positives = rows.iter().filter(|(_, observed)| observed & bits != 0).count();
            positives as f64 * (3.0 / rows.len() as f64).min(1.0)
        };
        (!chunks.is_empty()).then(|| chunks.iter().map(expected).sum::<f64>() / chunks.len() as f64)
    }
}

/// One head within one group of rows, ready for any weights of users.
pub(crate) struct Cell {
    pub(crate) head: usize,
    pub(crate) group: Group,
    pub(crate) rows: usize,
    pub(crate) positives: usize,
    pub(crate) chunks: usize,
    pub(crate) random_hit_at_3: Option<f64>,
    pub(crate) scorers: Vec<Prepared>,
}

impl Cell {
    /// `samples`: for each resample the metrics of each scorer.
    fn report(
        &self,
        scorers: &[Scores],
        values: &[Metrics<f64>],
        samples: &[&Vec<Metrics<f64>>],
    ) -> GroupReport {
        let estimate = |value: f64, drawn: &mut dyn Iterator<Item = f64>| interval(value, drawn);
        let scorer = |s: usize| {
            Metrics::build(|m| {
                estimate(*values[s].each()[m], &mut samples.iter().map(|sample| *sample[s].each()[m]))
            })
        };
        let difference = |s: usize| {
            let minus = |of: &[Metrics<f64>], m: usize| of[0].each()[m] - of[s].each()[m];
            Metrics::build(|m| estimate(minus(values, m), &mut samples.iter().map(|sample| minus(sample, m))))
        };
        let named = |s: usize| scorers[s].name.clone();
        GroupReport {
            group: self.group,
            rows: self.rows,
            positives: self.positives,
            chunks: self.chunks,
            random_hit_at_3: self.random_hit_at_3,
            scorers: (0..scorers.len())
                .map(|s| ScorerReport { name: named(s), metrics: scorer(s) })
                .collect(),
            differences: (1..scorers.len())
                .map(|s| Difference { against: named(s), metrics: difference(s) })
                .collect(),
        }
    }
}

/// Resamples x cells x scorers. Resample k draws the same users for any cells over one slice, so that what was drawn
/// in separate calls stays paired.
pub(crate) fn bootstrap(cells: &[Cell], users: usize, options: &EvalOptions) -> Vec<Vec<Vec<Metrics<f64>>>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut done, mut weights) = (Vec::new(), vec![0u32; users]);
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= options.resamples {
                return done;
            }
            let mut random = Random::of(options.seed, &[0x626f_6f74, at as u64]);
            weights.fill(0);
            (0..users).for_each(|_| weights[random.below(users)] += 1);
            let of_cell = |cell: &Cell| cell.scorers.iter().map(|p| p.weighted(&weights)).collect();
            done.push((at, cells.iter().map(of_cell).collect()));
        }
    };
    let mut all: Vec<(usize, Vec<Vec<Metrics<f64>>>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads.max(1)).map(|_| scope.spawn(work)).collect();
        let join = |w: std::thread::ScopedJoinHandle<'_, _>| {
            w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, sample)| sample).collect()
}

/// The value with percentiles of the defined samples; no interval where fewer than half of them are defined.
pub(crate) fn interval(value: f64, drawn: &mut dyn Iterator<Item = f64>) -> Estimate {
    let mut count = 0;
    let mut samples: Vec<f64> = drawn.inspect(|_| count += 1).filter(|x| x.is_finite()).collect();
    samples.sort_by(f64::total_cmp);
    let enough = !samples.is_empty() && 2 * samples.len() >= count;
    let at = |share: f64| {
        let place = share * (samples.len() - 1) as f64;
        let (low, high) = (samples[place.floor() as usize], samples[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    let defined = value.is_finite();
    Estimate {
        value: defined.then_some(value),
        low: (defined && enough).then(|| at(0.025)),
        high: (defined && enough).then(|| at(0.975)),
    }
}

#[cfg(test)]
#[path = "eval_tests.rs"]
mod tests;
