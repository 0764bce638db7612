//! Rounding in plain code, and the reference of [`super::product`].

use crate::matrix::View;

/// The nearest bfloat16, ties to even, as the bits of an f32. NaN stays NaN.
pub fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits | 0x0040_0000) & 0xffff_0000;
    }
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000
}

/// `out` (rows x columns) = the rounded `factor * x`.
pub(super) fn round(rows: usize, columns: usize, factor: f32, x: View<'_, f32>, out: &mut Vec<u32>) {
    out.clear();
    for i in 0..rows {
        out.extend((0..columns).map(|j| rounded(factor * x.data[i * x.row + j * x.column])));
    }
}

/// See [`super::product`]; sums in f64.
pub fn product(
    (m, n, k): (usize, usize, usize),
    out: &mut [f32],
    stride: usize,
    accumulate: bool,
    factor: f32,
    a: View<'_, f32>,
    b: View<'_, f32>,
) {
    let of = |x: f32| f64::from(f32::from_bits(rounded(x)));
    for i in 0..m {
        for j in 0..n {
            let term =
                |p| of(factor * a.data[i * a.row + p * a.column]) * of(b.data[p * b.row + j * b.column]);
            let sum = (0..k).map(term).sum::<f64>() as f32;
            let out = &mut out[i * stride + j];
            *out = if accumulate { *out + sum } else { sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn rounds_to_nearest_even() {
        let of = |x: u32| rounded(f32::from_bits(x));
        assert_eq!(of(0x3f80_7fff), 0x3f80_0000);
        assert_eq!(of(0x3f80_8000), 0x3f80_0000, "a tie goes to the even one");
        assert_eq!(of(0x3f81_8000), 0x3f82_0000);
        assert_eq!(of(0x3f80_8001), 0x3f81_0000);
        assert!(f32::from_bits(of(0x7f80_0001)).is_nan());
        assert_eq!(of(0x7f80_0000), 0x7f80_0000);
    }
}
