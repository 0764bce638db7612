//! Between rows (lane after lane) and features x lanes.

use super::LANES;
use crate::simd::wide;

/// `x` (rows x width, at `from`) to `out` (width x lanes at `stride`); lanes from the last row to the next multiple of 16
/// become 0.
pub fn from_rows(rows: usize, width: usize, from: usize, x: &[f32], stride: usize, out: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for at in (0..rows).step_by(LANES) {
                let count = (rows - at).min(LANES);
                for left in (0..width).step_by(LANES) {
                    let columns = (width - left).min(LANES);
                    let mut block = [[0.0f32; LANES]; LANES];
                    for (i, row) in block.iter_mut().enumerate().take(count) {
                        let start = (at + i) * from + left;
                        row[..columns].copy_from_slice(&x[start..start + columns]);
                    }
                    for k in 0..columns {
                        let start = (left + k) * stride + at;
                        let out = &mut out[start..start + LANES];
                        for (out, row) in out.iter_mut().zip(&block) {
                            *out = row[k];
                        }
                    }
                }
            }
        },
    );
}

/// `x` (width x lanes at `stride`) to `out` (rows x width, at `to`).
pub fn to_rows(rows: usize, width: usize, stride: usize, x: &[f32], to: usize, out: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for at in (0..rows).step_by(LANES) {
                let count = (rows - at).min(LANES);
                for left in (0..width).step_by(LANES) {
                    let columns = (width - left).min(LANES);
                    let mut block = [[0.0f32; LANES]; LANES];
                    for (k, row) in block.iter_mut().enumerate().take(columns) {
                        let start = (left + k) * stride + at;
                        row.copy_from_slice(&x[start..start + LANES]);
                    }
                    for i in 0..count {
                        let start = (at + i) * to + left;
                        for (out, row) in out[start..start + columns].iter_mut().zip(&block) {
                            *out = row[i];
                        }
                    }
                }
            }
        },
    );
}
