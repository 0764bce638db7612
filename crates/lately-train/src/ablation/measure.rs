//! What one trained model gives: its metrics on the rows and on every resample of users.

use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;
use crate::dataset::Slice;
use crate::eval::{Cell, EvalError, EvalOptions, Group, View, bootstrap, check};
use crate::metrics::Metrics;
use crate::scores::Scores;

/// The groups that are compared: the paper reports all users and non-core ones.
pub const GROUPS: [Group; 2] = [Group::All, Group::NonCore];

/// One head within one group of rows, for one trained model. `None` where a metric is not defined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Head.
    pub head: String,
    /// Group of rows.
    pub group: Group,
    /// Rows of the group.
    pub rows: usize,
    /// Those whose label is 1.
    pub positives: usize,
    /// Chunks of HIT@3.
    pub chunks: usize,
    /// HIT@3 that a random order has on average.
    pub random_hit_at_3: Option<f64>,
    /// On the rows as they are.
    pub value: Metrics<Option<f64>>,
    /// On each resample of users.
    pub samples: Vec<Metrics<Option<f64>>>,
}

/// Measures a model's scores of a slice, head by head in [`GROUPS`]; groups without rows are left out.
pub fn measure(
    slice: &Slice<'_>,
    chunks: &Chunks,
    scores: &Scores,
    options: &EvalOptions,
) -> Result<Vec<Measured>, EvalError> {
    measure_in(&View::new(slice, chunks), slice, scores, options)
}

/// [`measure`] with the users numbered by the caller's view of the slice.
pub(crate) fn measure_in(
    view: &View<'_>,
    slice: &Slice<'_>,
    scores: &Scores,
    options: &EvalOptions,
) -> Result<Vec<Measured>, EvalError> {
    let scorers = std::slice::from_ref(scores);
    check(view, scorers)?;
    let ranked = [view.rank(scores, options.seed)];
    let places = (0..view.heads).flat_map(|head| GROUPS.map(|group| (head, group)));
    let cells: Vec<Cell> =
        places.filter_map(|(head, group)| view.cell(head, group, scorers, &ranked)).collect();
    let samples = bootstrap(&cells, view.users, options);
    let ones = vec![1; view.users];
    let measured = |(at, cell): (usize, &Cell)| Measured {
        head: slice.dataset.schema.heads[cell.head].name.clone(),
        group: cell.group,
        rows: cell.rows,
        positives: cell.positives,
        chunks: cell.chunks,
        random_hit_at_3: cell.random_hit_at_3,
        value: defined(&cell.scorers[0].weighted(&ones)),
        samples: samples.iter().map(|resample| defined(&resample[at][0])).collect(),
    };
    Ok(cells.iter().enumerate().map(measured).collect())
}

fn defined(metrics: &Metrics<f64>) -> Metrics<Option<f64>> {
    Metrics::build(|m| Some(*metrics.each()[m]).filter(|x| x.is_finite()))
}
