//! Products of whole numbers of 8 bits, for large weights. A row of a weight, and a lane of the activations, has one number
//! that says what a step is worth, its largest magnitude being 127 steps, so that
//! `y = start + scale(row) * scale(lane) * sum w x`; the sum is made in 32 bits and exact.
//!
//! A word holds four neighbours of the contracted dimension. Weights are signed; activations are held 128 higher, as
//! `vpdpbusd` multiplies unsigned by signed numbers, and 128 times the sum of the weights is taken off. The lanes' scales
//! stand behind the words.

use super::left::{Left, Order, Packed};
use super::norm::vector;
use super::{Format, LANES, SIDE, Shape, Start, check};
use crate::Real;
use crate::buffer::Buffer;
use crate::matrix::View;
use crate::simd::wide;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod dot;

/// What multiplies numbers of 8 bits on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int8Isa {
    /// Tiles of Intel's AMX.
    Amx,
    /// `vpdpbusd` on 512 bits.
    Vnni,
    /// Plain loops.
    Portable,
}

impl Int8Isa {
    /// All that this machine has, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if dot::detected() && amx::detected() {
                all.push(Self::Amx);
            }
            if dot::detected() {
                all.push(Self::Vnni);
            }
        }
        all.push(Self::Portable);
        all
    }
}

/// Whole numbers of 8 bits, by an instruction set that the machine has.
#[derive(Debug, Clone, Copy)]
pub struct Int8(Int8Isa);

impl Default for Int8 {
    fn default() -> Self {
        Self(Int8Isa::available()[0])
    }
}

impl Int8 {
    /// By this instruction set, where the machine has it.
    pub fn with(isa: Int8Isa) -> Option<Self> {
        Int8Isa::available().contains(&isa).then_some(Self(isa))
    }
}

/// Steps from 0 to the largest magnitude.
const STEPS: f32 = 127.0;
/// What is added to activations.
const OFFSET: i32 = 128;
/// Numbers in a word.
const PER_WORD: usize = 4;

/// What a step is worth, and the steps in 1.
#[inline(always)]
pub(super) fn scale(largest: f32) -> (f32, f32) {
    if largest > 0.0 { (largest / STEPS, STEPS / largest) } else { (0.0, 0.0) }
}

impl Format for Int8 {
    type Word = u32;

    fn pack(self, rows: usize, depth: usize, weight: View<'_, f32>) -> Packed<u32> {
        let number = |r: usize, k: usize| {
            if k < depth { weight.data[r * weight.row + k * weight.column] } else { 0.0 }
        };
        let largest = |r: usize| (0..depth).map(|k| number(r, k).abs()).fold(0.0, f32::max);
        let scales: Vec<(f32, f32)> = (0..rows).map(|r| scale(largest(r))).collect();
        let steps = |r: usize, k: usize| (number(r, k) * scales[r].1).round_ties_even() as i8;
        let word = |r: usize, k: usize| {
            u32::from_le_bytes([0, 1, 2, 3].map(|i| steps(r, PER_WORD * k + i).cast_unsigned()))
        };
        let mut packed = Packed::new(Order::Rows, rows, depth.div_ceil(PER_WORD), word);
        let run = SIDE * PER_WORD;
        let block =
            |r: usize, b: usize| (b * run..(b + 1) * run).map(|k| i32::from(steps(r, k))).sum::<i32>();
        for (r, (scale, _)) in scales.iter().enumerate() {
            packed.scale.push(*scale);
            packed.sums.extend((0..packed.blocks()).map(|b| block(r, b)));
        }
        packed
    }

    fn right<'a>(self, depth: usize, stride: usize, x: &'a [f32], buffer: &'a mut Buffer<u32>) -> &'a [u32] {
        assert!(x.len() >= depth * stride && stride.is_multiple_of(LANES), "x is shorter than its shape");
        // A tile of AMX reads 16 words of depth.
        let rows = depth.div_ceil(PER_WORD).next_multiple_of(SIDE);
        let words = buffer.sized((rows + 1) * stride);
        let (quads, scales) = words.split_at_mut(rows * stride);
        wide(
            #[inline(always)]
            || {
                for at in (0..stride).step_by(LANES) {
                    quantise(depth, stride, at, x, quads, scales);
                }
            },
        );
        words
    }

    fn product(self, s: Shape, left: Left<'_, u32>, right: &[u32], start: Start<'_>, y: &mut [f32]) {
        check(s, &left, right, start, y);
        let blocks = left.depth.div_ceil(SIDE);
        assert!(right.len() >= blocks * SIDE * s.stride + s.stride, "no scales behind the right factor");
        assert!(left.row == SIDE && left.scale.len() >= s.rows, "no packed weight");
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Int8Isa::Amx => amx::product(s, left, right, start, y),
            #[cfg(target_arch = "x86_64")]
            Int8Isa::Vnni => dot::product(s, left, right, start, y),
            _ => portable(s, left, right, start, y),
        }
    }
}

