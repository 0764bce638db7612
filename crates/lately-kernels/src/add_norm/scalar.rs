//! Reference of [`super::forward`] and [`super::backward`].

use super::{EPSILON, Shape};
use crate::Real;

/// See [`super::forward`].
pub fn forward<R: Real>(
    s: Shape,
    x: &[R],
    branch: &[R],
    bias: &[R],
    gamma: &[R],
    beta: &[R],
    normed: &mut [R],
    rstd: &mut [R],
    y: &mut [R],
) {
    let (width, n) = (s.width, R::from_f64(s.width as f64));
    for (row, rstd) in rstd.iter_mut().enumerate().take(x.len() / width) {
        let at = row * width;
        let branch = |i: usize| (branch[at + i] + bias[i]) * s.dropout.factor((at + i) as u32);
        let sums: Vec<R> = (0..width).map(|i| x[at + i] + branch(i)).collect();
        let mean = sums.iter().copied().sum::<R>() / n;
        let variance = sums.iter().map(|s| (*s - mean) * (*s - mean)).sum::<R>() / n;
        *rstd = R::ONE / (variance + R::from_f32(EPSILON)).sqrt();
        for i in 0..width {
            normed[at + i] = (sums[i] - mean) * *rstd;
            y[at + i] = normed[at + i] * gamma[i] + beta[i];
        }
    }
}

/// See [`super::output`].
pub fn output<R: Real>(width: usize, normed: &[R], gamma: &[R], beta: &[R], y: &mut [R]) {
    for (i, n) in normed.iter().enumerate() {
        y[i] = *n * gamma[i % width] + beta[i % width];
    }
}

/// See [`super::backward`].
pub fn backward<R: Real>(
    s: Shape,
    normed: &[R],
    rstd: &[R],
    gamma: &[R],
    dy: &[R],
    dx: &mut [R],
    d_branch: &mut [R],
    d_bias: &mut [R],
    d_gamma: &mut [R],
    d_beta: &mut [R],
) {
    let (width, n) = (s.width, R::from_f64(s.width as f64));
    for (row, rstd) in rstd.iter().enumerate().take(dx.len() / width) {
        let at = row * width;
        let scaled: Vec<R> = (0..width).map(|i| dy[at + i] * gamma[i]).collect();
        let mean = scaled.iter().copied().sum::<R>() / n;
        let slope = (0..width).map(|i| scaled[i] * normed[at + i]).sum::<R>() / n;
        for i in 0..width {
            d_gamma[i] += dy[at + i] * normed[at + i];
            d_beta[i] += dy[at + i];
            dx[at + i] = (scaled[i] - mean - normed[at + i] * slope) * *rstd;
            d_branch[at + i] = dx[at + i] * s.dropout.factor((at + i) as u32);
            d_bias[i] += d_branch[at + i];
        }
    }
}
