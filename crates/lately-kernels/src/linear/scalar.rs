//! Reference of [`super::forward`] and [`super::backward`].

use super::Shape;
use crate::Real;

/// See [`super::forward`].
pub fn forward<R: Real>(s: Shape, x: &[R], w: &[R], b: &[R], relu: bool, y: &mut [R]) {
    for i in 0..s.rows {
        for o in 0..s.outputs {
            let mut sum = if b.is_empty() { R::ZERO } else { b[o] };
            for k in 0..s.inputs {
                sum += x[i * s.inputs + k] * w[o * s.stride + k];
            }
            y[i * s.outputs + o] = if relu { sum.larger(R::ZERO) } else { sum };
        }
    }
}

/// See [`super::backward`].
pub fn backward<R: Real>(
    s: Shape,
    x: &[R],
    w: &[R],
    y: &[R],
    dy: &mut [R],
    dx: &mut [R],
    dw: &mut [R],
    db: &mut [R],
) {
    if !dx.is_empty() && !s.add {
        dx[..s.rows * s.inputs].fill(R::ZERO);
    }
    for i in 0..s.rows {
        for o in 0..s.outputs {
            let at = i * s.outputs + o;
            if !y.is_empty() && y[at] <= R::ZERO {
                dy[at] = R::ZERO;
            }
            if !db.is_empty() {
                db[o] += dy[at];
            }
            for k in 0..s.inputs {
                dw[o * s.stride + k] += dy[at] * x[i * s.inputs + k];
                if !dx.is_empty() {
                    dx[i * s.inputs + k] += dy[at] * w[o * s.stride + k];
                }
            }
        }
    }
}
