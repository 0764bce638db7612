//! The layout of packed factors, made with AVX-512.
//!
//! Blocks of 16 lanes (rows of the left factor, columns of the right) x 32 of the contracted dimension, block after
//! block along the contracted dimension, then lane block after lane block; edges are filled with zeros. A word holds two
//! neighbours of the contracted dimension. A split factor has three blocks for one: its rounded numbers (high) and what
//! rounding left (low), so that the sum over blocks is high high + high low + low high. Within a block the left factor has its 16 words lane after lane, the right
//! one pair after pair: what AMX wants as its two operands, and `vdpbf16ps` as a broadcast word and a vector.
#![allow(unsafe_code)] // loads and stores through pointers; the bounds are argued at each

use std::arch::x86_64::*;

use super::scalar::rounded;
use crate::matrix::View;

/// Rows or columns of a block.
pub(super) const LANES: usize = 16;
/// Length of a block along the contracted dimension.
pub(super) const DEPTH: usize = 32;
/// Words of a block.
pub(super) const BLOCK: usize = LANES * DEPTH / 2;

/// Where a product goes.
pub(super) struct Out<'a> {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) data: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) accumulate: bool,
}

/// How a block is made.
#[derive(Clone, Copy)]
struct Form {
    factor: f32,
    /// The left factor's order of words.
    by_lane: bool,
    /// What rounding leaves of a number, instead of the number.
    low: bool,
}

/// Packs `factor * a`, m x k.
pub(super) fn left<'a>(
    split: bool,
    m: usize,
    k: usize,
    factor: f32,
    a: View<'_, f32>,
    out: &'a mut Vec<u32>,
) -> &'a [u32] {
    let form = |low| Form { factor, by_lane: true, low };
    let forms = [form(false), form(false), form(true)];
    pack(m, k, a, if split { &forms } else { &forms[..1] }, out)
}

/// Packs b, k x n.
pub(super) fn right<'a>(
    split: bool,
    k: usize,
    n: usize,
    b: View<'_, f32>,
    out: &'a mut Vec<u32>,
) -> &'a [u32] {
    let form = |low| Form { factor: 1.0, by_lane: false, low };
    let forms = [form(false), form(true), form(false)];
    pack(n, k, b.t(), if split { &forms } else { &forms[..1] }, out)
}

/// Blocks along the contracted dimension.
pub(super) fn blocks(split: bool, k: usize) -> usize {
    k.div_ceil(DEPTH) * if split { 3 } else { 1 }
}

/// `x`: lanes x depth.
fn pack<'a>(
    lanes: usize,
    depth: usize,
    x: View<'_, f32>,
    forms: &[Form],
    out: &'a mut Vec<u32>,
) -> &'a [u32] {
    assert!(super::avx512::detected() && x.covers(lanes, depth));
    let blocks = depth.div_ceil(DEPTH) * forms.len();
    let out = aligned(out, lanes.div_ceil(LANES) * blocks * BLOCK);
    for (i, row) in out.chunks_exact_mut(blocks * BLOCK).enumerate() {
        let count = (lanes - i * LANES).min(LANES);
        for (at, block) in row.chunks_exact_mut(BLOCK).enumerate() {
            let (j, form) = (at / forms.len(), forms[at % forms.len()]);
            let length = (depth - j * DEPTH).min(DEPTH);
            let data = &x.data[i * LANES * x.row + j * DEPTH * x.column..];
            // SAFETY: the features were detected; `covers` above says that `count` lanes of `length` elements lie
            // within `data` by the strides, and no element beyond them is read; a block has its 256 words.
            unsafe {
                match (x.column, x.row) {
                    (1, _) => along_depth(data, x.row, count, length, form, block),
                    (_, 1) => along_lanes(data, x.column, count, length, form, block),
                    _ => any(View { data, ..x }, count, length, form, block),
                }
            }
        }
    }
    out
}

/// So many words of the buffer, from the start of a cache line on: a tile's 16 loads then touch 16 lines, not 32.
fn aligned(buffer: &mut Vec<u32>, words: usize) -> &mut [u32] {
    const LINE: usize = 16;
    buffer.resize(words + LINE, 0);
    let skip = buffer.as_ptr().align_offset(LINE * size_of::<u32>()).min(LINE);
    &mut buffer[skip..skip + words]
}

/// What is rounded of 16 elements.
#[target_feature(enable = "avx512f,avx512bf16")]
fn number(x: __m512, form: Form) -> __m512 {
    let x = _mm512_mul_ps(x, _mm512_set1_ps(form.factor));
    if !form.low {
        return x;
    }
    // SAFETY: both are 256 bits.
    let high = unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) };
    _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high))))
}

