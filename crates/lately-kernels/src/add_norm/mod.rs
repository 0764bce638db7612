//! Residual sum and layer normalisation (post-norm): `y = gamma * norm(x + dropout(branch + bias)) + beta`, eps 1e-5.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::dropout::Dropout;
use crate::simd::{LANES, load, store, sum2, total, wide};

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
            for (row, (((x, branch), rstd), (normed, y))) in rows.zip(out).enumerate() {
                let mut sums = [R::ZERO; LANES];
                for at in (0..width).step_by(LANES) {
                    let (mut x, b, more) = (load(x, at), load(branch, at), load(bias, at));
                    let factors = factors(s.dropout, row * width + at);
                    for i in 0..LANES {
                        x[i] += (b[i] + more[i]) * factors[i];
                        sums[i] += x[i];
                    }
                    store(x, normed, at);
                }
                let mean = total(sums) * share;
                let variance = sum2(normed, normed, |a, _| (a - mean) * (a - mean)) * share;
                let r = R::ONE / (variance + R::from_f32(EPSILON)).sqrt();
                *rstd = r;
                for at in (0..width).step_by(LANES) {
                    let (mut n, g, b) = (load(normed, at), load(gamma, at), load(beta, at));
                    let mut out = [R::ZERO; LANES];
                    for i in 0..LANES {
                        n[i] = (n[i] - mean) * r;
                        out[i] = n[i] * g[i] + b[i];
                    }
                    store(n, normed, at);
                    store(out, y, at);
                }
            }
        },
    );
}

/// Dropout's factors of a block.
#[inline(always)]
fn factors<R: Real>(dropout: Dropout, at: usize) -> [R; LANES] {
    let mut factors = [R::ONE; LANES];
    if !dropout.is_off() {
        for (i, f) in factors.iter_mut().enumerate() {
            *f = dropout.factor((at as u32).wrapping_add(i as u32));
        }
    }
    factors
}

/// `y` of [`forward`] again, from its `normed`: cheaper to compute than to keep until the backward pass.
pub fn output<R: Real>(width: usize, normed: &[R], gamma: &[R], beta: &[R], y: &mut [R]) {
    let (gamma, beta) = (&gamma[..width], &beta[..width]);
    wide(
        #[inline(always)]
        || {
            for (n, y) in normed.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                for at in (0..width).step_by(LANES) {
                    let (mut n, g, b) = (load(n, at), load(gamma, at), load(beta, at));
                    for i in 0..LANES {
                        n[i] = n[i] * g[i] + b[i];
                    }
                    store(n, y, at);
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
            for (row, (((n, rstd), dy), (dx, d_branch))) in rows.zip(out).enumerate() {
                let (mut sums, mut slopes) = ([R::ZERO; LANES], [R::ZERO; LANES]);
                for at in (0..width).step_by(LANES) {
                    let (n, dy, g) = (load(n, at), load(dy, at), load(gamma, at));
                    let (mut dg, mut db) = (load(d_gamma, at), load(d_beta, at));
                    for i in 0..LANES {
                        dg[i] += dy[i] * n[i];
                        db[i] += dy[i];
                        sums[i] += dy[i] * g[i];
                        slopes[i] += dy[i] * g[i] * n[i];
                    }
                    store(dg, d_gamma, at);
                    store(db, d_beta, at);
                }
                let (mean, slope) = (total(sums) * share, total(slopes) * share);
                for at in (0..width).step_by(LANES) {
                    let (n, mut dy, g) = (load(n, at), load(dy, at), load(gamma, at));
                    let (mut branch, mut bias) = (factors(s.dropout, row * width + at), load(d_bias, at));
                    for i in 0..LANES {
                        dy[i] = (dy[i] * g[i] - mean - n[i] * slope) * *rstd;
                        branch[i] *= dy[i];
                        bias[i] += branch[i];
                    }
                    store(dy, dx, at);
                    store(branch, d_branch, at);
                    store(bias, d_bias, at);
                }
            }
        },
    );
}
