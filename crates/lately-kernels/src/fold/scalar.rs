//! Reference of [`super::forward`] and [`super::backward`].

use super::factor;
use crate::Real;

/// See [`super::forward`].
pub fn forward<R: Real>(
    d: usize,
    in_weight: &[R],
    in_bias: &[R],
    out_weight: &[R],
    map: &mut [R],
    bias: &mut [R],
) {
    let w = |part: usize, row: usize, column: usize| in_weight[(part * d + row) * d + column];
    let f = factor::<R>(d);
    for i in 0..d {
        for j in 0..d {
            map[i * d + j] = f * (0..d).map(|e| w(1, e, i) * w(0, e, j)).sum::<R>();
            map[(d + i) * d + j] = (0..d).map(|e| out_weight[i * d + e] * w(2, e, j)).sum();
        }
        bias[i] = f * (0..d).map(|e| w(1, e, i) * in_bias[e]).sum::<R>();
        bias[d + i] = (0..d).map(|e| out_weight[i * d + e] * in_bias[2 * d + e]).sum();
    }
}

/// See [`super::backward`].
pub fn backward<R: Real>(
    d: usize,
    (in_weight, in_bias, out_weight): (&[R], &[R], &[R]),
    (d_map, d_bias): (&[R], &[R]),
    d_in_weight: &mut [R],
    d_in_bias: &mut [R],
    d_out_weight: &mut [R],
) {
    let at = |part: usize, row: usize, column: usize| (part * d + row) * d + column;
    let f = factor::<R>(d);
    for i in 0..d {
        let (du, dt) = (f * d_bias[i], d_bias[d + i]);
        for e in 0..d {
            for j in 0..d {
                let (dm, dn) = (f * d_map[i * d + j], d_map[(d + i) * d + j]);
                d_in_weight[at(1, e, i)] += dm * in_weight[at(0, e, j)];
                d_in_weight[at(0, e, j)] += dm * in_weight[at(1, e, i)];
                d_out_weight[i * d + e] += dn * in_weight[at(2, e, j)];
                d_in_weight[at(2, e, j)] += dn * out_weight[i * d + e];
            }
            d_in_weight[at(1, e, i)] += du * in_bias[e];
            d_in_bias[e] += du * in_weight[at(1, e, i)];
            d_out_weight[i * d + e] += dt * in_bias[2 * d + e];
            d_in_bias[2 * d + e] += dt * out_weight[i * d + e];
        }
    }
}
