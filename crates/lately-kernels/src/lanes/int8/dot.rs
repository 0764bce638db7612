//! `vpdpbusd` on 512 bits.
#![allow(unsafe_code)] // loads and stores through pointers; the bounds are argued at each

use std::arch::x86_64::*;

use super::super::left::Left;
use super::super::{LANES, Shape, Start};
use super::{finish, of_row, scales};

/// Rows of a register tile; with 3 vectors of lanes it takes 24 of the 32 registers.
const ROWS: usize = 8;

/// Whether the machine has what [`product`] needs.
pub(super) fn detected() -> bool {
    is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw")
}

/// See [`super::super::Format::product`]; the caller has checked the shapes.
pub(super) fn product(s: Shape, left: Left<'_, u32>, right: &[u32], start: Start<'_>, y: &mut [f32]) {
    assert!(detected());
    let vectors = s.lanes / LANES;
    let mut sums = [[0i32; 3 * LANES]; ROWS];
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
                    3 => tile::<3>(s, left, right, row, at * LANES, &mut sums),
                    2 => tile::<2>(s, left, right, row, at * LANES, &mut sums),
                    _ => tile::<1>(s, left, right, row, at * LANES, &mut sums),
                }
                write(s, left, right, start, (row, at * LANES), count * LANES, &sums, y);
            }
        }
        at += count;
    }
}

/// Sums of [`ROWS`] rows from `row` on and N vectors from `lane` on.
///
/// # Safety
/// `check` holds for the shapes, `row < rows`, and N vectors from `lane` on lie within the lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tile<const N: usize>(
    s: Shape,
    left: Left<'_, u32>,
    right: &[u32],
    row: usize,
    lane: usize,
    out: &mut [[i32; 3 * LANES]; ROWS],
) {
    let mut sums = [[_mm512_setzero_si512(); N]; ROWS];
    // SAFETY: every index is within what `check` asserts, as in the product of f32.
    unsafe {
        let starts: [*const u32; ROWS] =
            std::array::from_fn(|f| left.data.as_ptr().add(left.start((row + f).min(s.rows - 1))));
        let mut right = right.as_ptr().add(lane);
        let mut from = 0;
        while from < left.depth {
            let skip = from / left.run * left.jump;
            for k in 0..left.run.min(left.depth - from) {
                let vectors: [__m512i; N] =
                    std::array::from_fn(|n| _mm512_loadu_si512(right.add(n * LANES).cast()));
                for (start, sums) in starts.iter().zip(&mut sums) {
                    let word = _mm512_set1_epi32(*start.add(skip + k * left.step) as i32);
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = _mm512_dpbusd_epi32(*sum, vector, word);
                    }
                }
                right = right.wrapping_add(s.stride);
            }
            from += left.run;
        }
        for (sums, out) in sums.iter().zip(out) {
            for (sum, out) in sums.iter().zip(out.chunks_exact_mut(LANES)) {
                _mm512_storeu_si512(out.as_mut_ptr().cast(), *sum);
            }
        }
    }
}

/// Scales the sums of a tile and writes them.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn write(
    s: Shape,
    left: Left<'_, u32>,
    right: &[u32],
    start: Start<'_>,
    (row, lane): (usize, usize),
    lanes: usize,
    sums: &[[i32; 3 * LANES]; ROWS],
    y: &mut [f32],
) {
    let scales = &scales(right, s.stride)[lane..];
    for (f, sums) in sums.iter().enumerate().take(s.rows - row) {
        let of = of_row(&left, row + f, s.rows);
        let y = &mut y[(row + f) * s.out + lane..];
        finish(s, start, (row + f, lane), of, &sums[..lanes], scales, y);
    }
}
