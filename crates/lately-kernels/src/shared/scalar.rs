//! Reference of [`super::forward`] and [`super::backward`]: attention with queries, keys and values written out.

use super::{Parts, Shape};
use crate::Real;
use crate::softmax::stride;

/// Calls `f` with (segment, first expanded token, first token of the request, tokens, start of the probabilities).
fn each(s: &Shape<'_>, mut f: impl FnMut(usize, usize, usize, usize, usize)) {
    let mut at = 0;
    s.segments.each(|segment, to, from, n| {
        f(segment, to, from, n, at);
        at += n * stride(n);
    });
}

/// See [`super::forward`].
pub fn forward<R: Real>(
    s: Shape<'_>,
    parts: Parts<&[R]>,
    probabilities: &mut [R],
    out: &mut [R],
    _scratch: &mut Vec<R>,
) {
    let (dk, dv) = s.widths;
    each(&s, |segment, to, from, n, at| {
        for i in 0..n {
            let open = |j: usize| s.masked.is_empty() || !s.masked[to + j];
            let logit = |j: usize| -> R {
                let query = |e: usize| parts.token_query[(from + i) * dk + e] + parts.query[segment * dk + e];
                (0..dk).map(|e| query(e) * parts.token_key[(from + j) * dk + e]).sum()
            };
            let logits: Vec<R> = (0..n).map(logit).collect();
            let largest = (0..n).filter(|j| open(*j)).map(|j| logits[j]).fold(R::NEG_INFINITY, R::larger);
            let exp = |j: usize| if open(j) { (logits[j] - largest).exp() } else { R::ZERO };
            let total: R = (0..n).map(exp).sum();
            let y = &mut out[(to + i) * dv..][..dv];
            y.fill(R::ZERO);
            for j in 0..stride(n) {
                let place = at + i * stride(n) + j;
                let p = if j < n && total > R::ZERO { exp(j) / total } else { R::ZERO };
                let factor = s.dropout.factor::<R>(place as u32);
                probabilities[place] = if factor > R::ZERO { p } else { -p };
                for (e, y) in y.iter_mut().enumerate().take(if j < n { dv } else { 0 }) {
                    let value = parts.token_value[(from + j) * dv + e] + parts.value[segment * dv + e];
                    *y += p * factor * value;
                }
            }
        }
    });
}

/// See [`super::backward`].
pub fn backward<R: Real>(
    s: Shape<'_>,
    parts: Parts<&[R]>,
    probabilities: &[R],
    d_out: &[R],
    d: &mut Parts<&mut [R]>,
    _scratch: &mut Vec<R>,
) {
    let (dk, dv) = s.widths;
    d.query.fill(R::ZERO);
    d.value.fill(R::ZERO);
    each(&s, |segment, to, from, n, at| {
        for i in 0..n {
            let dy = &d_out[(to + i) * dv..][..dv];
            let place = |j: usize| at + i * stride(n) + j;
            let p = |j: usize| R::larger(probabilities[place(j)], -probabilities[place(j)]);
            let gradient = |j: usize| -> R {
                let value = |e: usize| parts.token_value[(from + j) * dv + e] + parts.value[segment * dv + e];
                s.dropout.factor::<R>(place(j) as u32) * (0..dv).map(|e| dy[e] * value(e)).sum::<R>()
            };
            let dp: Vec<R> = (0..n).map(gradient).collect();
            let mean: R = (0..n).map(|j| p(j) * dp[j]).sum();
            for (j, dp) in dp.iter().enumerate() {
                let (ds, kept) = (p(j) * (*dp - mean), p(j) * s.dropout.factor::<R>(place(j) as u32));
                for (e, dy) in dy.iter().enumerate() {
                    d.token_value[(from + j) * dv + e] += kept * *dy;
                    d.value[segment * dv + e] += kept * *dy;
                }
                for e in 0..dk {
                    let key = parts.token_key[(from + j) * dk + e];
                    let query = parts.token_query[(from + i) * dk + e] + parts.query[segment * dk + e];
                    d.token_query[(from + i) * dk + e] += ds * key;
                    d.query[segment * dk + e] += ds * key;
                    d.token_key[(from + j) * dk + e] += ds * query;
                }
            }
        }
    });
}
