//! One full-rank DCN v2 layer: `y = x0 * (W x + b) + x`.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::linear::{self, Shape};
use crate::simd::wide;

/// All of m rows x `width`: `x0`, `x`, `inner` (out: W x + b, for the backward), `y` (out); w: width x width.
pub fn forward<R: Real>(width: usize, x0: &[R], x: &[R], w: &[R], b: &[R], inner: &mut [R], y: &mut [R]) {
    let rows = x.len() / width.max(1);
    linear::forward(Shape::new(rows, width, width), x, w, b, false, inner);
    wide(
        #[inline(always)]
        || {
            for (((y, x0), x), inner) in y.iter_mut().zip(x0).zip(x).zip(&*inner) {
                *y = *x0 * *inner + *x;
            }
        },
    );
}

/// Gradients of [`forward`]: `dx0`, `dw`, `db` are added to, `dx` is overwritten. `inner` holds the forward's value and
/// becomes its gradient.
pub fn backward<R: Real>(
    width: usize,
    x0: &[R],
    x: &[R],
    w: &[R],
    inner: &mut [R],
    dy: &[R],
    dx0: &mut [R],
    dx: &mut [R],
    dw: &mut [R],
    db: &mut [R],
) {
    let rows = x.len() / width.max(1);
    wide(
        #[inline(always)]
        || {
            for (((inner, x0), dy), dx0) in inner.iter_mut().zip(x0).zip(dy).zip(dx0) {
                *dx0 += *dy * *inner;
                *inner = *dy * *x0;
            }
        },
    );
    linear::backward(Shape::new(rows, width, width), x, w, &[], inner, dx, dw, db);
    wide(
        #[inline(always)]
        || dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx += *dy),
    );
}
