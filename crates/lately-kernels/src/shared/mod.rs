//! One-head attention in which all candidates of a request share the tokens' queries, keys and values.
//!
//! With token = [a ; c], a the request's and c the candidate's, the first layer's folded logit is
//! (Q a_i + q c) . a_j plus what does not depend on j and leaves the softmax as it is, and its value V a_j + v c. So
//! with E = exp(Q a_i . a_j - the row's maximum), once a request, and e = exp(q c . a_j - the maximum), once a candidate,
//! the probabilities are E_ij e_j / sum_j E_ij e_j: no product over d and no exponential a pair of tokens. Where the two
//! maxima lie so far apart that the sum could have lost what matters (below [`GUARD`]) a row is computed directly.
//! The values of all candidates of a request are mixed by one product, and so are their gradients.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::dropout::Dropout;
use crate::expand::Segments;
use crate::matrix::{Product, View};
use crate::simd::{sum, sum2, wide};
use crate::softmax::{self, stride};

/// Smallest trusted sum: what f32 cannot hold, below 1e-38, is then below 1e-18 of it.
pub const GUARD: f32 = 1e-20;

/// Sizes and masks.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// The candidates' tokens over those of the requests.
    pub segments: Segments<'a>,
    /// Width of a key, and of a value.
    pub widths: (usize, usize),
    /// For each expanded token whether it is masked as key, alike for all candidates of a request; empty for none. A
    /// segment with all keys masked gives zeros.
    pub masked: &'a [bool],
    /// Dropped attention probabilities.
    pub dropout: Dropout,
}

/// Segments of one request, one after another.
struct Group {
    first: usize,
    count: usize,
    /// First token of the request.
    from: usize,
    /// First expanded token.
    to: usize,
    /// Tokens a segment, above 0.
    n: usize,
    /// Start of the probabilities.
    at: usize,
}

impl Shape<'_> {
    /// Length of the probabilities: for each segment of n tokens n rows, each n rounded up to a multiple of 16.
    pub fn probabilities(&self) -> usize {
        softmax::length(self.segments.offsets)
    }

    fn each(&self, mut f: impl FnMut(Group)) {
        let Segments { offsets, source } = self.segments;
        let length = |s: usize| (offsets[s + 1] - offsets[s]) as usize;
        let (mut first, mut at) = (0, 0);
        while first < source.len() {
            let n = length(first);
            let same = (first..source.len()).take_while(|s| (source[*s], length(*s)) == (source[first], n));
            let count = same.count();
            if n > 0 {
                f(Group { first, count, from: source[first] as usize, to: offsets[first] as usize, n, at });
            }
            at += count * n * stride(n);
            first += count;
        }
    }

    fn masked(&self, group: &Group) -> &[bool] {
        if self.masked.is_empty() { &[] } else { &self.masked[group.to..group.to + group.n] }
    }
}

/// What a request and its candidates bring, or its gradients: `token_query`, `token_key` N x da and `token_value` N x d
/// of the requests' tokens; `query` S x da and `value` S x d of the candidates.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts<T> {
    /// Of the tokens, to which `query` is added.
    pub token_query: T,
    /// Of the tokens.
    pub token_key: T,
    /// Of the tokens, to which `value` is added.
    pub token_value: T,
    /// Of the candidates.
    pub query: T,
    /// Of the candidates.
    pub value: T,
}

