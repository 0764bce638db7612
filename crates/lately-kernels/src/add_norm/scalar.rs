//! Reference of [`super::forward`] and [`super::backward`].

use super::EPSILON;
use crate::Real;

/// See [`super::forward`].
pub fn forward<R: Real>(
    width: usize,
    x: &[R],
    branch: &[R],
    gamma: &[R],
    beta: &[R],
    normed: &mut [R],
    rstd: &mut [R],
    y: &mut [R],
) {
    let n = R::from_f64(width as f64);
    for (row, rstd) in rstd.iter_mut().enumerate().take(x.len() / width) {
        let at = row * width;
        let sums: Vec<R> = (0..width).map(|i| x[at + i] + branch[at + i]).collect();
        let mean = sums.iter().copied().sum::<R>() / n;
        let variance = sums.iter().map(|s| (*s - mean) * (*s - mean)).sum::<R>() / n;
        *rstd = R::ONE / (variance + R::from_f32(EPSILON)).sqrt();
        for i in 0..width {
            normed[at + i] = (sums[i] - mean) * *rstd;
            y[at + i] = normed[at + i] * gamma[i] + beta[i];
        }
    }
}

/// See [`super::backward`].
pub fn backward<R: Real>(
    width: usize,
    normed: &[R],
    rstd: &[R],
    gamma: &[R],
    dy: &[R],
    dx: &mut [R],
    dgamma: &mut [R],
    dbeta: &mut [R],
) {
    let n = R::from_f64(width as f64);
    for (row, rstd) in rstd.iter().enumerate().take(dx.len() / width) {
        let at = row * width;
        let scaled: Vec<R> = (0..width).map(|i| dy[at + i] * gamma[i]).collect();
        let mean = scaled.iter().copied().sum::<R>() / n;
        let slope = (0..width).map(|i| scaled[i] * normed[at + i]).sum::<R>() / n;
        for i in 0..width {
            dgamma[i] += dy[at + i] * normed[at + i];
            dbeta[i] += dy[at + i];
            dx[at + i] = (scaled[i] - mean - normed[at + i] * slope) * *rstd;
        }
    }
}
