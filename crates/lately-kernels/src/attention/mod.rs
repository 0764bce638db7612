//! Multi-head scaled dot-product attention within ragged segments of packed tokens.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::dropout::{self, Dropout};
use crate::matrix::{Product, View};
use crate::simd::wide;
use crate::softmax;

/// Sizes and masks.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// S + 1 offsets: segment s has the tokens `offsets[s]..offsets[s + 1]`.
    pub offsets: &'a [u32],
    /// Width d of a token, a multiple of `heads`.
    pub width: usize,
    /// Number of heads.
    pub heads: usize,
    /// For each token whether it is masked as key; empty for none. A segment with all keys masked gives zeros.
    pub masked: &'a [bool],
    /// Dropped attention probabilities.
    pub dropout: Dropout,
}

impl Shape<'_> {
    /// Length of the probabilities: heads x n x n for each segment of n tokens, one after another.
    pub fn probabilities(&self) -> usize {
        self.offsets.windows(2).map(|w| (w[1] - w[0]) as usize).map(|n| n * n * self.heads).sum()
    }

    /// Calls `f` with (first token, number of tokens, head, start of its probabilities), in order.
    fn each(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        let mut at = 0;
        for w in self.offsets.windows(2) {
            let n = (w[1] - w[0]) as usize;
            for head in 0..self.heads {
                f(w[0] as usize, n, head, at);
                at += n * n;
            }
        }
    }

    fn head_width(&self) -> usize {
        self.width / self.heads
    }

    fn factor<R: Real>(&self) -> R {
        R::ONE / R::from_f64(self.head_width() as f64).sqrt()
    }
}

/// `qkv`: T x 3d, each row query, key, value; `probabilities` (out, before dropout): see [`Shape::probabilities`];
/// `context` (out): T x d. `scratch` is memory to reuse.
pub fn forward<R: Real, P: Product<R>>(
    s: Shape<'_>,
    qkv: &[R],
    probabilities: &mut [R],
    context: &mut [R],
    scratch: &mut Vec<R>,
) {
    let (d, dh, row) = (s.width, s.head_width(), 3 * s.width);
    s.each(|start, n, head, at| {
        if n == 0 {
            return;
        }
        let p = &mut probabilities[at..at + n * n];
        let part = |i: usize| View::rows(&qkv[start * row + i * d + head * dh..], row);
        P::product((n, n, dh), p, n, false, s.factor(), part(0), part(1).t());
        let masked = if s.masked.is_empty() { &[][..] } else { &s.masked[start..start + n] };
        softmax_rows(p, n, masked);
        let p = dropped(s.dropout, at, p, scratch);
        let out = &mut context[start * d + head * dh..];
        P::product((n, dh, n), out, d, false, R::ONE, View::rows(p, n), part(2));
    });
}

/// Gradient of [`forward`] from its probabilities; `d_qkv` (T x 3d) is overwritten.
pub fn backward<R: Real, P: Product<R>>(
    s: Shape<'_>,
    qkv: &[R],
    probabilities: &[R],
    d_context: &[R],
    d_qkv: &mut [R],
    scratch: &mut Vec<R>,
) {
    let (d, dh, row) = (s.width, s.head_width(), 3 * s.width);
    s.each(|start, n, head, at| {
        if n == 0 {
            return;
        }
        let p = &probabilities[at..at + n * n];
        let base = |i: usize| start * row + i * d + head * dh;
        let part = |i: usize| View::rows(&qkv[base(i)..], row);
        let dc = View::rows(&d_context[start * d + head * dh..], d);
        let kept = dropped(s.dropout, at, p, scratch);
        P::product((n, dh, n), &mut d_qkv[base(2)..], row, false, R::ONE, View::rows(kept, n).t(), dc);
        scratch.resize(n * n, R::ZERO);
        let ds = &mut scratch[..n * n];
        P::product((n, n, dh), ds, n, false, R::ONE, dc, part(2).t());
        dropout::apply(s.dropout, at as u32, ds);
        softmax_rows_backward(p, ds, n);
        let ds = View::rows(&*ds, n);
        P::product((n, dh, n), &mut d_qkv[base(0)..], row, false, s.factor(), ds, part(1));
        P::product((n, dh, n), &mut d_qkv[base(1)..], row, false, s.factor(), ds.t(), part(0));
    });
}

/// The probabilities after dropout; a copy in `scratch` where any is dropped.
fn dropped<'a, R: Real>(dropout: Dropout, at: usize, p: &'a [R], scratch: &'a mut Vec<R>) -> &'a [R] {
    if dropout.is_off() {
        return p;
    }
    scratch.clear();
    scratch.extend_from_slice(p);
    dropout::apply(dropout, at as u32, scratch);
    scratch
}

/// Softmax of each row of n, in place; masked columns become 0.
fn softmax_rows<R: Real>(p: &mut [R], n: usize, masked: &[bool]) {
    wide(
        #[inline(always)]
        || {
            for row in p.chunks_exact_mut(n) {
                softmax::close(row, n, masked);
                softmax::softmax(row);
            }
        },
    );
}

/// Gradient of [`softmax_rows`], in place.
fn softmax_rows_backward<R: Real>(p: &[R], ds: &mut [R], n: usize) {
    wide(
        #[inline(always)]
        || {
            for (p, ds) in p.chunks_exact(n).zip(ds.chunks_exact_mut(n)) {
                softmax::backward(p, ds, R::ZERO, R::ONE);
            }
        },
    );
}
