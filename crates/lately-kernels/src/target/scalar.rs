//! Reference of the operations in [`super`].

use crate::Real;
use crate::expand::Segments;

/// See [`super::pairs`].
pub fn pairs<R: Real>(
    s: Segments<'_>,
    (action, item): (usize, usize),
    token: &[R],
    candidate: &[R],
    out: &mut [R],
) {
    let width = action + item;
    s.each(|segment, to, from, n| {
        for t in 0..n {
            let row = &mut out[(to + t) * (width + 3 * item)..][..width + 3 * item];
            for i in 0..width {
                row[i] = token[(from + t) * width + i];
            }
            for i in 0..item {
                let (x, c) = (token[(from + t) * width + action + i], candidate[segment * item + i]);
                row[width + i] = c;
                row[width + item + i] = x * c;
                row[width + 2 * item + i] = x - c;
            }
        }
    });
}

/// See [`super::pairs_backward`].
pub fn pairs_backward<R: Real>(
    s: Segments<'_>,
    (action, item): (usize, usize),
    candidate: &[R],
    d_out: &[R],
    d_token: &mut [R],
) {
    let width = action + item;
    s.each(|segment, to, from, n| {
        for t in 0..n {
            let row = &d_out[(to + t) * (width + 3 * item)..][..width + 3 * item];
            for i in 0..width {
                d_token[(from + t) * width + i] += row[i];
            }
            for i in 0..item {
                let c = candidate[segment * item + i];
                d_token[(from + t) * width + action + i] +=
                    row[width + item + i] * c + row[width + 2 * item + i];
            }
        }
    });
}

/// See [`super::weighted`].
pub fn weighted<R: Real>(s: Segments<'_>, width: usize, token: &[R], weight: &[R], out: &mut [R]) {
    s.each(|segment, to, from, n| {
        for i in 0..width {
            out[segment * width + i] = (0..n).map(|t| weight[to + t] * token[(from + t) * width + i]).sum();
        }
    });
}

/// See [`super::weighted_backward`].
pub fn weighted_backward<R: Real>(
    s: Segments<'_>,
    width: usize,
    token: &[R],
    weight: &[R],
    dy: &[R],
    d_token: &mut [R],
    d_weight: &mut [R],
) {
    s.each(|segment, to, from, n| {
        for t in 0..n {
            d_weight[to + t] =
                (0..width).map(|i| token[(from + t) * width + i] * dy[segment * width + i]).sum();
            for i in 0..width {
                d_token[(from + t) * width + i] += weight[to + t] * dy[segment * width + i];
            }
        }
    });
}
