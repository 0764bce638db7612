//! Residual sum and layer normalisation (post-norm): `y = gamma * norm(x + branch) + beta`, eps 1e-5.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::simd::{sum, sum2, wide};

/// Added to the variance.
pub const EPSILON: f32 = 1e-5;

/// All of m rows x `width`: `x`, `branch`, `normed` (out, for the backward), `y`; `rstd`: m (out); gamma, beta: width.
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
    let (gamma, beta) = (&gamma[..width], &beta[..width]);
    let share = R::ONE / R::from_f64(width as f64);
    wide(
        #[inline(always)]
        || {
            let rows = x.chunks_exact(width).zip(branch.chunks_exact(width)).zip(rstd);
            let out = normed.chunks_exact_mut(width).zip(y.chunks_exact_mut(width));
            for (((x, b), rstd), (normed, y)) in rows.zip(out) {
                for i in 0..width {
                    normed[i] = x[i] + b[i];
                }
                let mean = sum(normed) * share;
                let variance = sum2(normed, normed, |a, _| (a - mean) * (a - mean)) * share;
                let r = R::ONE / (variance + R::from_f32(EPSILON)).sqrt();
                *rstd = r;
                for i in 0..width {
                    normed[i] = (normed[i] - mean) * r;
                    y[i] = normed[i] * gamma[i] + beta[i];
                }
            }
        },
    );
}

/// Gradients of [`forward`]: `dx` (m x width, overwritten) is that of `x` and of `branch` alike; `dgamma`, `dbeta` are
/// added to.
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
    let (gamma, dgamma, dbeta) = (&gamma[..width], &mut dgamma[..width], &mut dbeta[..width]);
    let share = R::ONE / R::from_f64(width as f64);
    wide(
        #[inline(always)]
        || {
            let rows = normed.chunks_exact(width).zip(rstd).zip(dy.chunks_exact(width));
            for (((n, rstd), dy), dx) in rows.zip(dx.chunks_exact_mut(width)) {
                for i in 0..width {
                    dgamma[i] += dy[i] * n[i];
                    dbeta[i] += dy[i];
                    dx[i] = dy[i] * gamma[i];
                }
                let mean = sum(dx) * share;
                let slope = sum2(dx, n, |a, b| a * b) * share;
                for i in 0..width {
                    dx[i] = (dx[i] - mean - n[i] * slope) * *rstd;
                }
            }
        },
    );
}
