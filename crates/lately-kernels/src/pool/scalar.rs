//! Reference of the operations in [`super`].

use super::{NOTHING, segments};
use crate::Real;

/// See [`super::max`].
pub fn max<R: Real>(offsets: &[u32], width: usize, x: &[R], out: &mut [R], argmax: &mut [u32]) {
    for (s, (start, end)) in segments(offsets).enumerate() {
        for i in 0..width {
            let mut best = NOTHING;
            for t in start..end {
                if best == NOTHING || x[t * width + i] > x[best as usize * width + i] {
                    best = t as u32;
                }
            }
            argmax[s * width + i] = best;
            out[s * width + i] = if best == NOTHING { R::ZERO } else { x[best as usize * width + i] };
        }
    }
}

/// See [`super::max_backward`].
pub fn max_backward<R: Real>(width: usize, argmax: &[u32], dy: &[R], dx: &mut [R]) {
    for i in 0..argmax.len() {
        if argmax[i] != NOTHING {
            dx[argmax[i] as usize * width + i % width] += dy[i];
        }
    }
}

/// See [`super::first`].
pub fn first<R: Real>(
    offsets: &[u32],
    width: usize,
    k: usize,
    x: &[R],
    out: &mut [R],
    stride: usize,
    offset: usize,
) {
    for (s, (start, end)) in segments(offsets).enumerate() {
        for i in 0..k * width {
            let inside = start + i / width < end;
            out[s * stride + offset + i] = if inside { x[start * width + i] } else { R::ZERO };
        }
    }
}

/// See [`super::first_backward`].
pub fn first_backward<R: Real>(
    offsets: &[u32],
    width: usize,
    k: usize,
    dy: &[R],
    stride: usize,
    offset: usize,
    dx: &mut [R],
) {
    for (s, (start, end)) in segments(offsets).enumerate() {
        for i in 0..k * width {
            if start + i / width < end {
                dx[start * width + i] += dy[s * stride + offset + i];
            }
        }
    }
}

/// See [`super::mean`].
pub fn mean<R: Real>(offsets: &[u32], width: usize, x: &[R], out: &mut [R]) {
    for (s, (start, end)) in segments(offsets).enumerate() {
        for i in 0..width {
            let total: R = (start..end).map(|t| x[t * width + i]).sum();
            out[s * width + i] = total / R::from_f64((end - start).max(1) as f64);
        }
    }
}

/// See [`super::mean_backward`].
pub fn mean_backward<R: Real>(offsets: &[u32], width: usize, dy: &[R], dx: &mut [R]) {
    for (s, (start, end)) in segments(offsets).enumerate() {
        for t in start..end {
            for i in 0..width {
                dx[t * width + i] += dy[s * width + i] / R::from_f64((end - start) as f64);
            }
        }
    }
}
