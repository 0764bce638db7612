//! The picture of training rows that goes with a model.

use std::collections::{BTreeMap, HashMap};

use lately_features::Schema;
use serde::{Deserialize, Serialize};

use super::columns::{self, Source, Value};
use super::psi::{psi, psi_noise, share_noise};
use super::{Bounds, Drift};
use crate::dataset::Slice;

/// Version of the form; another one is refused.
const VERSION: u32 = 1;
/// Bins of a number, each with as many rows where it is learned.
const BINS: usize = 10;
/// Buckets of a text that are told apart; the rest is one bin.
const TOP: usize = 16;
/// Columns at most: with some 350 bytes each a profile stays below 64 KB.
const MAX_COLUMNS: usize = 160;
/// Rows looked at, about, evenly over the slice: shares of 1 % are then known to 0.05 %.
const MAX_ROWS: usize = 200_000;
/// How the names of columns of labels begin.
const LABEL: &str = "label.";
/// A share is kept to 1 / this.
const DECIMALS: f64 = 1e5;

/// Coverage and distribution of what a model was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Of this form.
    pub version: u32,
    /// Requests of the slice.
    pub requests: u64,
    /// Its rows.
    pub rows: u64,
    /// Features, sequences, surfaces and labels.
    pub columns: Vec<Column>,
    /// Columns beyond what a profile holds.
    #[serde(default)]
    pub left_out: usize,
    /// Share of the rows whose label is 1, by head.
    pub rates: BTreeMap<String, f64>,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Such as `user.country`, `item.age_days`, `sequence.actions`, `label.actions`.
    pub name: String,
    /// Independent rows behind it: (sum of w)^2 / sum of w^2 over users, or items, with w rows each (Kish 1965).
    pub independent: f64,
    /// What is told apart.
    pub bins: Bins,
    /// Share of each bin and, last, of missing values.
    pub shares: Vec<f64>,
}

/// What a column tells apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bins {
    /// Lowest number of each bin but the first.
    Edges(Vec<f32>),
    /// Hash buckets, or positions in the schema plus 1, the most frequent first; all others are one more bin.
    Buckets(Vec<u32>),
}

/// Why a stored profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Of another version.
    #[error(
        "the model's profile has version {0}, this program knows {VERSION}: train a model with this program"
    )]
    Version(u64),
    /// Not the expected form.
    #[error("the model's profile cannot be read: {0}; train a model again")]
    Form(#[from] serde_json::Error),
}

impl Profile {
    /// Learns the bins from a slice and counts it.
    pub fn of(slice: &Slice<'_>) -> Self {
        let schema = &slice.dataset.schema;
        let step = step(slice);
        let column = |(name, source): (String, Source)| {
            Column::count(name, &source, Bins::learn(&source, schema, slice, step), slice, step)
        };
        let columns = columns::all(schema);
        let left_out = columns.len().saturating_sub(MAX_COLUMNS);
        let columns = columns.into_iter().take(MAX_COLUMNS).map(column).collect();
        Self { columns, left_out, ..Self::without_columns(slice) }
    }

    /// Counts another slice into the same bins; columns that its schema does not have are left out.
    pub fn again(&self, slice: &Slice<'_>) -> Self {
        let known: HashMap<String, Source> = columns::all(&slice.dataset.schema).into_iter().collect();
        let step = step(slice);
        let same = |c: &Column| {
            let source = known.get(&c.name)?;
            let fits = source.is_number() == matches!(c.bins, Bins::Edges(_));
            fits.then(|| Column::count(c.name.clone(), source, c.bins.clone(), slice, step))
        };
        Self { columns: self.columns.iter().filter_map(same).collect(), ..Self::without_columns(slice) }
    }

    /// The same with labels and rates of another count: newest rows have none yet.
    #[must_use]
    pub fn with_labels_of(mut self, other: Self) -> Self {
        let is_label = |c: &Column| c.name.starts_with(LABEL);
        self.columns.retain(|c| !is_label(c));
        self.columns.extend(other.columns.into_iter().filter(is_label));
        self.rates = other.rates;
        self
    }

    fn without_columns(slice: &Slice<'_>) -> Self {
        let rows = slice.rows();
        let names = slice.dataset.schema.heads.iter().map(|h| h.name.clone());
        let rates = slice.positives().into_iter().map(|n| round(n as f64 / rows.max(1) as f64));
        Self {
            version: VERSION,
            requests: slice.requests.len() as u64,
            rows: rows as u64,
            columns: Vec::new(),
            left_out: 0,
            rates: names.zip(rates).collect(),
        }
    }

    /// How `now`, counted by [`Profile::again`], differs, the worst first. What it has no row of is left out.
    pub fn drift(&self, now: &Self, bounds: &Bounds) -> Vec<Drift> {
        let of = |before: &Column| {
            let same = |c: &&Column| c.name == before.name && c.bins == before.bins && c.independent > 0.0;
            Some(before.drift(now.columns.iter().find(same)?))
        };
        let mut drift: Vec<Drift> = self.columns.iter().filter_map(of).collect();
        drift.sort_by(|a, b| b.badness(bounds).total_cmp(&a.badness(bounds)));
        drift
    }

