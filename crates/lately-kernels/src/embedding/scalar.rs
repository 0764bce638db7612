//! Reference of [`super::gather`] and [`super::scatter`].

use super::Shape;
use crate::Real;

/// Table rows of one entity, each with its share.
fn parts(s: &Shape<'_>, indices: &[u32], entity: u32) -> Vec<(usize, f64)> {
    let mut rows: Vec<usize> =
        s.slots(indices, entity).iter().filter(|i| **i != 0).map(|i| *i as usize).collect();
    if rows.is_empty() {
        rows.push(0);
    }
    let share = 1.0 / rows.len() as f64;
    rows.into_iter().map(|r| (r, share)).collect()
}

/// See [`super::gather`].
pub fn gather<R: Real>(s: Shape<'_>, table: &[R], indices: &[u32], out: &mut [R]) {
    for (row, entity) in s.entity.iter().enumerate() {
        for c in 0..s.dim {
            out[row * s.stride + s.offset + c] = parts(&s, indices, *entity)
                .iter()
                .map(|(r, share)| table[r * s.dim + c] * R::from_f64(*share))
                .sum();
        }
    }
}

/// See [`super::scatter`].
pub fn scatter<R: Real>(
    s: Shape<'_>,
    indices: &[u32],
    d_out: &[R],
    padding: bool,
    d_table: &mut [R],
    mut touch: impl FnMut(u32),
) {
    for (row, entity) in s.entity.iter().enumerate() {
        for (r, share) in parts(&s, indices, *entity) {
            if padding && r == 0 {
                continue;
            }
            touch(r as u32);
            for c in 0..s.dim {
                d_table[r * s.dim + c] += d_out[row * s.stride + s.offset + c] * R::from_f64(share);
            }
        }
    }
}
