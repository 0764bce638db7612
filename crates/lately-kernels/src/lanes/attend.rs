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

/// Largest logit of the open keys of N vectors of lanes.
#[inline(always)]
fn maxima<const N: usize>(
    keys: usize,
    at: usize,
    stride: usize,
    masked: &[bool],
    x: &[f32],
) -> [[f32; LANES]; N] {
    let mut largest = [[f32::NEG_INFINITY; LANES]; N];
    for key in 0..keys {
        if closed(masked, key) {
            continue;
        }
        for (n, largest) in largest.iter_mut().enumerate() {
            let x = vector(x, key * stride + at + n * LANES);
            for i in 0..LANES {
                largest[i] = largest[i].larger(x[i]);
            }
        }
    }
    largest
}

/// From logits to e^(x - their lane's largest), 0 for masked keys, in `out`, of the same stride; where all keys are masked
/// all are 0. `masked`: one a key, or none.
pub fn exponentials(keys: usize, lanes: usize, stride: usize, masked: &[bool], x: &[f32], out: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for at in (0..lanes).step_by(LANES) {
                let [largest] = maxima::<1>(keys, at, stride, masked, x);
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
            side_by_side(
                lanes,
                x,
                #[inline(always)]
                |at, x| softmax_of::<4>(keys, at, stride, masked, x),
                #[inline(always)]
                |at, x| softmax_of::<1>(keys, at, stride, masked, x),
            );
        },
    );
}

/// Four vectors of lanes at a time, as a sum or a maximum down the keys waits four cycles for itself, then one by one.
#[inline(always)]
fn side_by_side(
    lanes: usize,
    x: &mut [f32],
    mut four: impl FnMut(usize, &mut [f32]),
    mut one: impl FnMut(usize, &mut [f32]),
) {
    let whole = lanes / (4 * LANES) * 4 * LANES;
    for at in (0..whole).step_by(4 * LANES) {
        four(at, x);
    }
    for at in (whole..lanes).step_by(LANES) {
        one(at, x);
    }
}

#[inline(always)]
fn softmax_of<const N: usize>(keys: usize, at: usize, stride: usize, masked: &[bool], x: &mut [f32]) {
    let largest = maxima::<N>(keys, at, stride, masked, x);
    let mut total = [[0.0f32; LANES]; N];
    for key in 0..keys {
        let open = !closed(masked, key);
        for n in 0..N {
            let x = vector_mut(x, key * stride + at + n * LANES);
            if open {
                for i in 0..LANES {
                    x[i] = (x[i] - largest[n][i]).exp_fast();
                    total[n][i] += x[i];
                }
            } else {
                *x = [0.0; LANES];
            }
        }
    }
    let share = shares(total);
    for key in 0..keys {
        for (n, share) in share.iter().enumerate() {
            let x = vector_mut(x, key * stride + at + n * LANES);
            for i in 0..LANES {
                x[i] *= share[i];
            }
        }
    }
}

/// What each lane is multiplied by to sum to 1; 0 for a total of 0.
#[inline(always)]
fn shares<const N: usize>(mut total: [[f32; LANES]; N]) -> [[f32; LANES]; N] {
    for total in &mut total {
        for t in total {
            *t = if *t > 0.0 { 1.0 / *t } else { 0.0 };
        }
    }
    total
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
    let mut trusted = true;
    let mut check = |at: usize, total: &[[f32; LANES]]| {
        let wanted = total.iter().flatten().take(queries.saturating_sub(at));
        trusted &= wanted.fold(true, |all, t| all & (*t >= GUARD));
    };
    wide(
        #[inline(always)]
        || {
            let mut at = 0;
            while at < queries {
                // Four vectors as in `side_by_side`.
                if queries.next_multiple_of(LANES) - at >= 4 * LANES {
                    check(at, &combine_of::<4>(at, stride, shared, &own[..keys], out));
                    at += 4 * LANES;
                } else {
                    check(at, &combine_of::<1>(at, stride, shared, &own[..keys], out));
                    at += LANES;
                }
            }
        },
    );
    trusted || all_masked
}

/// The sums, once without and once with dividing by them: to write products and go through them again took twice as long.
#[inline(always)]
fn combine_of<const N: usize>(
    at: usize,
    stride: usize,
    shared: &[f32],
    own: &[f32],
    out: &mut [f32],
) -> [[f32; LANES]; N] {
    let mut total = [[0.0f32; LANES]; N];
    for (key, own) in own.iter().enumerate() {
        for (n, total) in total.iter_mut().enumerate() {
            let x = vector(shared, key * stride + at + n * LANES);
            for i in 0..LANES {
                total[i] += x[i] * *own;
            }
        }
    }
    let share = shares(total);
    for (key, own) in own.iter().enumerate() {
        for (n, share) in share.iter().enumerate() {
            let from = key * stride + at + n * LANES;
            let (x, out) = (vector(shared, from), vector_mut(out, from));
            for i in 0..LANES {
                out[i] = x[i] * *own * share[i];
            }
        }
    }
    total
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
