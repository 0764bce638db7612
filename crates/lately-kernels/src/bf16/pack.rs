//! The layout of packed factors, made with AVX-512.
//!
//! Blocks of 16 lanes (rows of the left factor, columns of the right) x 32 of the contracted dimension, block after
//! block along the contracted dimension, then lane block after lane block; edges are filled with zeros. A word holds two
//! neighbours of the contracted dimension. A split factor has two blocks for one: its rounded numbers (high) and what
//! rounding left (low); their product is high high + high low + low high. Within a block the left factor has its 16 words lane after lane, the right
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
    /// Whether a block of what rounding left follows it.
    split: bool,
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
    pack(m, k, a, Form { factor, by_lane: true, split }, out)
}

/// Packs b, k x n.
pub(super) fn right<'a>(
    split: bool,
    k: usize,
    n: usize,
    b: View<'_, f32>,
    out: &'a mut Vec<u32>,
) -> &'a [u32] {
    pack(n, k, b.t(), Form { factor: 1.0, by_lane: false, split }, out)
}

/// Steps along the contracted dimension.
pub(super) fn steps(k: usize) -> usize {
    k.div_ceil(DEPTH)
}

/// `x`: lanes x depth.
fn pack<'a>(lanes: usize, depth: usize, x: View<'_, f32>, form: Form, out: &'a mut Vec<u32>) -> &'a [u32] {
    assert!(super::avx512::detected() && x.covers(lanes, depth));
    let step = BLOCK * if form.split { 2 } else { 1 };
    let out = aligned(out, lanes.div_ceil(LANES) * steps(depth) * step);
    let (rows, columns) = (lanes.div_ceil(LANES), steps(depth));
    // In the order of the source: of neighbouring lanes a whole stretch of depth before the next one. The other way round
    // each block would touch 32 pages for a line of each.
    let by_depth = x.column != 1;
    for at in 0..rows * columns {
        let (i, j) = if by_depth { (at % rows, at / rows) } else { (at / columns, at % columns) };
        let (count, length) = ((lanes - i * LANES).min(LANES), (depth - j * DEPTH).min(DEPTH));
        let data = &x.data[i * LANES * x.row + j * DEPTH * x.column..];
        let block = &mut out[(i * columns + j) * step..][..step];
        // SAFETY: the features were detected; `covers` above says that `count` lanes of `length` elements lie
        // within `data` by the strides, and no element beyond them is read; a block has its 256 words, or 512.
        unsafe {
            match (x.column, x.row) {
                (1, _) => along_depth(data, x.row, count, length, form, block),
                (_, 1) => along_lanes(data, x.column, count, length, form, block),
                _ => any(View { data, ..x }, count, length, form, block),
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

/// Two vectors rounded, a's 16 numbers before b's.
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded_pair(a: __m512, b: __m512) -> __m512i {
    // SAFETY: both are 512 bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a)) }
}

/// What rounding left of them, rounded.
#[target_feature(enable = "avx512f,avx512bf16")]
fn rest_pair(a: __m512, b: __m512, rounded: __m512i) -> __m512i {
    let wide = |half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
    let (low, high) = (_mm512_castsi512_si256(rounded), _mm512_extracti64x4_epi64::<1>(rounded));
    rounded_pair(_mm512_sub_ps(a, wide(low)), _mm512_sub_ps(b, wide(high)))
}

/// Puts the words of 16 pairs in the wanted order and writes them.
#[target_feature(enable = "avx512f")]
fn finish(words: &mut [__m512i; LANES], turned: bool, block: &mut [u32]) {
    if turned {
        transpose(words);
    }
    store(words, block);
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
    let mask = |n: usize| ((1u32 << n.min(16)) - 1) as u16;
    let (low, high) = (mask(length), mask(length.saturating_sub(16)));
    let factor = _mm512_set1_ps(form.factor);
    let (mut words, mut rest) = ([_mm512_setzero_si512(); LANES], [_mm512_setzero_si512(); LANES]);
    for i in 0..count {
        // SAFETY: masked loads read only the lane's first `length` elements.
        let (a, b) = unsafe {
            let at = data.as_ptr().add(i * stride);
            let b = if high == 0 { _mm512_setzero_ps() } else { _mm512_maskz_loadu_ps(high, at.add(16)) };
            (_mm512_maskz_loadu_ps(low, at), b)
        };
        let (a, b) = (_mm512_mul_ps(a, factor), _mm512_mul_ps(b, factor));
        words[i] = rounded_pair(a, b);
        if form.split {
            rest[i] = rest_pair(a, b, words[i]);
        }
    }
    finish(&mut words, !form.by_lane, block);
    if form.split {
        finish(&mut rest, !form.by_lane, &mut block[BLOCK..]);
    }
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
    let mask = ((1u32 << count) - 1) as u16;
    let factor = _mm512_set1_ps(form.factor);
    let row = |p: usize| {
        if p >= length {
            return _mm512_setzero_ps();
        }
        // SAFETY: a masked load reads only the first `count` elements of row p < length.
        _mm512_mul_ps(unsafe { _mm512_maskz_loadu_ps(mask, data.as_ptr().add(p * stride)) }, factor)
    };
    // Halves 0, 16, 1, 17, ...: neighbours of the depth side by side.
    let mut order = [0u16; 32];
    order.iter_mut().enumerate().for_each(|(i, o)| *o = (i / 2 + 16 * (i % 2)) as u16);
    // SAFETY: both are 512 bits.
    let order = unsafe { std::mem::transmute::<[u16; 32], __m512i>(order) };
    let (mut words, mut rest) = ([_mm512_setzero_si512(); LANES], [_mm512_setzero_si512(); LANES]);
    for p in 0..LANES {
        let (a, b) = (row(2 * p), row(2 * p + 1));
        let pair = rounded_pair(a, b);
        words[p] = _mm512_permutexvar_epi16(order, pair);
        if form.split {
            rest[p] = _mm512_permutexvar_epi16(order, rest_pair(a, b, pair));
        }
    }
    finish(&mut words, form.by_lane, block);
    if form.split {
        finish(&mut rest, form.by_lane, &mut block[BLOCK..]);
    }
}

/// Any strides.
fn any(x: View<'_, f32>, count: usize, length: usize, form: Form, block: &mut [u32]) {
    let at = |lane: usize, p: usize, low: bool| {
        let inside = lane < count && p < length;
        if !inside {
            return 0;
        }
        let x = form.factor * x.data[lane * x.row + p * x.column];
        let high = f32::from_bits(rounded(x));
        rounded(if low { x - high } else { x }) >> 16
    };
    for (i, word) in block.iter_mut().enumerate() {
        let (i, low) = (i % BLOCK, i >= BLOCK);
        let (lane, pair) = if form.by_lane { (i / 16, i % 16) } else { (i % 16, i / 16) };
        *word = at(lane, 2 * pair, low) | at(lane, 2 * pair + 1, low) << 16;
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