    /// For a manifest.
    ///
    /// # Errors
    /// Where a number is not finite.
    pub fn to_json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self)
    }

    /// Of a manifest.
    ///
    /// # Errors
    /// [`ProfileError`] where it is of another version or damaged.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, ProfileError> {
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version != u64::from(VERSION) => Err(ProfileError::Version(version)),
            _ => Ok(Self::deserialize(value)?),
        }
    }
}

fn step(slice: &Slice<'_>) -> usize {
    slice.rows().div_ceil(MAX_ROWS).max(1)
}

fn round(share: f64) -> f64 {
    (share * DECIMALS).round() / DECIMALS
}

impl Column {
    /// Share of the rows that have a value.
    pub fn coverage(&self) -> f64 {
        1.0 - self.shares.last().copied().unwrap_or(1.0)
    }

    fn count(name: String, source: &Source, bins: Bins, slice: &Slice<'_>, step: usize) -> Self {
        let mut counts = vec![0.0; bins.len() + 1];
        let mut of = HashMap::<u32, f64>::new();
        source.each(slice, step, &mut |whose, value| {
            *of.entry(whose).or_default() += 1.0;
            bins.put(value, &mut counts);
        });
        let all: f64 = of.values().sum();
        let squares: f64 = of.values().map(|w| w * w).sum();
        let independent = if squares > 0.0 { (10.0 * all * all / squares).round() / 10.0 } else { 0.0 };
        let shares = counts.into_iter().map(|n| round(n / all.max(1.0))).collect();
        Self { name, independent, bins, shares }
    }

    fn drift(&self, now: &Self) -> Drift {
        let (n, m) = (self.independent, now.independent);
        Drift {
            name: self.name.clone(),
            psi: psi(&self.shares, &now.shares, n, m),
            psi_noise: psi_noise(&self.shares, &now.shares, n, m),
            coverage_before: self.coverage(),
            coverage: now.coverage(),
            coverage_noise: share_noise(self.coverage(), now.coverage(), n, m),
        }
    }
}

impl Bins {
    fn learn(source: &Source, schema: &Schema, slice: &Slice<'_>, step: usize) -> Self {
        if let Some(names) = source.names(schema) {
            return Self::Buckets((1..=names).collect());
        }
        let (mut numbers, mut buckets) = (Vec::new(), HashMap::<u32, u64>::new());
        source.each(slice, step, &mut |_, value| match value {
            Value::Number(x) => numbers.extend(Some(x).filter(|x| x.is_finite())),
            Value::Set(set) => {
                set.iter().filter(|b| **b != 0).for_each(|b| *buckets.entry(*b).or_default() += 1)
            }
        });
        if source.is_number() {
            return Self::Edges(edges(numbers));
        }
        let mut top: Vec<(u32, u64)> = buckets.into_iter().collect();
        top.sort_by_key(|(bucket, count)| (std::cmp::Reverse(*count), *bucket));
        Self::Buckets(top.into_iter().take(TOP).map(|(bucket, _)| bucket).collect())
    }

    /// Bins, without that of missing values.
    fn len(&self) -> usize {
        match self {
            Self::Edges(edges) => edges.len() + 1,
            Self::Buckets(buckets) => buckets.len() + 1,
        }
    }

    /// Adds one row; several values of one share it.
    fn put(&self, value: Value<'_>, counts: &mut [f64]) {
        let missing = self.len();
        match (self, value) {
            (Self::Edges(edges), Value::Number(x)) if x.is_finite() => {
                counts[edges.partition_point(|edge| *edge <= x)] += 1.0;
            }
            (Self::Buckets(buckets), Value::Set(set)) if set.iter().any(|b| *b != 0) => {
                let share = 1.0 / set.iter().filter(|b| **b != 0).count() as f64;
                for bucket in set.iter().filter(|b| **b != 0) {
                    let at = buckets.iter().position(|b| b == bucket).unwrap_or(buckets.len());
                    counts[at] += share;
                }
            }
            _ => counts[missing] += 1.0,
        }
    }
}

/// Quantiles. A number that spans several has a bin of its own, so that a move away from it to either side is seen.
fn edges(mut numbers: Vec<f32>) -> Vec<f32> {
    numbers.sort_by(f32::total_cmp);
    let mut edges: Vec<f32> = Vec::new();
    for i in 1..BINS {
        let Some(edge) = numbers.get(numbers.len() * i / BINS) else { break };
        let edge = if edges.last().is_some_and(|last| last == edge) { edge.next_up() } else { *edge };
        if edges.last().is_none_or(|last| *last < edge) {
            edges.push(edge);
        }
    }
    edges
}