/// A vector of lanes from `at` on: words, 0 past the depth, and what a step is worth, as bits.
#[inline(always)]
fn quantise(depth: usize, stride: usize, at: usize, x: &[f32], quads: &mut [u32], scales: &mut [u32]) {
    /// Added, it leaves the nearest whole number, 128 higher, in the low bits.
    const MAGIC: f32 = 12_582_912.0 + OFFSET as f32;
    let mut largest = [0.0f32; LANES];
    for k in 0..depth {
        let x = vector(x, k * stride + at);
        for i in 0..LANES {
            let size = if x[i] < 0.0 { -x[i] } else { x[i] };
            largest[i] = largest[i].larger(size);
        }
    }
    let mut rate = [0.0f32; LANES];
    let scales = &mut scales[at..at + LANES];
    for i in 0..LANES {
        let (worth, steps) = scale(largest[i]);
        scales[i] = worth.to_bits();
        rate[i] = steps;
    }
    for (word, quads) in quads.chunks_exact_mut(stride).enumerate() {
        let mut out = [0u32; LANES];
        for part in 0..PER_WORD {
            let k = PER_WORD * word + part;
            if k < depth {
                let x = vector(x, k * stride + at);
                for i in 0..LANES {
                    out[i] |= ((x[i] * rate[i] + MAGIC).to_bits() & 0xff) << (8 * part);
                }
            }
        }
        quads[at..at + LANES].copy_from_slice(&out);
    }
}

/// What 128 more in every activation adds to a row's sum, and what its step is worth.
fn of_row(left: &Left<'_, u32>, row: usize, rows: usize) -> (i32, f32) {
    let blocks = left.sums.len() / rows.max(1);
    let used = left.depth.div_ceil(SIDE);
    let sums = &left.sums[row * blocks + left.first..][..used];
    (OFFSET * sums.iter().sum::<i32>(), left.scale[row])
}

/// Adds what the sums of a row start from, and writes them to `y`, all from lane `lane` on. `scales`: of the lanes, bits.
#[inline(always)]
fn finish(
    s: Shape,
    start: Start<'_>,
    (row, lane): (usize, usize),
    (extra, worth): (i32, f32),
    sums: &[i32],
    scales: &[u32],
    y: &mut [f32],
) {
    let scales = &scales[..sums.len()];
    let y = &mut y[..sums.len()];
    let bias = match start {
        Start::Bias(bias) | Start::Residual(_, bias) => bias[row],
        Start::Zero | Start::Add => 0.0,
    };
    let value = |sum: i32, scale: u32| (sum - extra) as f32 * (worth * f32::from_bits(scale));
    match start {
        Start::Add => {
            for ((y, sum), scale) in y.iter_mut().zip(sums).zip(scales) {
                *y += value(*sum, *scale);
            }
        }
        Start::Residual(x, _) => {
            let x = &x[row * s.out + lane..][..sums.len()];
            for (((y, sum), scale), x) in y.iter_mut().zip(sums).zip(scales).zip(x) {
                *y = value(*sum, *scale) + (*x + bias);
            }
        }
        Start::Bias(_) | Start::Zero => {
            for ((y, sum), scale) in y.iter_mut().zip(sums).zip(scales) {
                *y = value(*sum, *scale) + bias;
            }
        }
    }
}

/// The scales behind a right factor.
fn scales(right: &[u32], stride: usize) -> &[u32] {
    &right[right.len() - stride..]
}

fn portable(s: Shape, left: Left<'_, u32>, right: &[u32], start: Start<'_>, y: &mut [f32]) {
    let mut sums = vec![0i32; s.lanes];
    for row in 0..s.rows {
        wide(
            #[inline(always)]
            || {
                sums.fill(0);
                for k in 0..left.depth {
                    let w =
                        left.data[left.start(row) + k / left.run * left.jump + k % left.run].to_le_bytes();
                    let words = &right[k * s.stride..][..s.lanes];
                    for (sum, x) in sums.iter_mut().zip(words) {
                        for (part, w) in w.iter().enumerate() {
                            *sum += i32::from(w.cast_signed()) * (x >> (8 * part) & 0xff).cast_signed();
                        }
                    }
                }
                let of = of_row(&left, row, s.rows);
                finish(s, start, (row, 0), of, &sums, scales(right, s.stride), &mut y[row * s.out..]);
            },
        );
    }
}
