//! Reference of the operations in [`super`].

use super::Segments;
use crate::Real;

/// See [`super::concat`].
pub fn concat<R: Real>(s: Segments<'_>, (da, dc): (usize, usize), a: &[R], c: &[R], out: &mut [R]) {
    s.each(|segment, to, from, n| {
        for t in 0..n {
            for i in 0..da + dc {
                let x = if i < da { a[(from + t) * da + i] } else { c[segment * dc + i - da] };
                out[(to + t) * (da + dc) + i] = x;
            }
        }
    });
}

/// See [`super::add`].
pub fn add<R: Real>(s: Segments<'_>, width: usize, a: &[R], c: &[R], out: &mut [R]) {
    s.each(|segment, to, from, n| {
        for t in 0..n {
            for i in 0..width {
                let c = if c.is_empty() { R::ZERO } else { c[segment * width + i] };
                out[(to + t) * width + i] = a[(from + t) * width + i] + c;
            }
        }
    });
}

/// See [`super::collect`].
pub fn collect<R: Real>(s: Segments<'_>, stride: usize, width: usize, d_out: &[R], da: &mut [R]) {
    s.each(|_, to, from, n| {
        for t in 0..n {
            for i in 0..width {
                da[(from + t) * width + i] += d_out[(to + t) * stride + i];
            }
        }
    });
}

/// See [`super::sum`].
pub fn sum<R: Real>(s: Segments<'_>, width: usize, d_out: &[R], dc: &mut [R]) {
    s.each(|segment, to, _, n| {
        for i in 0..width {
            dc[segment * width + i] = (0..n).map(|t| d_out[(to + t) * width + i]).sum();
        }
    });
}