/// `probabilities` (out): see [`Shape::probabilities`], a dropped one negated; `out`: T x d. `scratch` is memory to reuse.
pub fn forward<R: Real, P: Product<R>>(
    s: Shape<'_>,
    parts: Parts<&[R]>,
    probabilities: &mut [R],
    out: &mut [R],
    scratch: &mut Vec<R>,
) {
    let (da, d) = s.widths;
    s.each(|group| {
        let Group { first, count, from, to, n, at } = group;
        let (row, rows) = (stride(n), count * n);
        let p = &mut probabilities[at..at + rows * row];
        let out = &mut out[to * d..][..rows * d];
        scratch.resize((2 * n + count + 1) * row, R::ZERO);
        let (logits, rest) = scratch.split_at_mut(n * row);
        let (shared, rest) = rest.split_at_mut(n * row);
        let (own, exponentials) = rest.split_at_mut(count * row);
        let query = View::rows(&parts.token_query[from * da..], da);
        let keys = View::rows(&parts.token_key[from * da..], da).t();
        P::product((n, n, da), logits, row, false, R::ONE, query, keys);
        let query = View::rows(&parts.query[first * da..], da);
        P::product((count, n, da), own, row, false, R::ONE, query, keys);
        let masked = s.masked(&group);
        wide(
            #[inline(always)]
            || {
                for row in logits.chunks_exact_mut(row) {
                    softmax::close(row, n, masked);
                }
                shared.copy_from_slice(logits);
                for row in shared.chunks_exact_mut(row) {
                    softmax::exponentials(row);
                }
                let values = parts.value[first * d..].chunks_exact(d);
                let segments = p.chunks_exact_mut(n * row).zip(out.chunks_exact_mut(n * d));
                for (i, (((p, out), own), value)) in
                    segments.zip(own.chunks_exact_mut(row)).zip(values).enumerate()
                {
                    let at = (at + i * n * row) as u32;
                    softmax::close(own, n, masked);
                    exponentials[..row].copy_from_slice(own);
                    softmax::exponentials(&mut exponentials[..row]);
                    let of_candidate = (&*own, &exponentials[..row]);
                    segment(&s, at, (logits, shared), of_candidate, value, p, out);
                }
            },
        );
        let kept = View::rows(softmax::kept(s.dropout, p, scratch), row);
        let value = View::rows(&parts.token_value[from * d..], d);
        P::product((rows, d, n), out, d, true, softmax::scale(s.dropout), kept, value);
    });
}

/// Probabilities of one candidate, and its value by their sums. `of_tokens` and `of_candidate`: logits and exponentials.
#[inline(always)]
fn segment<R: Real>(
    s: &Shape<'_>,
    at: u32,
    of_tokens: (&[R], &[R]),
    of_candidate: (&[R], &[R]),
    value: &[R],
    p: &mut [R],
    out: &mut [R],
) {
    let (row, d, scale) = (of_candidate.0.len(), value.len(), softmax::scale::<R>(s.dropout));
    let rows = p.chunks_exact_mut(row).zip(out.chunks_exact_mut(d));
    let given = of_tokens.0.chunks_exact(row).zip(of_tokens.1.chunks_exact(row));
    for (i, ((p, out), (logits, exponentials))) in rows.zip(given).enumerate() {
        for ((p, a), b) in p.iter_mut().zip(exponentials).zip(of_candidate.1) {
            *p = *a * *b;
        }
        let total = sum(p);
        if total < R::from_f32(GUARD) {
            for ((p, a), b) in p.iter_mut().zip(logits).zip(of_candidate.0) {
                *p = *a + *b;
            }
            softmax::softmax(p);
        } else {
            let share = R::ONE / total;
            p.iter_mut().for_each(|p| *p *= share);
        }
        if !s.dropout.is_off() {
            softmax::drop_by_sign(s.dropout, at.wrapping_add((i * row) as u32), p);
        }
        let mass = scale * sum2(p, p, |p, _| p.larger(R::ZERO));
        out.iter_mut().zip(value).for_each(|(o, v)| *o = *v * mass);
    }
}

