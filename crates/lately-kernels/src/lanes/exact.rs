//! Products in f32: sums of some rows by some vectors of lanes stay in registers while the contracted dimension passes.
#![allow(unsafe_code)] // loads and stores through pointers: bounds in the inner loop cost a third; see the argument there

use pulp::{Arch, Simd, WithSimd};

use super::left::{Left, Order, Packed};
use super::{Activations, Format, LANES, Shape, Start, check};
use crate::buffer::Buffer;
use crate::matrix::View;

/// Numbers as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct F32;

impl Format for F32 {
    type Word = f32;

    fn pack(self, rows: usize, depth: usize, weight: View<'_, f32>) -> Packed<f32> {
        Packed::new(Order::Words, rows, depth, |r, k| weight.data[r * weight.row + k * weight.column])
    }

    fn right<'a>(self, _: usize, _: usize, x: &'a [f32], _: &'a mut Buffer<f32>) -> &'a [f32] {
        x
    }

    fn product(self, s: Shape, left: Left<'_, f32>, right: &[f32], start: Start<'_>, y: &mut [f32]) {
        check(s, &left, right, start, y);
        Arch::new().dispatch(Product { s, left, right, start, y });
    }
}

impl Activations for F32 {
    fn keys<'a>(
        self,
        _: usize,
        depth: usize,
        stride: usize,
        x: &'a [f32],
        _: &'a mut Buffer<f32>,
    ) -> Left<'a, f32> {
        Left::view(x, 1, stride, LANES, depth)
    }

    fn values<'a>(
        self,
        _: usize,
        depth: usize,
        stride: usize,
        x: &'a [f32],
        _: &'a mut Buffer<f32>,
    ) -> Left<'a, f32> {
        Left::view(x, stride, 1, LANES * stride, depth)
    }
}

/// Asks for the cache line of an address, which need not exist.
#[inline(always)]
fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that touches no memory as the program sees it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// One product, for [`Arch::dispatch`].
pub(super) struct Product<'a> {
    pub(super) s: Shape,
    pub(super) left: Left<'a, f32>,
    pub(super) right: &'a [f32],
    pub(super) start: Start<'a>,
    pub(super) y: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // 24 or 12 sums, 3 vectors of the right factor, a broadcast number: what 32 or 16 registers hold.
        if S::REGISTER_COUNT >= 32 { self.run::<S, 8>(simd) } else { self.run::<S, 4>(simd) }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn run<S: Simd, const F: usize>(mut self, simd: S) {
        let width = S::F32_LANES;
        let vectors = self.s.lanes / width;
        let mut at = 0;
        while at < vectors {
            // Of four two and two: a single vector would not hide the latency of its sums.
            let left = vectors - at;
            let count = if left % 3 == 1 && left >= 4 { 2 } else { left.min(3) };
            for row in (0..self.s.rows).step_by(F) {
                // SAFETY: `check` holds, the rows begin within the output, and so do the vectors' lanes.
                unsafe {
                    match count {
                        3 => self.tile::<S, F, 3>(simd, row, at * width),
                        2 => self.tile::<S, F, 2>(simd, row, at * width),
                        _ => self.tile::<S, F, 1>(simd, row, at * width),
                    }
                }
            }
            at += count;
        }
    }

    /// Sums of F rows from `row` on and G vectors from `lane` on.
    ///
    /// # Safety
    /// `check` holds for the shape, `row < rows`, and G vectors from `lane` on lie within the lanes.
    #[inline(always)]
    unsafe fn tile<S: Simd, const F: usize, const G: usize>(&mut self, simd: S, row: usize, lane: usize) {
        let (s, left, width) = (self.s, self.left, S::F32_LANES);
        // Rows past the last repeat it, and are not written.
        let rows: [usize; F] = std::array::from_fn(|f| (row + f).min(s.rows - 1));
        // SAFETY: every index is within what `check` asserts: rows below `s.rows` by lanes below `s.lanes` of y and of a
        // residual, words below `left.depth` of those rows of the left factor and of the right one.
        unsafe {
            let load = |x: &[f32], at: usize| x.as_ptr().add(at).cast::<S::f32s>().read_unaligned();
            let mut sums = [[simd.splat_f32s(0.0); G]; F];
            for (f, sums) in sums.iter_mut().enumerate() {
                for (g, sum) in sums.iter_mut().enumerate() {
                    let at = rows[f] * s.out + lane + g * width;
                    *sum = match self.start {
                        Start::Zero => simd.splat_f32s(0.0),
                        Start::Bias(bias) => simd.splat_f32s(*bias.get_unchecked(rows[f])),
                        Start::Residual(x, bias) => {
                            simd.add_f32s(load(x, at), simd.splat_f32s(*bias.get_unchecked(rows[f])))
                        }
                        Start::Add => load(self.y, at),
                    };
                }
            }
            let starts: [*const f32; F] =
                std::array::from_fn(|f| left.data.as_ptr().add(left.start(rows[f])));
            let mut right = self.right.as_ptr().add(lane);
            let mut from = 0;
            while from < left.depth {
                let skip = from / left.run * left.jump;
                for k in 0..left.run.min(left.depth - from) {
                    // The next group's numbers: a stretch of a large weight is too short for the machine to see it coming.
                    prefetch(starts[0].wrapping_add(left.group + skip + k * left.step));
                    let vectors: [S::f32s; G] =
                        std::array::from_fn(|g| right.add(g * width).cast::<S::f32s>().read_unaligned());
                    for (start, sums) in starts.iter().zip(&mut sums) {
                        let number = simd.splat_f32s(*start.add(skip + k * left.step));
                        for (sum, vector) in sums.iter_mut().zip(vectors) {
                            *sum = simd.mul_add_e_f32s(number, vector, *sum);
                        }
                    }
                    right = right.wrapping_add(s.stride);
                }
                from += left.run;
            }
            for (f, sums) in sums.iter().enumerate().take(s.rows - row) {
                for (g, sum) in sums.iter().enumerate() {
                    let at = (row + f) * s.out + lane + g * width;
                    self.y.as_mut_ptr().add(at).cast::<S::f32s>().write_unaligned(*sum);
                }
            }
        }
    }
}
