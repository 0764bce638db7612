//! From the tokens of a segment to one row: maximum, mean, and the first K as they are.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::simd::wide;

/// Marks a column without any token in the argmax.
pub const NOTHING: u32 = u32::MAX;

fn segments(offsets: &[u32]) -> impl Iterator<Item = (usize, usize)> {
    offsets.windows(2).map(|w| (w[0] as usize, w[1] as usize))
}

/// `out` (S x width): the largest over each segment's tokens, 0 of nothing; `argmax` (S x width): the first token that
/// has it, or [`NOTHING`].
pub fn max<R: Real>(offsets: &[u32], width: usize, x: &[R], out: &mut [R], argmax: &mut [u32]) {
    wide(
        #[inline(always)]
        || {
            let rows = out.chunks_exact_mut(width).zip(argmax.chunks_exact_mut(width));
            for ((start, end), (out, argmax)) in segments(offsets).zip(rows) {
                if start == end {
                    out.fill(R::ZERO);
                    argmax.fill(NOTHING);
                    continue;
                }
                out.copy_from_slice(&x[start * width..][..width]);
                argmax.fill(start as u32);
                for t in start + 1..end {
                    let row = &x[t * width..][..width];
                    for i in 0..width {
                        let more = row[i] > out[i];
                        argmax[i] = if more { t as u32 } else { argmax[i] };
                        out[i] = if more { row[i] } else { out[i] };
                    }
                }
            }
        },
    );
}

/// Gradient of [`max`], added to `dx` (T x width).
pub fn max_backward<R: Real>(width: usize, argmax: &[u32], dy: &[R], dx: &mut [R]) {
    for (i, (t, dy)) in argmax.iter().zip(dy).enumerate() {
        if *t != NOTHING {
            dx[*t as usize * width + i % width] += *dy;
        }
    }
}

/// `out` (S rows at `stride`, from column `offset`): the first `k` tokens, k x width, zeros beyond the segment.
pub fn first<R: Real>(
    offsets: &[u32],
    width: usize,
    k: usize,
    x: &[R],
    out: &mut [R],
    stride: usize,
    offset: usize,
) {
    for ((start, end), row) in segments(offsets).zip(out.chunks_exact_mut(stride)) {
        let n = (end - start).min(k) * width;
        let out = &mut row[offset..offset + k * width];
        out[..n].copy_from_slice(&x[start * width..][..n]);
        out[n..].fill(R::ZERO);
    }
}

/// Gradient of [`first`], added to `dx` (T x width).
pub fn first_backward<R: Real>(
    offsets: &[u32],
    width: usize,
    k: usize,
    dy: &[R],
    stride: usize,
    offset: usize,
    dx: &mut [R],
) {
    for ((start, end), row) in segments(offsets).zip(dy.chunks_exact(stride)) {
        let n = (end - start).min(k) * width;
        let dx = &mut dx[start * width..][..n];
        dx.iter_mut().zip(&row[offset..]).for_each(|(x, y)| *x += *y);
    }
}

/// `out` (S x width): the mean over each segment's tokens, 0 of nothing.
pub fn mean<R: Real>(offsets: &[u32], width: usize, x: &[R], out: &mut [R]) {
    wide(
        #[inline(always)]
        || {
            for ((start, end), out) in segments(offsets).zip(out.chunks_exact_mut(width)) {
                out.fill(R::ZERO);
                let share = R::ONE / R::from_f64((end - start).max(1) as f64);
                for row in x[start * width..end * width].chunks_exact(width) {
                    out.iter_mut().zip(row).for_each(|(o, x)| *o += *x * share);
                }
            }
        },
    );
}

/// Gradient of [`mean`], added to `dx` (T x width).
pub fn mean_backward<R: Real>(offsets: &[u32], width: usize, dy: &[R], dx: &mut [R]) {
    wide(
        #[inline(always)]
        || {
            for ((start, end), dy) in segments(offsets).zip(dy.chunks_exact(width)) {
                let share = R::ONE / R::from_f64((end - start).max(1) as f64);
                for row in dx[start * width..end * width].chunks_exact_mut(width) {
                    row.iter_mut().zip(dy).for_each(|(x, y)| *x += *y * share);
                }
            }
        },
    );
}
