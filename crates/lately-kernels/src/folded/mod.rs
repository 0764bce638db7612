//! Attention of one head within ragged segments, by folded weights (see [`crate::fold`]): the tokens are their own keys.

pub mod scalar;

use crate::Real;
use crate::dropout::Dropout;
use crate::matrix::{Product, View};
use crate::simd::wide;
use crate::softmax::{self, stride};

/// Sizes and masks.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// S + 1 offsets: segment s has the tokens `offsets[s]..offsets[s + 1]`.
    pub offsets: &'a [u32],
    /// Width d of a token.
    pub width: usize,
    /// For each token whether it is masked as key; empty for none. A segment with all keys masked gives zeros.
    pub masked: &'a [bool],
    /// Dropped attention probabilities.
    pub dropout: Dropout,
}

impl Shape<'_> {
    /// Length of the probabilities: for each segment of n tokens n rows, each n rounded up to a multiple of 16.
    pub fn probabilities(&self) -> usize {
        softmax::length(self.offsets)
    }

    /// Calls `f` with (first token, number of tokens, start of its probabilities), in order, but for empty segments.
    fn each(&self, mut f: impl FnMut(usize, usize, usize)) {
        let (mut token, mut at) = (0, 0);
        for n in softmax::lengths(self.offsets) {
            if n > 0 {
                f(token, n, at);
            }
            token += n;
            at += n * stride(n);
        }
    }

    fn masked(&self, start: usize, n: usize) -> &[bool] {
        if self.masked.is_empty() { &[] } else { &self.masked[start..start + n] }
    }
}

/// `x`: T x d, the tokens; `qv`: T x 2d, each row query (with 1 / sqrt(d) in it), value; `probabilities` (out): see
/// [`Shape::probabilities`], a dropped one negated; `out`: T x d. `scratch` is memory to reuse.
pub fn forward<R: Real, P: Product<R>>(
    s: Shape<'_>,
    x: &[R],
    qv: &[R],
    probabilities: &mut [R],
    out: &mut [R],
    scratch: &mut Vec<R>,
) {
    let d = s.width;
    s.each(|start, n, at| {
        let row = stride(n);
        let p = &mut probabilities[at..at + n * row];
        let (query, value) =
            (View::rows(&qv[start * 2 * d..], 2 * d), View::rows(&qv[start * 2 * d + d..], 2 * d));
        P::product((n, n, d), p, row, false, R::ONE, query, View::rows(&x[start * d..], d).t());
        let masked = s.masked(start, n);
        wide(
            #[inline(always)]
            || {
                for (i, p) in p.chunks_exact_mut(row).enumerate() {
                    softmax::close(p, n, masked);
                    softmax::softmax(p);
                    if !s.dropout.is_off() {
                        softmax::drop_by_sign(s.dropout, (at + i * row) as u32, p);
                    }
                }
            },
        );
        let kept = View::rows(softmax::kept(s.dropout, p, scratch), row);
        P::product((n, d, n), &mut out[start * d..], d, false, softmax::scale(s.dropout), kept, value);
    });
}

/// Gradients of [`forward`] from its probabilities: `d_qv` (T x 2d) is overwritten, `d_x` (T x d) is added to.
pub fn backward<R: Real, P: Product<R>>(
    s: Shape<'_>,
    x: &[R],
    qv: &[R],
    probabilities: &[R],
    d_out: &[R],
    d_qv: &mut [R],
    d_x: &mut [R],
    scratch: &mut Vec<R>,
) {
    let (d, scale) = (s.width, softmax::scale::<R>(s.dropout));
    s.each(|start, n, at| {
        let row = stride(n);
        let p = &probabilities[at..at + n * row];
        let part = |i: usize| start * 2 * d + i * d;
        let dy = View::rows(&d_out[start * d..], d);
        let kept = View::rows(softmax::kept(s.dropout, p, scratch), row);
        P::product((n, d, n), &mut d_qv[part(1)..], 2 * d, false, scale, kept.t(), dy);
        scratch.resize(n * row, R::ZERO);
        let ds = &mut scratch[..n * row];
        P::product((n, n, d), ds, row, false, R::ONE, dy, View::rows(&qv[part(1)..], 2 * d).t());
        wide(
            #[inline(always)]
            || {
                for (p, ds) in p.chunks_exact(row).zip(ds.chunks_exact_mut(row)) {
                    softmax::backward(p, ds, R::ZERO, scale);
                }
            },
        );
        let ds = View::rows(&*ds, row);
        P::product((n, d, n), &mut d_qv[part(0)..], 2 * d, false, R::ONE, ds, View::rows(&x[start * d..], d));
        let query = View::rows(&qv[part(0)..], 2 * d);
        P::product((n, d, n), &mut d_x[start * d..], d, true, R::ONE, ds.t(), query);
    });
}
