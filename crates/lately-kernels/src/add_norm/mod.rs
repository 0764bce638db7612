//! Residual sum and layer normalisation (post-norm): `y = gamma * norm(x + dropout(branch + bias)) + beta`, eps 1e-5.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::dropout::Dropout;
use crate::simd::{sum, sum2, wide};

/// Added to the variance.
pub const EPSILON: f32 = 1e-5;

/// Sizes and mask.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Of a row.
    pub width: usize,
    /// Of the branch; element i of all rows has index i.
    pub dropout: Dropout,
}

/// All of m rows x width: `x`, `branch`, `normed` (out, for the backward), `y`; `rstd`: m (out); bias, gamma, beta: width.
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
    let width = s.width;
    let (bias, gamma, beta) = (&bias[..width], &gamma[..width], &beta[..width]);
    let share = R::ONE / R::from_f64(width as f64);
    wide(
        #[inline(always)]
        || {
            let rows = x.chunks_exact(width).zip(branch.chunks_exact(width)).zip(rstd);
            let out = normed.chunks_exact_mut(width).zip(y.chunks_exact_mut(width));
            for (at, (((x, b), rstd), (normed, y))) in rows.zip(out).enumerate() {
                if s.dropout.is_off() {
                    for i in 0..width {
                        normed[i] = x[i] + (b[i] + bias[i]);
                    }
                } else {
                    let at = (at * width) as u32;
                    for i in 0..width {
                        normed[i] = x[i] + (b[i] + bias[i]) * s.dropout.factor(at.wrapping_add(i as u32));
                    }
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

/// Gradients of [`forward`]: `dx` and `d_branch` (m x width) are overwritten; `d_bias`, `d_gamma`, `d_beta` are added to.
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
    let width = s.width;
    let (gamma, d_gamma, d_beta) = (&gamma[..width], &mut d_gamma[..width], &mut d_beta[..width]);
    let d_bias = &mut d_bias[..width];
    let share = R::ONE / R::from_f64(width as f64);
    wide(
        #[inline(always)]
        || {
            let rows = normed.chunks_exact(width).zip(rstd).zip(dy.chunks_exact(width));
            let out = dx.chunks_exact_mut(width).zip(d_branch.chunks_exact_mut(width));
            for (at, (((n, rstd), dy), (dx, d_branch))) in rows.zip(out).enumerate() {
                for i in 0..width {
                    d_gamma[i] += dy[i] * n[i];
                    d_beta[i] += dy[i];
                    dx[i] = dy[i] * gamma[i];
                }
                let mean = sum(dx) * share;
                let slope = sum2(dx, n, |a, b| a * b) * share;
                if s.dropout.is_off() {
                    for i in 0..width {
                        dx[i] = (dx[i] - mean - n[i] * slope) * *rstd;
                        d_branch[i] = dx[i];
                        d_bias[i] += dx[i];
                    }
                    continue;
                }
                let at = (at * width) as u32;
                for i in 0..width {
                    dx[i] = (dx[i] - mean - n[i] * slope) * *rstd;
                    d_branch[i] = dx[i] * s.dropout.factor(at.wrapping_add(i as u32));
                    d_bias[i] += d_branch[i];
                }
            }
        },
    );
}
