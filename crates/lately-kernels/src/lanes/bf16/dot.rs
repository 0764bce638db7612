//! `vdpbf16ps` and rounding on 512 bits.
#![allow(unsafe_code)] // loads and stores through pointers; the bounds are argued at each

use std::arch::x86_64::*;

use super::super::left::Left;
use super::super::{LANES, Shape, Start};
use crate::bf16::avx512::detected;

/// Rows of a register tile; with 3 vectors of lanes it takes 24 of the 32 registers.
const ROWS: usize = 8;

/// Order of 32 halves that puts the i-th of the lower 16 beside the i-th of the upper 16.
const INTERLEAVE: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 16 {
        order[2 * i] = i as u16;
        order[2 * i + 1] = i as u16 + 16;
        i += 1;
    }
    order
};

/// Rounds pairs of features (each feature `stride` lanes) to words.
pub(super) fn pairs(stride: usize, x: &[f32], out: &mut [u32]) {
    assert!(detected() && stride.is_multiple_of(LANES) && x.len() == 2 * out.len());
    // SAFETY: the features were detected.
    unsafe { rounded_pairs(stride, x, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn rounded_pairs(stride: usize, x: &[f32], out: &mut [u32]) {
    // SAFETY: 64 bytes of an array of 64 bytes.
    let order = unsafe { _mm512_loadu_si512(INTERLEAVE.as_ptr().cast()) };
    for (pair, out) in x.chunks_exact(2 * stride.max(1)).zip(out.chunks_exact_mut(stride.max(1))) {
        let (a, b) = pair.split_at(stride);
        let vectors = a.chunks_exact(LANES).zip(b.chunks_exact(LANES));
        for ((a, b), out) in vectors.zip(out.chunks_exact_mut(LANES)) {
            // SAFETY: each chunk has 16 numbers.
            unsafe {
                let (a, b) = (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr()));
                let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a));
                _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_permutexvar_epi16(order, both));
            }
        }
    }
}

/// Rounds one feature without a neighbour.
pub(super) fn single(x: &[f32], out: &mut [u32]) {
    for (x, out) in x.iter().zip(out) {
        *out = crate::bf16::scalar::rounded(*x) >> 16;
    }
}

/// Rounds neighbouring numbers, a multiple of 16, to words; the rest of `out` becomes 0.
pub(super) fn neighbours(x: &[f32], out: &mut [u32]) {
    assert!(detected() && x.len().is_multiple_of(LANES) && out.len() * 2 >= x.len());
    // SAFETY: the features were detected.
    unsafe { rounded_neighbours(x, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn rounded_neighbours(x: &[f32], out: &mut [u32]) {
    let (whole, rest) = out.split_at_mut(x.len() / 2);
    for (x, out) in x.chunks_exact(LANES).zip(whole.chunks_exact_mut(LANES / 2)) {
        // SAFETY: a chunk has 16 numbers, and its words are 32 bytes.
        unsafe {
            let half =
                std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr())));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), half);
        }
    }
    rest.fill(0);
}

/// See [`super::super::Format::product`]; the caller has checked the shapes.
pub(super) fn product(s: Shape, left: Left<'_, u32>, right: &[u32], start: Start<'_>, y: &mut [f32]) {
    assert!(detected());
    let vectors = s.lanes / LANES;
    let mut at = 0;
    while at < vectors {
        let count = match vectors - at {
            4 => 2,
            n => n.min(3),
        };
        for row in (0..s.rows).step_by(ROWS) {
            // SAFETY: the features were detected, the shapes were checked, `row` and the lanes lie within them.
            unsafe {
                match count {
                    3 => tile::<3>(s, left, right, start, y, row, at * LANES),
                    2 => tile::<2>(s, left, right, start, y, row, at * LANES),
                    _ => tile::<1>(s, left, right, start, y, row, at * LANES),
                }
            }
        }
        at += count;
    }
}

/// Sums of [`ROWS`] rows from `row` on and N vectors from `lane` on.
///
/// # Safety
/// `check` holds for the shapes, `row < rows`, and N vectors from `lane` on lie within the lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn tile<const N: usize>(
    s: Shape,
    left: Left<'_, u32>,
    right: &[u32],
    start: Start<'_>,
    y: &mut [f32],
    row: usize,
    lane: usize,
) {
    let rows: [usize; ROWS] = std::array::from_fn(|f| (row + f).min(s.rows - 1));
    let mut sums = [[_mm512_setzero_ps(); N]; ROWS];
    // SAFETY: every index is within what `check` asserts, as in the product of f32.
    unsafe {
        for (f, sums) in sums.iter_mut().enumerate() {
            for (n, sum) in sums.iter_mut().enumerate() {
                let at = rows[f] * s.out + lane + n * LANES;
                *sum = match start {
                    Start::Zero => _mm512_setzero_ps(),
                    Start::Bias(bias) => _mm512_set1_ps(*bias.get_unchecked(rows[f])),
                    Start::Residual(x, bias) => _mm512_add_ps(
                        _mm512_loadu_ps(x.as_ptr().add(at)),
                        _mm512_set1_ps(*bias.get_unchecked(rows[f])),
                    ),
                    Start::Add => _mm512_loadu_ps(y.as_ptr().add(at)),
                };
            }
        }
        let starts: [*const u32; ROWS] = std::array::from_fn(|f| left.data.as_ptr().add(left.start(rows[f])));
        let mut right = right.as_ptr().add(lane);
        let mut from = 0;
        while from < left.depth {
            let skip = from / left.run * left.jump;
            for k in 0..left.run.min(left.depth - from) {
                let vectors: [__m512bh; N] = std::array::from_fn(|n| {
                    std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(right.add(n * LANES).cast()))
                });
                for (start, sums) in starts.iter().zip(&mut sums) {
                    let word = _mm512_set1_epi32(*start.add(skip + k * left.step) as i32);
                    let word = std::mem::transmute::<__m512i, __m512bh>(word);
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = _mm512_dpbf16_ps(*sum, word, vector);
                    }
                }
                right = right.wrapping_add(s.stride);
            }
            from += left.run;
        }
        for (f, sums) in sums.iter().enumerate().take(s.rows - row) {
            for (n, sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(y.as_mut_ptr().add((row + f) * s.out + lane + n * LANES), *sum);
            }
        }
    }
}
