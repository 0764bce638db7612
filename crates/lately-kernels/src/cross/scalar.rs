//! Reference of [`super::forward`] and [`super::backward`].

use crate::Real;

/// See [`super::forward`].
pub fn forward<R: Real>(width: usize, x0: &[R], x: &[R], w: &[R], b: &[R], inner: &mut [R], y: &mut [R]) {
    for at in 0..x.len() {
        let (row, o) = (at / width * width, at % width);
        inner[at] = b[o] + (0..width).map(|k| w[o * width + k] * x[row + k]).sum::<R>();
        y[at] = x0[at] * inner[at] + x[at];
    }
}

/// See [`super::backward`].
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
    dx.copy_from_slice(dy);
    for at in 0..x.len() {
        let (row, o) = (at / width * width, at % width);
        dx0[at] += dy[at] * inner[at];
        inner[at] = dy[at] * x0[at];
        db[o] += inner[at];
        for k in 0..width {
            dw[o * width + k] += inner[at] * x[row + k];
            dx[row + k] += inner[at] * w[o * width + k];
        }
    }
}
