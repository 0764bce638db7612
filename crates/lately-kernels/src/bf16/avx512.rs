//! Packed factors by `vdpbf16ps`: a word of the left factor, broadcast, times a vector of the right one.
#![allow(unsafe_code)] // loads and stores through pointers; the bounds are argued at each

use std::arch::x86_64::*;

use super::pack::{BLOCK, LANES, Out};

/// Rows of a register tile; with 3 vectors of columns it takes 24 of the 32 registers.
const ROWS: usize = 8;

/// Whether the machine has what [`multiply`] and packing need.
pub(crate) fn detected() -> bool {
    is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw")
}

/// `out = [out +] left right`, both packed, of so many blocks along the contracted dimension.
pub(super) fn multiply(blocks: usize, left: &[u32], right: &[u32], out: Out<'_>) {
    let depth = blocks * BLOCK;
    assert!(detected() && left.len() == out.m.div_ceil(LANES) * depth);
    assert_eq!(right.len(), out.n.div_ceil(LANES) * depth);
    let columns = out.n.div_ceil(LANES);
    let mut out = out;
    let mut j = 0;
    while j < columns {
        let width = (columns - j).min(3);
        for i in (0..out.m).step_by(ROWS) {
            let a = &left[i / LANES * depth..][..depth];
            let b = &right[j * depth..][..width * depth];
            // SAFETY: the features were detected; `a` and `b` have the blocks of one row and `width` columns of blocks.
            unsafe {
                match width {
                    3 => tile::<3>(depth, a, b, i, j * LANES, &mut out),
                    2 => tile::<2>(depth, a, b, i, j * LANES, &mut out),
                    _ => tile::<1>(depth, a, b, i, j * LANES, &mut out),
                }
            }
        }
        j += width;
    }
}

/// Rows from `row` on and `N` blocks of columns from `column` on.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn tile<const N: usize>(
    depth: usize,
    a: &[u32],
    b: &[u32],
    row: usize,
    column: usize,
    out: &mut Out<'_>,
) {
    let mut sums = [[_mm512_setzero_ps(); N]; ROWS];
    let first = row % LANES * LANES;
    for block in (0..depth).step_by(BLOCK) {
        for pair in 0..LANES {
            let mut vectors = [_mm512_setzero_si512(); N];
            for (v, vector) in vectors.iter_mut().enumerate() {
                // SAFETY: within the v-th column of blocks.
                *vector =
                    unsafe { _mm512_loadu_si512(b.as_ptr().add(v * depth + block + pair * LANES).cast()) };
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: row + i is a lane of this block, as ROWS divides LANES.
                let word = unsafe { *a.get_unchecked(block + first + i * LANES + pair) };
                let word = _mm512_set1_epi32(word as i32);
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    // SAFETY: all are 512 bits.
                    *sum = unsafe {
                        use std::mem::transmute;
                        let word = transmute::<__m512i, __m512bh>(word);
                        _mm512_dpbf16_ps(*sum, word, transmute::<__m512i, __m512bh>(vector))
                    };
                }
            }
        }
    }
    for (i, sums) in sums.iter().enumerate().take(out.m - row) {
        for (v, sum) in sums.iter().enumerate() {
            let at = column + v * LANES;
            let count = (out.n - at).min(LANES);
            let to = &mut out.data[(row + i) * out.stride + at..][..count];
            put(*sum, to, out.accumulate);
        }
    }
}

/// Writes or adds the first `to.len()` (at most 16) elements.
#[target_feature(enable = "avx512f")]
pub(super) fn put(sum: __m512, to: &mut [f32], accumulate: bool) {
    let mask = ((1u32 << to.len().min(16)) - 1) as u16;
    // SAFETY: the mask admits no element beyond `to`.
    unsafe {
        let old = if accumulate { _mm512_maskz_loadu_ps(mask, to.as_ptr()) } else { _mm512_setzero_ps() };
        _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, _mm512_add_ps(old, sum));
    }
}
