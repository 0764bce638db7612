//! References in plain loops, sums in f64.

use super::{Shape, Start};
use crate::matrix::View;

/// `y = start + left right` over `depth`, both factors through `round` first; see [`super::Format::product`].
pub fn product(
    s: Shape,
    depth: usize,
    round: impl Fn(f32) -> f32,
    left: View<'_, f32>,
    right: &[f32],
    start: Start<'_>,
    y: &mut [f32],
) {
    for row in 0..s.rows {
        for lane in 0..s.lanes {
            let at = row * s.out + lane;
            let first = match start {
                Start::Zero => 0.0,
                Start::Bias(bias) => bias[row],
                Start::Residual(x, bias) => x[at] + bias[row],
                Start::Add => y[at],
            };
            let term = |k: usize| {
                let (a, b) = (left.data[row * left.row + k * left.column], right[k * s.stride + lane]);
                f64::from(round(a)) * f64::from(round(b))
            };
            y[at] = (f64::from(first) + (0..depth).map(term).sum::<f64>()) as f32;
        }
    }
}

/// See [`super::norm`].
pub fn norm(lanes: usize, stride: usize, gamma: &[f32], beta: &[f32], y: &mut [f32]) {
    let width = gamma.len() as f64;
    for lane in 0..lanes {
        let column: Vec<f64> = (0..gamma.len()).map(|f| f64::from(y[f * stride + lane])).collect();
        let mean = column.iter().sum::<f64>() / width;
        let variance = column.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / width;
        let rate = 1.0 / (variance + f64::from(crate::add_norm::EPSILON)).sqrt();
        for (f, x) in column.iter().enumerate() {
            y[f * stride + lane] = ((x - mean) * rate * f64::from(gamma[f]) + f64::from(beta[f])) as f32;
        }
    }
}

/// See [`super::softmax`].
pub fn softmax(keys: usize, lanes: usize, stride: usize, masked: &[bool], x: &mut [f32]) {
    let open = |key: usize| masked.is_empty() || !masked[key];
    for lane in 0..lanes {
        let logit = |key: usize| f64::from(x[key * stride + lane]);
        let largest = (0..keys).filter(|k| open(*k)).map(logit).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> =
            (0..keys).map(|k| if open(k) { (logit(k) - largest).exp() } else { 0.0 }).collect();
        let total: f64 = weights.iter().sum();
        for (key, weight) in weights.iter().enumerate() {
            x[key * stride + lane] = if total > 0.0 { (weight / total) as f32 } else { 0.0 };
        }
    }
}
