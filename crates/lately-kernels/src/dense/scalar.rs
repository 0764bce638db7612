//! References of the operations of [`super`].

use std::ops::Range;

use super::Shape;
use crate::Real;

/// See [`super::forward`].
pub fn forward<R: Real>(s: Shape, x: &[R], w: &[R], b: &[R], relu: bool, y: &mut [R]) {
    for o in 0..s.outputs {
        for i in 0..s.rows {
            let sum = b[o] + (0..s.inputs).map(|k| w[o * s.inputs + k] * x[k * s.rows + i]).sum::<R>();
            y[o * s.rows + i] = if relu { sum.larger(R::ZERO) } else { sum };
        }
    }
}

/// See [`super::input_gradient`].
pub fn input_gradient<R: Real>(s: Shape, range: Range<usize>, w: &[R], dy: &[R], dx: &mut [R]) {
    for (at, k) in range.enumerate() {
        for i in 0..s.rows {
            dx[at * s.rows + i] = (0..s.outputs).map(|o| w[o * s.inputs + k] * dy[o * s.rows + i]).sum();
        }
    }
}

/// See [`super::weight_gradient`].
pub fn weight_gradient<R: Real>(s: Shape, x: &[R], dy: &[R], dw: &mut [R], db: &mut [R]) {
    for o in 0..s.outputs {
        for i in 0..s.rows {
            let d = dy[o * s.rows + i];
            db[o] += d;
            for k in 0..s.inputs {
                dw[o * s.inputs + k] += d * x[k * s.rows + i];
            }
        }
    }
}

/// See [`super::relu_backward`].
pub fn relu_backward<R: Real>(y: &[R], dy: &mut [R]) {
    for i in 0..dy.len() {
        if y[i] <= R::ZERO {
            dy[i] = R::ZERO;
        }
    }
}

/// See [`super::gate`].
pub fn gate<R: Real>(x0: &[R], inner: &[R], x: &[R], y: &mut [R]) {
    for i in 0..y.len() {
        y[i] = x0[i] * inner[i] + x[i];
    }
}

/// See [`super::gate_backward`].
pub fn gate_backward<R: Real>(x0: &[R], inner: &mut [R], dy: &[R], dx0: &mut [R]) {
    for i in 0..dy.len() {
        dx0[i] += dy[i] * inner[i];
        inner[i] = dy[i] * x0[i];
    }
}

/// See [`super::transpose`].
pub fn transpose<R: Real>(rows: usize, columns: usize, x: &[R], out: &mut [R]) {
    for i in 0..rows {
        for j in 0..columns {
            out[j * rows + i] = x[i * columns + j];
        }
    }
}
