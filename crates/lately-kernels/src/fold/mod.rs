//! The weights of one-head attention, folded: with one head two pairs of matrices act only through their products.
//!
//! Queries W_q x + b_q and keys W_k x + b_k meet in the logit of tokens i and j. Its terms that do not depend on j leave the
//! softmax as it is, which leaves (M x_i + u) . x_j / sqrt(d) with M = W_k^T W_q and u = W_k^T b_q: the tokens are their
//! own keys. The output map acts on every value alike, so N = W_o W_v and t = W_o b_v take its place. A token costs 2 d²
//! instead of 4 d² multiply-adds; b_k has no effect and no gradient.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::matrix::{Product, View};

/// 1 / sqrt(d).
fn factor<R: Real>(width: usize) -> R {
    R::ONE / R::from_f64(width as f64).sqrt()
}

/// `in_weight` (3d x d: W_q, W_k, W_v), `in_bias` (3d) and `out_weight` (d x d) to `map` (2d x d: M / sqrt(d), N) and
/// `bias` (2d: u / sqrt(d), t).
pub fn forward<R: Real, P: Product<R>>(
    d: usize,
    in_weight: &[R],
    in_bias: &[R],
    out_weight: &[R],
    map: &mut [R],
    bias: &mut [R],
) {
    let part = |i: usize| View::rows(&in_weight[i * d * d..], d);
    let of = |i: usize| View::rows(&in_bias[i * d..], 1);
    let out = View::rows(out_weight, d);
    P::product((d, d, d), map, d, false, factor(d), part(1).t(), part(0));
    P::product((d, d, d), &mut map[d * d..], d, false, R::ONE, out, part(2));
    P::product((d, 1, d), bias, 1, false, factor(d), part(1).t(), of(0));
    P::product((d, 1, d), &mut bias[d..], 1, false, R::ONE, out, of(2));
}

/// Gradients of [`forward`] from those of `map` and `bias`; all are added to.
pub fn backward<R: Real, P: Product<R>>(
    d: usize,
    (in_weight, in_bias, out_weight): (&[R], &[R], &[R]),
    (d_map, d_bias): (&[R], &[R]),
    d_in_weight: &mut [R],
    d_in_bias: &mut [R],
    d_out_weight: &mut [R],
) {
    let part = |i: usize| View::rows(&in_weight[i * d * d..], d);
    let of = |i: usize| View::rows(&in_bias[i * d..], 1);
    let (dm, dn) = (View::rows(d_map, d), View::rows(&d_map[d * d..], d));
    let (du, dt) = (View::rows(d_bias, 1), View::rows(&d_bias[d..], 1));
    let (dq, rest) = d_in_weight.split_at_mut(d * d);
    let (dk, dv) = rest.split_at_mut(d * d);
    let f = factor(d);
    P::product((d, d, d), dq, d, true, f, part(1), dm);
    P::product((d, d, d), dk, d, true, f, part(0), dm.t());
    P::product((d, d, 1), dk, d, true, f, of(0), du.t());
    P::product((d, d, d), dv, d, true, R::ONE, View::rows(out_weight, d).t(), dn);
    P::product((d, 1, d), d_in_bias, 1, true, f, part(1), du);
    P::product((d, 1, d), &mut d_in_bias[2 * d..], 1, true, R::ONE, View::rows(out_weight, d).t(), dt);
    P::product((d, d, d), d_out_weight, d, true, R::ONE, dn, part(2).t());
    P::product((d, d, 1), d_out_weight, d, true, R::ONE, dt, of(2).t());
}