/// Gradients of [`forward`] from its probabilities: those of the tokens are added to, `query` and `value` are overwritten.
pub fn backward<R: Real, P: Product<R>>(
    s: Shape<'_>,
    parts: Parts<&[R]>,
    probabilities: &[R],
    d_out: &[R],
    d: &mut Parts<&mut [R]>,
    scratch: &mut Vec<R>,
) {
    let ((dk, dv), scale) = (s.widths, softmax::scale::<R>(s.dropout));
    let segments = s.segments.len();
    d.query[..segments * dk].fill(R::ZERO); // of segments without tokens, which come in no group
    d.value[..segments * dv].fill(R::ZERO);
    s.each(|Group { first, count, from, to, n, at }| {
        let (row, rows) = (stride(n), count * n);
        let p = &probabilities[at..at + rows * row];
        let dy = &d_out[to * dv..][..rows * dv];
        let gradient = View::rows(dy, dv);
        let kept = View::rows(softmax::kept(s.dropout, p, scratch), row);
        P::product((n, dv, rows), &mut d.token_value[from * dv..], dv, true, scale, kept.t(), gradient);
        scratch.resize((rows + n + count) * row, R::ZERO);
        let (ds, rest) = scratch.split_at_mut(rows * row);
        rest.fill(R::ZERO);
        let (shared, own) = rest.split_at_mut(n * row);
        let value = View::rows(&parts.token_value[from * dv..], dv);
        P::product((rows, n, dv), ds, row, false, R::ONE, gradient, value.t());
        wide(
            #[inline(always)]
            || {
                let values = parts.value[first * dv..].chunks_exact(dv);
                let candidates =
                    values.zip(d.value[first * dv..].chunks_exact_mut(dv)).zip(own.chunks_exact_mut(row));
                let given = p.chunks_exact(n * row).zip(dy.chunks_exact(n * dv));
                for ((((value, d_value), own), (p, dy)), ds) in
                    candidates.zip(given).zip(ds.chunks_exact_mut(n * row))
                {
                    segment_backward(scale, value, p, dy, ds, shared, own, d_value);
                }
            },
        );
        let keys = View::rows(&parts.token_key[from * dk..], dk);
        let own = View::rows(&*own, row);
        P::product((count, dk, n), &mut d.query[first * dk..], dk, false, R::ONE, own, keys);
        let query = View::rows(&parts.query[first * dk..], dk);
        P::product((n, dk, count), &mut d.token_key[from * dk..], dk, true, R::ONE, own.t(), query);
        let shared = View::rows(&*shared, row);
        P::product((n, dk, n), &mut d.token_query[from * dk..], dk, true, R::ONE, shared, keys);
        let query = View::rows(&parts.token_query[from * dk..], dk);
        P::product((n, dk, n), &mut d.token_key[from * dk..], dk, true, R::ONE, shared.t(), query);
    });
}

/// One candidate's gradients: of its value, and added to `shared` and `own` those of the logits of both kinds.
#[inline(always)]
fn segment_backward<R: Real>(
    scale: R,
    value: &[R],
    p: &[R],
    dy: &[R],
    ds: &mut [R],
    shared: &mut [R],
    own: &mut [R],
    d_value: &mut [R],
) {
    let row = own.len();
    let rows = p.chunks_exact(row).zip(dy.chunks_exact(value.len()));
    for (((p, dy), ds), shared) in rows.zip(ds.chunks_exact_mut(row)).zip(shared.chunks_exact_mut(row)) {
        let mass = scale * sum2(p, p, |p, _| p.larger(R::ZERO));
        d_value.iter_mut().zip(dy).for_each(|(d, y)| *d += mass * *y);
        softmax::backward(p, ds, sum2(dy, value, |a, b| a * b), scale);
        for ((ds, shared), own) in ds.iter().zip(shared.iter_mut()).zip(own.iter_mut()) {
            *shared += *ds;
            *own += *ds;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Exact;

    /// The tokens' logits favour one key by e^100, the candidate's another by e^100 and a bit: their product is nothing
    /// in f32, their sum of logits is an ordinary softmax.
    #[test]
    fn maxima_that_lie_far_apart_are_computed_directly() {
        let segments = Segments { offsets: &[0, 2], source: &[0] };
        let s = Shape { segments, widths: (2, 1), masked: &[], dropout: Dropout::default() };
        let parts = Parts {
            token_query: &[100.0, 0.0, 100.0, 0.0][..],
            token_key: &[1.0, 0.0, 0.0, 1.0],
            token_value: &[1.0, 3.0],
            query: &[0.0, 101.0],
            value: &[0.5],
        };
        let (mut p, mut y) = (vec![0f32; s.probabilities()], vec![0f32; 2]);
        forward::<f32, Exact>(s, parts, &mut p, &mut y, &mut Vec::new());
        let (mut p_plain, mut y_plain) = (p.clone(), y.clone());
        scalar::forward(s, parts, &mut p_plain, &mut y_plain, &mut Vec::new());
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!((y_plain[0] - 2.962).abs() < 1e-3 && near(&y, &y_plain) && near(&p, &p_plain), "{y:?} {p:?}");
    }
}
