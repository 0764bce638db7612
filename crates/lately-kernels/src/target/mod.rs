//! Target attention: a candidate against each token of its request, as in the Deep Interest Network (arXiv
//! 1706.06978).
//!
//! A token is [action ; item], the candidate an item vector of the same width. [`pairs`] makes the inputs of the unit
//! that weighs a token, [`weighted`] adds up what it weighed. Segments are those of [`super::expand`].

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::expand::Segments;
use crate::simd::wide;

/// Width of one row of [`pairs`].
pub fn pair_width((action, item): (usize, usize)) -> usize {
    action + 4 * item
}

/// `out` (T x (action + 4 item)) = [token ; candidate ; token's item * candidate ; token's item - candidate]; `token`:
/// source tokens x (action + item), `candidate`: S x item.
pub fn pairs<R: Real>(
    s: Segments<'_>,
    (action, item): (usize, usize),
    token: &[R],
    candidate: &[R],
    out: &mut [R],
) {
    let (width, pair) = (action + item, pair_width((action, item)));
    wide(
        #[inline(always)]
        || {
            s.each(
                #[inline(always)]
                |segment, to, from, n| {
                    let c = &candidate[segment * item..][..item];
                    let rows = out[to * pair..][..n * pair].chunks_exact_mut(pair);
                    for (row, token) in rows.zip(token[from * width..].chunks_exact(width)) {
                        let (head, tail) = row.split_at_mut(width);
                        head.copy_from_slice(token);
                        let (copy, tail) = tail.split_at_mut(item);
                        copy.copy_from_slice(c);
                        let (product, difference) = tail.split_at_mut(item);
                        let t = &token[action..];
                        product.iter_mut().zip(t).zip(c).for_each(|((o, t), c)| *o = *t * *c);
                        difference.iter_mut().zip(t).zip(c).for_each(|((o, t), c)| *o = *t - *c);
                    }
                },
            );
        },
    );
}

/// Gradient of [`pairs`] for the tokens, added to `d_token`. Candidates are inputs and get none.
pub fn pairs_backward<R: Real>(
    s: Segments<'_>,
    (action, item): (usize, usize),
    candidate: &[R],
    d_out: &[R],
    d_token: &mut [R],
) {
    let (width, pair) = (action + item, pair_width((action, item)));
    wide(
        #[inline(always)]
        || {
            s.each(
                #[inline(always)]
                |segment, to, from, n| {
                    let c = &candidate[segment * item..][..item];
                    let rows = d_out[to * pair..][..n * pair].chunks_exact(pair);
                    for (row, d) in rows.zip(d_token[from * width..].chunks_exact_mut(width)) {
                        d.iter_mut().zip(row).for_each(|(d, o)| *d += *o);
                        let d = &mut d[action..];
                        let (product, difference) = row[width + item..].split_at(item);
                        d.iter_mut().zip(product).zip(c).for_each(|((d, o), c)| *d += *o * *c);
                        d.iter_mut().zip(difference).for_each(|(d, o)| *d += *o);
                    }
                },
            );
        },
    );
}

/// `out` (S x width): the sum over a segment's tokens of weight x token, 0 of nothing; `weight`: T, `token`: source
/// tokens x width.
pub fn weighted<R: Real>(s: Segments<'_>, width: usize, token: &[R], weight: &[R], out: &mut [R]) {
    wide(
        #[inline(always)]
        || {
            s.each(
                #[inline(always)]
                |segment, to, from, n| {
                    let out = &mut out[segment * width..][..width];
                    out.fill(R::ZERO);
                    for (w, token) in weight[to..][..n].iter().zip(token[from * width..].chunks_exact(width))
                    {
                        out.iter_mut().zip(token).for_each(|(o, t)| *o += *w * *t);
                    }
                },
            );
        },
    );
}

/// Gradients of [`weighted`]: `d_weight` (T) is overwritten, `d_token` added to.
pub fn weighted_backward<R: Real>(
    s: Segments<'_>,
    width: usize,
    token: &[R],
    weight: &[R],
    dy: &[R],
    d_token: &mut [R],
    d_weight: &mut [R],
) {
    wide(
        #[inline(always)]
        || {
            s.each(
                #[inline(always)]
                |segment, to, from, n| {
                    let dy = &dy[segment * width..][..width];
                    for i in 0..n {
                        let (w, at) = (weight[to + i], (from + i) * width);
                        let token = &token[at..at + width];
                        d_weight[to + i] = token.iter().zip(dy).map(|(t, d)| *t * *d).sum();
                        d_token[at..at + width].iter_mut().zip(dy).for_each(|(t, d)| *t += w * *d);
                    }
                },
            );
        },
    );
}
