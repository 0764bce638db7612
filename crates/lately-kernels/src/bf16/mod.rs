//! Matrix products of factors rounded to bfloat16 (8 bits of mantissa, to nearest even), summed in f32.
//!
//! Both factors are rounded and laid out for the machine's instructions once a call: `pack.rs` has the layout, one file
//! an instruction set multiplies it. AMX multiplies 16 x 32 by 32 x 16 in 16 cycles (3.6 TFLOP/s a core against 0.2 in
//! f32 on a Sapphire Rapids), AVX-512-BF16 doubles f32 on Zen 4 and 5 and gains nothing on Intel's cores; elsewhere the
//! rounded factors go to the f32 product, so that results agree everywhere.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
mod pack;
pub mod scalar;

use std::cell::RefCell;
use std::sync::OnceLock;

use crate::matrix::{Exact, Product, View};

/// Products in bfloat16 with sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct Bf16;

/// Products nearly as exact as f32's: with AMX of factors split into two bfloat16 numbers each, three products for one
/// (relative error of a term 2^-16), elsewhere in f32.
///
/// For the forward pass: a ReLU or a maximum that tips over by rounding moves its whole gradient elsewhere. With
/// rounded factors gradients of the reference cases differed by up to 18 % of the largest, with these in the forward
/// pass and rounded ones in the backward pass by 1 %.
#[derive(Debug, Clone, Copy)]
pub struct Split;

/// What multiplies bfloat16 on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Tiles of Intel's AMX.
    Amx,
    /// `vdpbf16ps` on 512 bits.
    Avx512,
    /// f32 products of rounded factors.
    Portable,
}

impl Isa {
    /// All that this machine has, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if avx512::detected() && amx::detected() {
                all.push(Self::Amx);
            }
            if avx512::detected() {
                all.push(Self::Avx512);
            }
        }
        all.push(Self::Portable);
        all
    }

    /// The fastest one.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }
}

thread_local! {
    /// Packed factors; kept, so that a product allocates nothing.
    static PACKED: RefCell<[Vec<u32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

impl Product<f32> for Bf16 {
    fn product(
        shape: (usize, usize, usize),
        out: &mut [f32],
        stride: usize,
        accumulate: bool,
        factor: f32,
        a: View<'_, f32>,
        b: View<'_, f32>,
    ) {
        product(Isa::best(), false, shape, out, stride, accumulate, factor, a, b);
    }
}

impl Product<f32> for Split {
    fn product(
        shape: (usize, usize, usize),
        out: &mut [f32],
        stride: usize,
        accumulate: bool,
        factor: f32,
        a: View<'_, f32>,
        b: View<'_, f32>,
    ) {
        match Isa::best() {
            Isa::Amx => product(Isa::Amx, true, shape, out, stride, accumulate, factor, a, b),
            _ => Exact::product(shape, out, stride, accumulate, factor, a, b),
        }
    }
}

/// See [`Product::product`]; with `split` that of [`Split`]. `factor` is multiplied into `a` before it is rounded.
///
/// # Panics
/// Where a view is shorter than its shape. An instruction set that the machine lacks gives way to the portable form.
pub fn product(
    isa: Isa,
    split: bool,
    (m, n, k): (usize, usize, usize),
    out: &mut [f32],
    stride: usize,
    accumulate: bool,
    factor: f32,
    a: View<'_, f32>,
    b: View<'_, f32>,
) {
    if m == 0 || n == 0 || k == 0 {
        return Exact::product((m, n, k), out, stride, accumulate, factor, a, b);
    }
    assert!(View::rows(out, stride).covers(m, n) && stride >= n, "output is shorter than {m} x {n}");
    assert!(a.covers(m, k) && b.covers(k, n), "factor is shorter than its shape, m n k {m} {n} {k}");
    PACKED.with_borrow_mut(|[left, right]| {
        #[cfg(target_arch = "x86_64")]
        if isa != Isa::Portable && avx512::detected() && (!split || isa == Isa::Amx && amx::detected()) {
            let left = pack::left(split, m, k, factor, a, left);
            let right = pack::right(split, k, n, b, right);
            let out = pack::Out { m, n, data: out, stride, accumulate };
            match isa {
                Isa::Amx if amx::detected() => amx::multiply(split, pack::steps(k), left, right, out),
                _ => avx512::multiply(pack::steps(k), left, right, out),
            }
            return;
        }
        if split {
            return Exact::product((m, n, k), out, stride, accumulate, factor, a, b);
        }
        scalar::round(m, k, factor, a, left);
        scalar::round(k, n, 1.0, b, right);
        let (a, b) = (floats(left), floats(right));
        Exact::product((m, n, k), out, stride, accumulate, 1.0, View::rows(&a, k), View::rows(&b, n));
    });
}

/// The packed bits as numbers.
fn floats(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|x| f32::from_bits(*x)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Numbers of -1 to 1 that a seed decides.
    pub(crate) fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut x = seed.wrapping_mul(747_796_405) | 1;
        let mut next = move || {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            (x >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn difference(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// Every instruction set of this machine against the reference: shapes around the tiles' edges, both orders of
    /// each factor, wider rows than needed, adding or not; split factors against f32.
    #[test]
    fn agrees_with_the_reference() {
        let shapes = [
            (1, 1, 1),
            (3, 5, 7),
            (16, 16, 32),
            (17, 33, 31),
            (40, 50, 70),
            (75, 75, 96),
            (33, 96, 75),
            (64, 48, 64),
            (15, 100, 3),
        ];
        for isa in Isa::available() {
            for (m, n, k) in shapes {
                for case in 0..8 {
                    let (a, b) = (numbers((m + 3) * (k + 3), 1), numbers((n + 3) * (k + 3), 2));
                    let a = match case & 1 {
                        0 => View::rows(&a, k + 3),
                        _ => View::rows(&a, m + 3).t(),
                    };
                    let b = match case & 2 {
                        0 => View::rows(&b, n + 3),
                        _ => View::rows(&b, k + 3).t(),
                    };
                    let (stride, accumulate, factor) = (n + case % 3, case & 4 == 0, 0.5 + case as f32);
                    let mut got = numbers(m * stride, 3);
                    let mut want = got.clone();
                    let shape = (m, n, k);
                    let start = got.clone();
                    product(isa, false, shape, &mut got, stride, accumulate, factor, a, b);
                    scalar::product(shape, &mut want, stride, accumulate, factor, a, b);
                    let bound = 2e-5 * factor * (k as f32).sqrt();
                    let worst = difference(&got, &want);
                    assert!(worst < bound, "{isa:?} {shape:?} case {case}: {worst}");
                    (got, want) = (start.clone(), start);
                    product(isa, true, shape, &mut got, stride, accumulate, factor, a, b);
                    Exact::product(shape, &mut want, stride, accumulate, factor, a, b);
                    let worst = difference(&got, &want);
                    assert!(worst < bound, "{isa:?} split {shape:?} case {case}: {worst}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for isa in Isa::available() {
            let (mut a, b) = (numbers(20 * 40, 4), numbers(40 * 20, 5));
            a[3 * 40 + 7] = f32::NAN;
            a[5 * 40] = f32::INFINITY;
            let mut out = vec![0.0; 400];
            product(
                isa,
                false,
                (20, 20, 40),
                &mut out,
                20,
                false,
                1.0,
                View::rows(&a, 40),
                View::rows(&b, 20),
            );
            for (i, x) in out.iter().enumerate() {
                assert_eq!(x.is_finite(), i / 20 != 3 && i / 20 != 5, "{isa:?} {i} {x}");
            }
        }
    }
}
