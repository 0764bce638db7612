//! Layer normalisation down the features of each lane, and ReLU.

use super::LANES;
use crate::add_norm::EPSILON;
use crate::simd::wide;

/// Vectors of lanes that are normalised side by side: a sum down the features waits four cycles for itself.
const SIDE_BY_SIDE: usize = 4;

/// `y = gamma * norm(y) + beta` of each of `lanes` lanes; gamma and beta: one number a feature.
pub fn norm(lanes: usize, stride: usize, gamma: &[f32], beta: &[f32], y: &mut [f32]) {
    assert!(lanes.is_multiple_of(LANES) && stride >= lanes && gamma.len() == beta.len());
    assert!(gamma.is_empty() || y.len() >= (gamma.len() - 1) * stride + lanes, "y is shorter than its shape");
    wide(
        #[inline(always)]
        || {
            let mut at = 0;
            while at < lanes {
                let left = (lanes - at) / LANES;
                match left {
                    1 => columns::<1>(at, stride, gamma, beta, y),
                    2 => columns::<2>(at, stride, gamma, beta, y),
                    3 => columns::<3>(at, stride, gamma, beta, y),
                    _ => columns::<SIDE_BY_SIDE>(at, stride, gamma, beta, y),
                }
                at += left.min(SIDE_BY_SIDE) * LANES;
            }
        },
    );
}

/// N vectors of lanes from `at` on.
#[inline(always)]
fn columns<const N: usize>(at: usize, stride: usize, gamma: &[f32], beta: &[f32], y: &mut [f32]) {
    let share = 1.0 / gamma.len() as f32;
    let mut mean = [[0.0f32; LANES]; N];
    for f in 0..gamma.len() {
        for (n, mean) in mean.iter_mut().enumerate() {
            let x = vector(y, f * stride + at + n * LANES);
            for i in 0..LANES {
                mean[i] += x[i];
            }
        }
    }
    for m in mean.iter_mut().flatten() {
        *m *= share;
    }
    let mut rate = [[0.0f32; LANES]; N];
    for f in 0..gamma.len() {
        for (n, rate) in rate.iter_mut().enumerate() {
            let x = vector(y, f * stride + at + n * LANES);
            for i in 0..LANES {
                rate[i] += (x[i] - mean[n][i]) * (x[i] - mean[n][i]);
            }
        }
    }
    for r in rate.iter_mut().flatten() {
        *r = 1.0 / (*r * share + EPSILON).sqrt();
    }
    for (f, (g, b)) in gamma.iter().zip(beta).enumerate() {
        for n in 0..N {
            let x = vector_mut(y, f * stride + at + n * LANES);
            for i in 0..LANES {
                x[i] = (x[i] - mean[n][i]) * rate[n][i] * *g + *b;
            }
        }
    }
}

/// Negative numbers become 0.
pub fn relu(y: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for y in y.iter_mut() {
                *y = if *y > 0.0 { *y } else { 0.0 };
            }
        },
    );
}

/// A vector of lanes.
#[inline(always)]
pub(super) fn vector(x: &[f32], at: usize) -> &[f32; LANES] {
    x[at..at + LANES].first_chunk().expect("as long")
}

/// The same, to write.
#[inline(always)]
pub(super) fn vector_mut(x: &mut [f32], at: usize) -> &mut [f32; LANES] {
    x[at..at + LANES].first_chunk_mut().expect("as long")
}
