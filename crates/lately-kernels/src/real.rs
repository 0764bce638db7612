use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// The numbers that the operations run on: `f32` in production, `f64` for finite-difference checks.
pub trait Real:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + Sum
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Below every finite number.
    const NEG_INFINITY: Self;

    /// From f32, exact.
    fn from_f32(x: f32) -> Self;
    /// From f64, rounded.
    fn from_f64(x: f64) -> Self;
    /// To f64, exact.
    fn to_f64(self) -> f64;
    /// e^x by the standard library.
    fn exp(self) -> Self;
    /// e^x for x <= 88, in a form that vectorises: relative error below 3e-7 in f32, exactly [`Real::exp`] in f64.
    /// Arguments below -87 give a number below 1e-37.
    fn exp_fast(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Sum of squares in f64, in a fixed order.
    fn squares(x: &[Self]) -> f64;
    /// The larger one.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn exp(self) -> Self {
        f32::exp(self)
    }
    #[inline(always)]
    fn exp_fast(self) -> Self {
        // x = n ln 2 + r with |r| <= ln 2 / 2. Adding the magic number rounds to the integer n and leaves n + 127 in
        // the low bits, which moved up are the exponent of 2^n: no conversion that would keep LLVM from vectorising.
        const MAGIC: f32 = 12_582_912.0 + 127.0;
        let x = if self < -87.0 { -87.0 } else { self };
        let shifted = x * std::f32::consts::LOG2_E + MAGIC;
        let n = shifted - MAGIC;
        let r = x - n * 0.693_359_4;
        let r = r + n * 2.121_944_4e-4;
        let mut p = 1.987_569_1e-4;
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p * r + c;
        }
        let p = p * (r * r) + r + 1.0;
        p * f32::from_bits(shifted.to_bits() << 23)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
    fn squares(x: &[Self]) -> f64 {
        crate::adam::squares(x)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        f64::from(x)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }
    #[inline(always)]
    fn exp_fast(self) -> Self {
        f64::exp(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
    fn squares(x: &[Self]) -> f64 {
        x.iter().map(|x| x * x).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Real;

    #[test]
    fn the_fast_exponential_is_exact_to_rounding() {
        let worst = (-8_700..=8_800)
            .map(|i| i as f32 * 0.01 + 0.001_7)
            .filter(|x| *x <= 88.0)
            .map(|x| (f64::from(x.exp_fast()) / f64::from(x).exp() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 3e-7, "{worst}");
        assert_eq!(0f32.exp_fast(), 1.0);
        assert!((0.0..1e-37).contains(&f32::NEG_INFINITY.exp_fast()));
    }
}
