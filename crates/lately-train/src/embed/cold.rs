//! Vectors of items without history, predicted from their features: ridge regression, solved by conjugate gradients.
//!
//! Hestenes and Stiefel (1952); all dimensions of the vectors at once, each with its own step.

use std::collections::BTreeMap;

use lately_features::Features;
use lately_features::batch::Layout;
use lately_features::vectors::ColdItems;

use super::sparse::Sparse;

/// Weight of the penalty, in items: a value that fewer items have is drawn to zero.
const RIDGE: f64 = 10.0;
/// Steps of conjugate gradients at most.
const STEPS: usize = 100;
/// The residual at which they end, as a share of the first.
const TOLERANCE: f64 = 1e-6;

/// Fits the features of items to their vectors, `items` x `dim`. An intercept takes the mean.
pub(super) fn fit(layout: &Layout, items: &[&Features], vectors: &[f32], dim: usize) -> ColdItems {
    let count = items.len().max(1) as f64;
    let mut bias = vec![0.0; dim];
    for row in vectors.chunks_exact(dim) {
        bias.iter_mut().zip(row).for_each(|(b, x)| *b += f64::from(*x) / count);
    }
    let places = places(layout, items);
    let scale: Vec<(f32, f32)> = (0..layout.numeric_width).map(|n| scale(items, n)).collect();
    let inputs = inputs(layout, items, &places, &scale);
    let offset = bias.iter().cycle();
    let wanted: Vec<f64> = vectors.iter().zip(offset).map(|(x, b)| f64::from(*x) - b).collect();
    let weights = ridge(&inputs, &wanted, dim);
    let (categorical, numeric) = weights.split_at(places.len() * dim);
    let single = |list: &[f64]| list.iter().map(|x| *x as f32).collect();
    ColdItems {
        bias: single(&bias),
        values: places.into_keys().collect(),
        categorical: single(categorical),
        scale,
        numeric: single(numeric),
    }
}

/// The columns of the (categorical feature, bucket) that occur.
fn places(layout: &Layout, items: &[&Features]) -> BTreeMap<(u32, u32), u32> {
    let mut places = BTreeMap::new();
    for features in items {
        for (feature, buckets, _) in values(layout, features) {
            buckets.for_each(|bucket| {
                places.insert((feature, bucket), 0);
            });
        }
    }
    places.values_mut().zip(0..).for_each(|(place, column)| *place = column);
    places
}

/// Each categorical feature with its known buckets and the share of one of them.
fn values<'a>(
    layout: &'a Layout,
    features: &'a Features,
) -> impl Iterator<Item = (u32, impl Iterator<Item = u32> + 'a, f64)> + 'a {
    (0..).zip(&layout.categorical).map(|(feature, slots)| {
        let buckets = &features.categorical[slots.start..slots.start + slots.slots];
        let known = buckets.iter().copied().filter(|b| *b != 0);
        (feature, known.clone(), 1.0 / known.count().max(1) as f64)
    })
}

/// Mean and standard deviation of a numeric feature where it is known.
fn scale(items: &[&Features], numeric: usize) -> (f32, f32) {
    let known = items.iter().map(|f| f64::from(f.numeric[numeric])).filter(|x| x.is_finite());
    let count = known.clone().count().max(1) as f64;
    let mean = known.clone().sum::<f64>() / count;
    let variance = known.map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    (mean as f32, if variance > 1e-12 { variance.sqrt() as f32 } else { 1.0 })
}

fn inputs(
    layout: &Layout,
    items: &[&Features],
    places: &BTreeMap<(u32, u32), u32>,
    scale: &[(f32, f32)],
) -> Sparse {
    let mut row = BTreeMap::new();
    let mut entries = Vec::new();
    for (item, features) in (0..).zip(items) {
        row.clear();
        for (feature, buckets, share) in values(layout, features) {
            // Two values of one item may share a bucket.
            buckets.for_each(|b| *row.entry(places[&(feature, b)]).or_insert(0.0) += share);
        }
        for (column, (x, (mean, std))) in (places.len() as u32..).zip(features.numeric.iter().zip(scale)) {
            if x.is_finite() {
                row.insert(column, f64::from((x - mean) / std));
            }
        }
        entries.extend(row.iter().map(|(column, value)| (item, *column, *value)));
    }
    Sparse::build(entries, items.len(), places.len() + scale.len())
}

/// W of (X^T X + ridge) W = X^T Y, columns x dim.
fn ridge(x: &Sparse, y: &[f64], dim: usize) -> Vec<f64> {
    let transposed = x.transposed();
    let mut rest = transposed.times(y, dim);
    let mut weights = vec![0.0; rest.len()];
    let mut direction = rest.clone();
    let mut squares = dots(&rest, &rest, dim);
    let enough: Vec<f64> = squares.iter().map(|s| s * TOLERANCE * TOLERANCE).collect();
    for _ in 0..STEPS {
        if squares.iter().zip(&enough).all(|(s, e)| s <= e) {
            break;
        }
        let mut image = transposed.times(&x.times(&direction, dim), dim);
        image.iter_mut().zip(&direction).for_each(|(i, d)| *i += RIDGE * d);
        let step = quotients(&squares, &dots(&direction, &image, dim));
        add(&mut weights, &step, &direction, 1.0);
        add(&mut rest, &step, &image, -1.0);
        let next = dots(&rest, &rest, dim);
        let turn = quotients(&next, &squares);
        let places = direction.iter_mut().zip(&rest).zip(turn.iter().cycle());
        places.for_each(|((d, r), t)| *d = r + t * *d);
        squares = next;
    }
    weights
}

/// For each column of the row-major blocks their product.
fn dots(a: &[f64], b: &[f64], dim: usize) -> Vec<f64> {
    let mut out = vec![0.0; dim];
    for (a, b) in a.chunks_exact(dim).zip(b.chunks_exact(dim)) {
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (a, b))| *o += a * b);
    }
    out
}

fn quotients(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| if *b > 0.0 { a / b } else { 0.0 }).collect()
}

/// `to` += sign x step x `from`, the step by column.
fn add(to: &mut [f64], step: &[f64], from: &[f64], sign: f64) {
    to.iter_mut().zip(from).zip(step.iter().cycle()).for_each(|((t, f), s)| *t += sign * s * f);
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;

    use super::*;
    use crate::random::Random;

    #[test]
    fn it_solves_the_normal_equations() {
        let (rows, columns, dim) = (60, 9, 2);
        let mut random = Random::of(4, &[]);
        let all = (0..rows as u32).flat_map(|r| (0..columns as u32).map(move |c| (r, c)));
        let entries: Vec<_> = all.map(|(r, c)| (r, c, random.normal())).collect();
        let y: Vec<f64> = (0..rows * dim).map(|_| random.normal()).collect();
        let got = ridge(&Sparse::build(entries.clone(), rows, columns), &y, dim);
        let x = DMatrix::from_row_iterator(rows, columns, entries.iter().map(|e| e.2));
        let left = x.transpose() * &x + DMatrix::identity(columns, columns) * RIDGE;
        let want = left.lu().solve(&(x.transpose() * DMatrix::from_row_slice(rows, dim, &y))).unwrap();
        for (i, w) in got.iter().enumerate() {
            assert!((w - want[(i / dim, i % dim)]).abs() < 1e-6, "{i}: {w} {}", want[(i / dim, i % dim)]);
        }
    }
}
