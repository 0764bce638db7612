//! From the tokens of requests, held once, to the tokens of every candidate (early fusion by concatenation).
//!
//! A segment is what the encoder attends within: one a candidate, made of all tokens of its request. With
//! token = [a ; c], a linear map of it is A(a) + C(c): A once a request's token, C once a candidate.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::simd::wide;

/// Segments over source tokens.
#[derive(Debug, Clone, Copy)]
pub struct Segments<'a> {
    /// S + 1 offsets of the expanded tokens.
    pub offsets: &'a [u32],
    /// For each segment its first source token.
    pub source: &'a [u32],
}

impl Segments<'_> {
    /// Number of segments.
    pub fn len(&self) -> usize {
        self.source.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }
    /// (segment, first expanded token, first source token, number of tokens).
    #[inline(always)]
    pub(crate) fn each(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        for (s, w) in self.offsets.windows(2).enumerate() {
            f(s, w[0] as usize, self.source[s] as usize, (w[1] - w[0]) as usize);
        }
    }
}

/// `out` (T x (da + dc)) = [a of the token ; c of the segment]; a: source tokens x da, c: S x dc (dc may be 0).
pub fn concat<R: Real>(s: Segments<'_>, (da, dc): (usize, usize), a: &[R], c: &[R], out: &mut [R]) {
    let d = da + dc;
    s.each(|segment, to, from, n| {
        let c = &c[segment * dc..][..dc];
        for (row, a) in out[to * d..][..n * d].chunks_exact_mut(d).zip(a[from * da..].chunks_exact(da)) {
            row[..da].copy_from_slice(a);
            row[da..].copy_from_slice(c);
        }
    });
}

/// `out` (T x width) = a of the token + c of the segment; c is empty for none.
pub fn add<R: Real>(s: Segments<'_>, width: usize, a: &[R], c: &[R], out: &mut [R]) {
    wide(
        #[inline(always)]
        || {
            s.each(
                #[inline(always)]
                |segment, to, from, n| {
                    let out = &mut out[to * width..][..n * width];
                    let a = &a[from * width..][..n * width];
                    if c.is_empty() {
                        return out.copy_from_slice(a);
                    }
                    let c = &c[segment * width..][..width];
                    for (out, a) in out.chunks_exact_mut(width).zip(a.chunks_exact(width)) {
                        out.iter_mut().zip(a).zip(c).for_each(|((o, a), c)| *o = *a + *c);
                    }
                },
            );
        },
    );
}

/// Gradient for a: `da` (source tokens x width) gets the first `width` of `stride` columns of `d_out`, summed over the
/// segments of a token. Added to.
pub fn collect<R: Real>(s: Segments<'_>, stride: usize, width: usize, d_out: &[R], da: &mut [R]) {
    wide(
        #[inline(always)]
        || {
            s.each(
                #[inline(always)]
                |_, to, from, n| {
                    let rows = d_out[to * stride..][..n * stride].chunks_exact(stride);
                    for (da, row) in da[from * width..].chunks_exact_mut(width).zip(rows) {
                        da.iter_mut().zip(&row[..width]).for_each(|(a, r)| *a += *r);
                    }
                },
            );
        },
    );
}

/// Gradient for c: `dc` (S x width) = sum of `d_out` (T x width) over the segment's tokens. Overwritten.
pub fn sum<R: Real>(s: Segments<'_>, width: usize, d_out: &[R], dc: &mut [R]) {
    wide(
        #[inline(always)]
        || {
            s.each(
                #[inline(always)]
                |segment, to, _, n| {
                    let dc = &mut dc[segment * width..][..width];
                    dc.fill(R::ZERO);
                    for row in d_out[to * width..][..n * width].chunks_exact(width) {
                        dc.iter_mut().zip(row).for_each(|(c, r)| *c += *r);
                    }
                },
            );
        },
    );
}