/// Elements of a lane are neighbours.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn along_depth(
    data: &[f32],
    stride: usize,
    count: usize,
    length: usize,
    form: Form,
    block: &mut [u32],
) {
    let number = |x: __m512| number(x, form);
    let mask = |n: usize| ((1u32 << n.min(16)) - 1) as u16;
    let (low, high) = (mask(length), mask(length.saturating_sub(16)));
    let mut words = [_mm512_setzero_si512(); LANES];
    for (i, word) in words.iter_mut().enumerate().take(count) {
        // SAFETY: masked loads read only the lane's first `length` elements.
        let (a, b) = unsafe {
            let at = data.as_ptr().add(i * stride);
            let b = if high == 0 { _mm512_setzero_ps() } else { _mm512_maskz_loadu_ps(high, at.add(16)) };
            (_mm512_maskz_loadu_ps(low, at), b)
        };
        let rounded = _mm512_cvtne2ps_pbh(number(b), number(a));
        // SAFETY: both are 512 bits.
        *word = unsafe { std::mem::transmute::<__m512bh, __m512i>(rounded) };
    }
    if !form.by_lane {
        transpose(&mut words);
    }
    store(&words, block);
}

/// Elements of neighbouring lanes are neighbours.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn along_lanes(
    data: &[f32],
    stride: usize,
    count: usize,
    length: usize,
    form: Form,
    block: &mut [u32],
) {
    let number = |x: __m512| number(x, form);
    let mask = ((1u32 << count) - 1) as u16;
    let row = |p: usize| {
        if p >= length {
            return _mm512_setzero_si512();
        }
        // SAFETY: a masked load reads only the first `count` elements of row p < length.
        let x = unsafe { _mm512_maskz_loadu_ps(mask, data.as_ptr().add(p * stride)) };
        let rounded = _mm512_cvtneps_pbh(number(x));
        // SAFETY: both are 256 bits.
        _mm512_cvtepu16_epi32(unsafe { std::mem::transmute::<__m256bh, __m256i>(rounded) })
    };
    let mut words = [_mm512_setzero_si512(); LANES];
    for (p, word) in words.iter_mut().enumerate() {
        *word = _mm512_or_si512(row(2 * p), _mm512_slli_epi32::<16>(row(2 * p + 1)));
    }
    if form.by_lane {
        transpose(&mut words);
    }
    store(&words, block);
}

/// Any strides.
fn any(x: View<'_, f32>, count: usize, length: usize, form: Form, block: &mut [u32]) {
    let at = |lane: usize, p: usize| {
        let inside = lane < count && p < length;
        if !inside {
            return 0;
        }
        let x = form.factor * x.data[lane * x.row + p * x.column];
        let high = f32::from_bits(rounded(x));
        rounded(if form.low { x - high } else { x }) >> 16
    };
    for (i, word) in block.iter_mut().enumerate() {
        let (lane, pair) = if form.by_lane { (i / 16, i % 16) } else { (i % 16, i / 16) };
        *word = at(lane, 2 * pair) | at(lane, 2 * pair + 1) << 16;
    }
}

#[target_feature(enable = "avx512f")]
fn store(words: &[__m512i; LANES], block: &mut [u32]) {
    for (word, to) in words.iter().zip(block.chunks_exact_mut(16)) {
        // SAFETY: `to` has 16 words.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), *word) };
    }
}

/// 16 x 16 words in place: pairs, quarters, then 128-bit lanes are exchanged.
#[target_feature(enable = "avx512f")]
fn transpose(r: &mut [__m512i; LANES]) {
    let mut t = *r;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..4 {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for i in 0..4 {
        t[i] = _mm512_shuffle_i32x4::<0x88>(r[i], r[4 + i]);
        t[4 + i] = _mm512_shuffle_i32x4::<0xdd>(r[i], r[4 + i]);
        t[8 + i] = _mm512_shuffle_i32x4::<0x88>(r[8 + i], r[12 + i]);
        t[12 + i] = _mm512_shuffle_i32x4::<0xdd>(r[8 + i], r[12 + i]);
    }
    for i in 0..4 {
        r[i] = _mm512_shuffle_i32x4::<0x88>(t[i], t[8 + i]);
        r[8 + i] = _mm512_shuffle_i32x4::<0xdd>(t[i], t[8 + i]);
        r[4 + i] = _mm512_shuffle_i32x4::<0x88>(t[4 + i], t[12 + i]);
        r[12 + i] = _mm512_shuffle_i32x4::<0xdd>(t[4 + i], t[12 + i]);
    }
}
