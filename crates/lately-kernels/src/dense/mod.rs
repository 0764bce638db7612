//! Tiles of `y = W x + b` on feature-major activations: a matrix of n features x m rows of the batch, so that a range
//! of outputs is one slice. Threads share a layer by tiles, and no gradient of a weight has to be added up.
//!
//! Also the two element-wise halves of a DCN v2 layer, `y = x0 * (W x + b) + x` (Wang et al. 2021).

pub mod cases;
pub mod scalar;

use std::ops::Range;

use crate::Real;
use crate::matrix::{Product, View};
use crate::simd::{sum, wide};

/// Sizes of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows m of the batch.
    pub rows: usize,
    /// Inputs k of the whole map.
    pub inputs: usize,
    /// Outputs n of the tile.
    pub outputs: usize,
}

/// x: k x m, w: the tile's n rows of k, b: n, y (out): n x m; optionally through a ReLU.
pub fn forward<R: Real, P: Product<R>>(s: Shape, x: &[R], w: &[R], b: &[R], relu: bool, y: &mut [R]) {
    if s.rows == 0 {
        return;
    }
    let y = &mut y[..s.outputs * s.rows];
    y.chunks_exact_mut(s.rows).zip(b).for_each(|(row, b)| row.fill(*b));
    let (x, w) = (View::rows(x, s.rows), View::rows(w, s.inputs));
    P::product((s.outputs, s.rows, s.inputs), y, s.rows, true, R::ONE, w, x);
    if relu {
        wide(
            #[inline(always)]
            || y.iter_mut().for_each(|y| *y = y.larger(R::ZERO)),
        );
    }
}

/// Gradient of a range of the inputs, `dx` (its length x m, overwritten): w: all n rows of k, dy: n x m.
pub fn input_gradient<R: Real, P: Product<R>>(
    s: Shape,
    range: Range<usize>,
    w: &[R],
    dy: &[R],
    dx: &mut [R],
) {
    if range.is_empty() {
        return;
    }
    let (w, dy) = (View::rows(&w[range.start.min(w.len())..], s.inputs), View::rows(dy, s.rows));
    P::product((range.len(), s.rows, s.outputs), dx, s.rows, false, R::ONE, w.t(), dy);
}

/// Gradients of a tile's weights, `dw` (n x k) and `db` (n), added to: x: k x m, dy: n x m.
pub fn weight_gradient<R: Real, P: Product<R>>(s: Shape, x: &[R], dy: &[R], dw: &mut [R], db: &mut [R]) {
    if s.rows == 0 {
        return;
    }
    wide(
        #[inline(always)]
        || dy.chunks_exact(s.rows).zip(db).for_each(|(row, b)| *b += sum(row)),
    );
    let (x, dy) = (View::rows(x, s.rows), View::rows(dy, s.rows));
    P::product((s.outputs, s.inputs, s.rows), dw, s.inputs, true, R::ONE, dy, x.t());
}

/// `dy` becomes 0 where the output `y` of a ReLU is 0.
pub fn relu_backward<R: Real>(y: &[R], dy: &mut [R]) {
    wide(
        #[inline(always)]
        || {
            for (d, y) in dy.iter_mut().zip(y) {
                *d = if *y > R::ZERO { *d } else { R::ZERO };
            }
        },
    );
}

/// `y = x0 * inner + x`, all of one length.
pub fn gate<R: Real>(x0: &[R], inner: &[R], x: &[R], y: &mut [R]) {
    wide(
        #[inline(always)]
        || {
            for (((y, x0), x), inner) in y.iter_mut().zip(x0).zip(x).zip(inner) {
                *y = *x0 * *inner + *x;
            }
        },
    );
}

/// Gradients of [`gate`]: `dx0` is added to, `inner` holds the forward's value and becomes its gradient; that of `x` is
/// `dy` itself.
pub fn gate_backward<R: Real>(x0: &[R], inner: &mut [R], dy: &[R], dx0: &mut [R]) {
    wide(
        #[inline(always)]
        || {
            for (((inner, x0), dy), dx0) in inner.iter_mut().zip(x0).zip(dy).zip(dx0) {
                *dx0 += *dy * *inner;
                *inner = *dy * *x0;
            }
        },
    );
}

/// `out` (columns x rows) = the transposed `x` (rows x columns).
pub fn transpose<R: Real>(rows: usize, columns: usize, x: &[R], out: &mut [R]) {
    // Blocks of 16 x 16 touch 16 lines of each side: both stay in the first-level cache.
    const BLOCK: usize = 16;
    for (top, out) in (0..columns).step_by(BLOCK).zip(out.chunks_mut(BLOCK * rows.max(1))) {
        for left in (0..rows).step_by(BLOCK) {
            for (j, out) in out.chunks_exact_mut(rows).enumerate() {
                for (i, out) in out[left..].iter_mut().take(BLOCK).enumerate() {
                    *out = x[(left + i) * columns + top + j];
                }
            }
        }
    }
}
