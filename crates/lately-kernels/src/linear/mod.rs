//! `y = x W^T + b`, with an optional ReLU fused.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::matrix::{Product, View};
use crate::simd::wide;

/// Sizes of a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows m of x and y.
    pub rows: usize,
    /// Width k of x.
    pub inputs: usize,
    /// Width n of y.
    pub outputs: usize,
    /// Distance of W's rows: `inputs`, or more where W is a column range of a wider matrix.
    pub stride: usize,
    /// Whether the gradient of x is added to; else it is overwritten.
    pub add: bool,
}

impl Shape {
    /// A dense map.
    pub fn new(rows: usize, inputs: usize, outputs: usize) -> Self {
        Self { rows, inputs, outputs, stride: inputs, add: false }
    }
    /// Of a column range of a matrix of wider rows.
    #[must_use]
    pub fn within(self, stride: usize) -> Self {
        Self { stride, ..self }
    }
    /// The gradient of x is added to.
    #[must_use]
    pub fn adding(self) -> Self {
        Self { add: true, ..self }
    }
}

/// x: m x k, w: n rows of k at `stride`, b: n or empty for none, y: m x n.
pub fn forward<R: Real, P: Product<R>>(s: Shape, x: &[R], w: &[R], b: &[R], relu: bool, y: &mut [R]) {
    let y = &mut y[..s.rows * s.outputs];
    let (x, w) = (View::rows(x, s.inputs), View::rows(w, s.stride));
    P::product((s.rows, s.outputs, s.inputs), y, s.outputs, false, R::ONE, x, w.t());
    if b.is_empty() && !relu {
        return;
    }
    wide(
        #[inline(always)]
        || {
            for row in y.chunks_exact_mut(s.outputs) {
                row.iter_mut().zip(b).for_each(|(y, b)| *y += *b);
                if relu {
                    row.iter_mut().for_each(|y| *y = y.larger(R::ZERO));
                }
            }
        },
    );
}

/// Gradients of [`forward`]. `y` is its output where it had a ReLU, empty else; `dy` is masked by it in place.
/// `D` multiplies for `dx`, `P` for `dw`. `dx` (m x k) is overwritten or added to (`add`), empty where it is not wanted; `dw` and `db` (empty for none) are added to.
pub fn backward<R: Real, D: Product<R>, P: Product<R>>(
    s: Shape,
    x: &[R],
    w: &[R],
    y: &[R],
    dy: &mut [R],
    dx: &mut [R],
    dw: &mut [R],
    db: &mut [R],
) {
    let dy = &mut dy[..s.rows * s.outputs];
    wide(
        #[inline(always)]
        || {
            if !y.is_empty() {
                for (d, y) in dy.iter_mut().zip(y) {
                    *d = if *y > R::ZERO { *d } else { R::ZERO };
                }
            }
            if !db.is_empty() {
                for row in dy.chunks_exact(s.outputs) {
                    db.iter_mut().zip(row).for_each(|(b, d)| *b += *d);
                }
            }
        },
    );
    let d = View::rows(dy, s.outputs);
    if !dx.is_empty() {
        let w = View::rows(w, s.stride);
        D::product((s.rows, s.inputs, s.outputs), dx, s.inputs, s.add, R::ONE, d, w);
    }
    let x = View::rows(x, s.inputs);
    P::product((s.outputs, s.inputs, s.rows), dw, s.stride, true, R::ONE, d.t(), x);
}
