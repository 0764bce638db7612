//! Rows of a trained table, averaged over the slots of a feature.

pub mod cases;
pub mod scalar;

use crate::Real;
use crate::simd::wide;

/// Where the indices stand and where the output goes.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// Width of the table.
    pub dim: usize,
    /// Slots of the feature; index 0 is an empty slot, and where all are empty row 0 of the table stands.
    pub slots: usize,
    /// Indices of one entity.
    pub index_stride: usize,
    /// First slot within them.
    pub index_start: usize,
    /// For each output row its entity.
    pub entity: &'a [u32],
    /// Width of an output row.
    pub stride: usize,
    /// First output column.
    pub offset: usize,
}

impl Shape<'_> {
    fn slots<'i>(&self, indices: &'i [u32], entity: u32) -> &'i [u32] {
        &indices[entity as usize * self.index_stride + self.index_start..][..self.slots]
    }
}

/// `out` (rows x stride): columns `offset..offset + dim` are overwritten. Indices must be below the table's rows.
pub fn gather<R: Real>(s: Shape<'_>, table: &[R], indices: &[u32], out: &mut [R]) {
    let d = s.dim;
    wide(
        #[inline(always)]
        || {
            for (entity, row) in s.entity.iter().zip(out.chunks_exact_mut(s.stride)) {
                let (out, slots) = (&mut row[s.offset..s.offset + d], s.slots(indices, *entity));
                let mut used = slots.iter().filter(|i| **i != 0).map(|i| *i as usize);
                let first = used.next().unwrap_or(0);
                out.copy_from_slice(&table[first * d..][..d]);
                let mut count = 1;
                for i in used {
                    out.iter_mut().zip(&table[i * d..][..d]).for_each(|(o, t)| *o += *t);
                    count += 1;
                }
                if count > 1 {
                    let share = R::ONE / R::from_f64(f64::from(count));
                    out.iter_mut().for_each(|o| *o *= share);
                }
            }
        },
    );
}

/// Gradient of [`gather`], added to `d_table`; `touch` is called with each row that got a part. With `padding`, row 0
/// gets none.
pub fn scatter<R: Real>(
    s: Shape<'_>,
    indices: &[u32],
    d_out: &[R],
    padding: bool,
    d_table: &mut [R],
    mut touch: impl FnMut(u32),
) {
    let d = s.dim;
    for (entity, row) in s.entity.iter().zip(d_out.chunks_exact(s.stride)) {
        let (grad, slots) = (&row[s.offset..s.offset + d], s.slots(indices, *entity));
        let count = slots.iter().filter(|i| **i != 0).count();
        let share = R::ONE / R::from_f64(count.max(1) as f64);
        let rows = slots.iter().copied().filter(|i| *i != 0).chain((count == 0).then_some(0));
        for i in rows.filter(|i| *i != 0 || !padding) {
            touch(i);
            let out = &mut d_table[i as usize * d..][..d];
            out.iter_mut().zip(grad).for_each(|(t, g)| *t += *g * share);
        }
    }
}
