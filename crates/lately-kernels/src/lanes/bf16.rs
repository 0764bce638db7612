//! Products of factors rounded to bfloat16, summed in f32. A word holds two neighbours of the contracted dimension: what
//! AMX takes as a tile of either factor, and `vdpbf16ps` as a broadcast word and a vector.

use super::exact::Product;
use super::left::{Left, Order, Packed};
use super::{Activations, Format, LANES, SIDE, Shape, Start, check};
use crate::bf16::Isa;
#[cfg(target_arch = "x86_64")]
use crate::bf16::avx512;
use crate::bf16::scalar::rounded;
use crate::buffer::Buffer;
use crate::matrix::View;
use crate::simd::wide;
use pulp::Arch;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod dot;

/// bfloat16, by an instruction set that the machine has.
#[derive(Debug, Clone, Copy)]
pub struct Bf16(Isa);

impl Default for Bf16 {
    fn default() -> Self {
        Self(Isa::best())
    }
}

impl Bf16 {
    /// By this instruction set, where the machine has it.
    pub fn with(isa: Isa) -> Option<Self> {
        Isa::available().contains(&isa).then_some(Self(isa))
    }
}

/// Two numbers, the first in the lower half.
#[inline(always)]
fn word(a: f32, b: f32) -> u32 {
    rounded(a) >> 16 | rounded(b)
}

impl Format for Bf16 {
    type Word = u32;

    fn pack(self, rows: usize, depth: usize, weight: View<'_, f32>) -> Packed<u32> {
        let number = |r: usize, k: usize| {
            if k < depth { weight.data[r * weight.row + k * weight.column] } else { 0.0 }
        };
        Packed::new(Order::Rows, rows, depth.div_ceil(2), |r, k| word(number(r, 2 * k), number(r, 2 * k + 1)))
    }

    fn right<'a>(self, depth: usize, stride: usize, x: &'a [f32], buffer: &'a mut Buffer<u32>) -> &'a [u32] {
        assert!(x.len() >= depth * stride, "x is shorter than its shape");
        // A tile of AMX reads 16 words of depth.
        let words = buffer.sized(depth.div_ceil(2).next_multiple_of(SIDE) * stride);
        let (whole, rest) = words.split_at_mut(depth / 2 * stride);
        rest.fill(0);
        let (pairs, last) = x[..depth * stride].split_at(depth / 2 * 2 * stride);
        #[cfg(target_arch = "x86_64")]
        if self.0 != Isa::Portable && avx512::detected() {
            dot::pairs(stride, pairs, whole);
            dot::single(last, rest);
            return words;
        }
        for (pair, out) in pairs.chunks_exact(2 * stride.max(1)).zip(whole.chunks_exact_mut(stride.max(1))) {
            let (a, b) = pair.split_at(stride);
            out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (a, b))| *o = word(*a, *b));
        }
        rest.iter_mut().zip(last).for_each(|(o, a)| *o = word(*a, 0.0));
        words
    }

    fn product(self, s: Shape, left: Left<'_, u32>, right: &[u32], start: Start<'_>, y: &mut [f32]) {
        check(s, &left, right, start, y);
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => amx::product(s, left, right, start, y),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => dot::product(s, left, right, start, y),
            _ => portable(s, left, right, start, y),
        }
    }
}

impl Activations for Bf16 {
    fn keys<'a>(
        self,
        rows: usize,
        depth: usize,
        stride: usize,
        x: &'a [u32],
        buffer: &'a mut Buffer<u32>,
    ) -> Left<'a, u32> {
        let depth = depth.div_ceil(2);
        if self.0 != Isa::Amx {
            return Left::view(x, 1, stride, LANES, depth);
        }
        let (padded, row) = (rows.next_multiple_of(SIDE), depth.next_multiple_of(SIDE));
        let out = buffer.sized(padded * row);
        transpose(padded, row, stride, x, out);
        Left::tiles(out, row, depth)
    }

    fn values<'a>(
        self,
        rows: usize,
        depth: usize,
        stride: usize,
        x: &'a [f32],
        buffer: &'a mut Buffer<u32>,
    ) -> Left<'a, u32> {
        let words = depth.div_ceil(2);
        let row = words.next_multiple_of(SIDE);
        let out = buffer.sized(rows.next_multiple_of(SIDE) * row);
        for (x, out) in x.chunks(stride.max(1)).take(rows).zip(out.chunks_exact_mut(row.max(1))) {
            #[cfg(target_arch = "x86_64")]
            if self.0 != Isa::Portable && avx512::detected() {
                // Lanes from `depth` to the next multiple of 16 are finite, and meet probabilities of 0.
                dot::neighbours(&x[..depth.next_multiple_of(LANES)], out);
                continue;
            }
            let number = |k: usize| if k < depth { x[k] } else { 0.0 };
            (0..row).for_each(|k| out[k] = word(number(2 * k), number(2 * k + 1)));
        }
        Left::tiles(out, row, words)
    }
}

/// 16 x 16 words at a time: `x` (depth words x lanes at `stride`) to `out` (rows x row).
fn transpose(rows: usize, row: usize, stride: usize, x: &[u32], out: &mut [u32]) {
    wide(
        #[inline(always)]
        || {
            for top in (0..rows).step_by(SIDE) {
                for left in (0..row).step_by(SIDE) {
                    let mut block = [[0u32; SIDE]; SIDE];
                    for (k, block) in block.iter_mut().enumerate() {
                        let start = (left + k) * stride + top;
                        block.copy_from_slice(&x[start..start + SIDE]);
                    }
                    for i in 0..SIDE {
                        let start = (top + i) * row + left;
                        for (out, words) in out[start..start + SIDE].iter_mut().zip(&block) {
                            *out = words[i];
                        }
                    }
                }
            }
        },
    );
}

/// In f32, of the rounded numbers: even ones first, then odd ones.
fn portable(s: Shape, left: Left<'_, u32>, right: &[u32], start: Start<'_>, y: &mut [f32]) {
    let low = |w: &u32| f32::from_bits(w << 16);
    let high = |w: &u32| f32::from_bits(w & 0xffff_0000);
    let halves: [&dyn Fn(&u32) -> f32; 2] = [&low, &high];
    for (i, half) in halves.into_iter().enumerate() {
        let (data, right): (Vec<f32>, Vec<f32>) =
            (left.data.iter().map(half).collect(), right.iter().map(half).collect());
        let left = left.with(&data[..]);
        let start = if i == 0 { start } else { Start::Add };
        Arch::new().dispatch(Product { s, left, right: &right, start, y: &mut *y });
    }
}
