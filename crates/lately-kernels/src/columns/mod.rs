//! Blocks of columns of a wide matrix: where request-level parts meet the rows of their candidates.

use crate::Real;
use crate::simd::wide;

/// A block of columns and the source row of each of its rows.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// For each row of the wide matrix its source row.
    pub source: &'a [u32],
    /// Width of the block.
    pub width: usize,
    /// Width of the wide matrix.
    pub stride: usize,
    /// First column of the block.
    pub offset: usize,
}

impl Block<'_> {
    #[inline(always)]
    fn each<X, Y>(&self, from: &[X], out: &mut [Y], mut f: impl FnMut(&[X], &mut [Y])) {
        for (source, row) in self.source.iter().zip(out.chunks_exact_mut(self.stride)) {
            f(&from[*source as usize * self.width..][..self.width], &mut row[self.offset..][..self.width]);
        }
    }
}

/// Copies `from` (source rows x width) into the block.
pub fn place<R: Real>(block: Block<'_>, from: &[R], out: &mut [R]) {
    block.each(from, out, |from, out| out.copy_from_slice(from));
}

/// Gradient of [`place`], added to `d_from` (source rows x width).
pub fn collect<R: Real>(block: Block<'_>, d_out: &[R], d_from: &mut [R]) {
    wide(
        #[inline(always)]
        || {
            for (source, row) in block.source.iter().zip(d_out.chunks_exact(block.stride)) {
                let to = &mut d_from[*source as usize * block.width..][..block.width];
                to.iter_mut().zip(&row[block.offset..]).for_each(|(a, b)| *a += *b);
            }
        },
    );
}

/// Copies `from * factor` into the block.
pub fn scaled<R: Real>(block: Block<'_>, from: &[f32], factor: f32, out: &mut [R]) {
    block.each(from, out, |from, out| {
        out.iter_mut().zip(from).for_each(|(o, x)| *o = R::from_f32(*x * factor));
    });
}

/// Copies `(from - mean) / deviation`, held within +-`limit`, into the block; NaN becomes 0.
pub fn normalised<R: Real>(
    block: Block<'_>,
    from: &[f32],
    mean: &[f32],
    deviation: &[f32],
    limit: f32,
    out: &mut [R],
) {
    block.each(from, out, |from, out| {
        for i in 0..from.len() {
            let x = (from[i] - mean[i]) / deviation[i];
            out[i] = R::from_f32(if x.is_nan() { 0.0 } else { x.clamp(-limit, limit) });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Block<'_> = Block { source: &[1, 0, 1], width: 2, stride: 4, offset: 1 };

    #[test]
    fn places_and_collects_what_belongs_to_each_row() {
        let mut out = [9f64; 12];
        place(BLOCK, &[1.0, 2.0, 3.0, 4.0], &mut out);
        assert_eq!(out, [9.0, 3.0, 4.0, 9.0, 9.0, 1.0, 2.0, 9.0, 9.0, 3.0, 4.0, 9.0]);
        let mut back = [0.5f64; 4];
        collect(BLOCK, &out, &mut back);
        assert_eq!(back, [1.5, 2.5, 6.5, 8.5]);
    }

    #[test]
    fn numbers_are_normalised_held_and_missing_ones_become_the_mean() {
        let mut out = [0f32; 12];
        normalised(BLOCK, &[f32::NAN, 3.0, 100.0, -100.0], &[1.0, 1.0], &[2.0, 4.0], 5.0, &mut out);
        assert_eq!(out, [0.0, 5.0, -5.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 5.0, -5.0, 0.0]);
        scaled(BLOCK, &[1.0, 2.0, 3.0, 4.0], 0.5, &mut out);
        assert_eq!(out[..4], [0.0, 1.5, 2.0, 0.0]);
    }
}
