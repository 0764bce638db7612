//! Attention's probabilities: keys x lanes, a lane a query. In the first layer a request's candidates share the
//! exponentials, see [`crate::shared`].

use super::LANES;
use super::norm::{vector, vector_mut};
use crate::Real;
use crate::shared::GUARD;
use crate::simd::wide;

/// Whether a key may not be looked at.
#[inline(always)]
fn closed(masked: &[bool], key: usize) -> bool {
    masked.get(key).is_some_and(|m| *m)
}

/// Largest logit of the open keys a lane.
#[inline(always)]
fn maxima(keys: usize, at: usize, stride: usize, masked: &[bool], x: &[f32]) -> [f32; LANES] {
    let mut largest = [f32::NEG_INFINITY; LANES];
    for key in (0..keys).filter(|key| !closed(masked, *key)) {
        let x = vector(x, key * stride + at);
        for i in 0..LANES {
            largest[i] = largest[i].larger(x[i]);
        }
    }
    largest
}

/// From logits to e^(x - their lane's largest), 0 for masked keys, in `out`, of the same stride. Returns nothing: where
/// all keys are masked all are 0. `masked`: one a key, or none.
pub fn exponentials(keys: usize, lanes: usize, stride: usize, masked: &[bool], x: &[f32], out: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for at in (0..lanes).step_by(LANES) {
                let largest = maxima(keys, at, stride, masked, x);
                for key in 0..keys {
                    let out = vector_mut(out, key * stride + at);
                    if closed(masked, key) {
                        *out = [0.0; LANES];
                        continue;
                    }
                    let x = vector(x, key * stride + at);
                    for i in 0..LANES {
                        out[i] = (x[i] - largest[i]).exp_fast();
                    }
                }
            }
        },
    );
}

/// The same of one candidate's logits, one a key, in place.
pub fn exponentials_of(masked: &[bool], x: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            let open = x.iter().enumerate().filter(|(key, _)| !closed(masked, *key)).map(|(_, x)| *x);
            let largest = open.fold(f32::NEG_INFINITY, f32::larger);
            x.iter_mut().for_each(|x| *x = (*x - largest).exp_fast());
            (0..x.len()).filter(|key| closed(masked, *key)).for_each(|key| x[key] = 0.0);
        },
    );
}

/// Softmax over the keys of each lane, in place; all 0 where all are masked.
pub fn softmax(keys: usize, lanes: usize, stride: usize, masked: &[bool], x: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for at in (0..lanes).step_by(LANES) {
                let largest = maxima(keys, at, stride, masked, x);
                let mut total = [0.0f32; LANES];
                for key in 0..keys {
                    let x = vector_mut(x, key * stride + at);
                    if closed(masked, key) {
                        *x = [0.0; LANES];
                        continue;
                    }
                    for i in 0..LANES {
                        x[i] = (x[i] - largest[i]).exp_fast();
                        total[i] += x[i];
                    }
                }
                scale(keys, at, stride, total, x);
            }
        },
    );
}

/// Divides each lane by its total; a total of 0 leaves zeros.
#[inline(always)]
fn scale(keys: usize, at: usize, stride: usize, mut total: [f32; LANES], x: &mut [f32]) {
    for t in &mut total {
        *t = if *t > 0.0 { 1.0 / *t } else { 0.0 };
    }
    for key in 0..keys {
        let x = vector_mut(x, key * stride + at);
        for i in 0..LANES {
            x[i] *= total[i];
        }
    }
}

/// Probabilities of one candidate, `out`: the tokens' exponentials `shared` (keys x lanes) times its own `own` (one a key),
/// over their sum. Whether all the first `queries` sums can be trusted; if not, [`plain`] is to be taken.
pub fn combine(
    keys: usize,
    queries: usize,
    stride: usize,
    masked: &[bool],
    shared: &[f32],
    own: &[f32],
    out: &mut [f32],
) -> bool {
    let all_masked = keys > 0 && masked.len() >= keys && masked[..keys].iter().all(|m| *m);
    wide(
        #[inline(always)]
        || {
            let mut trusted = true;
            for at in (0..queries).step_by(LANES) {
                let mut total = [0.0f32; LANES];
                for (key, own) in own[..keys].iter().enumerate() {
                    let (x, out) = (vector(shared, key * stride + at), vector_mut(out, key * stride + at));
                    for i in 0..LANES {
                        out[i] = x[i] * *own;
                        total[i] += out[i];
                    }
                }
                trusted &= total.iter().take(queries - at).all(|t| *t >= GUARD);
                scale(keys, at, stride, total, out);
            }
            trusted || all_masked
        },
    )
}

/// The same from the logits of both: the softmax of their sum.
pub fn plain(
    keys: usize,
    lanes: usize,
    stride: usize,
    masked: &[bool],
    shared: &[f32],
    own: &[f32],
    out: &mut [f32],
) {
    for (key, own) in own[..keys].iter().enumerate() {
        let row = key * stride..key * stride + lanes;
        out[row.clone()].iter_mut().zip(&shared[row]).for_each(|(o, s)| *o = *s + *own);
    }
    softmax(keys, lanes, stride, masked, out);
}

/// Largest of the first `lanes` lanes of each feature; minus infinity of none.
pub fn largest(lanes: usize, stride: usize, x: &[f32], out: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for (f, out) in out.iter_mut().enumerate() {
                *out = crate::simd::max(&x[f * stride..f * stride + lanes]);
            }
        },
    );
}
