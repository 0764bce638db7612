//! The practical peak of a core: multiply-adds that touch nothing but registers. What a product reaches is quoted as a
//! share of it, measured in the same run, as clocks differ from machine to machine and from minute to minute.
#![allow(unsafe_code)] // inline assembly and intrinsics on registers alone

use std::hint::black_box;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};

use crate::bf16::Isa;

/// Sums side by side: enough to hide the latency of two units of four cycles.
const SUMS: usize = 12;
/// Rounds of one measurement, some milliseconds.
const ROUNDS: usize = 400_000;
/// Measurements, of which the best counts: what another process took is no part of a peak.
const TRIES: usize = 12;

/// GFLOP/s of one core in f32; a multiply-add is two.
pub fn f32() -> f64 {
    struct Loop;
    impl WithSimd for Loop {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> usize {
            let (a, b) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(black_box(1e-3)));
            let mut sums = [simd.splat_f32s(black_box(1.0)); SUMS];
            for _ in 0..ROUNDS {
                for sum in &mut sums {
                    *sum = simd.mul_add_e_f32s(*sum, a, b);
                }
            }
            black_box(&sums);
            2 * SUMS * ROUNDS * S::F32_LANES
        }
    }
    best(|| Arch::new().dispatch(Loop))
}

/// GFLOP/s of one core in bfloat16 by an instruction set; that of f32 where it has none of its own.
pub fn bf16(isa: Isa) -> f64 {
    #[cfg(target_arch = "x86_64")]
    match isa {
        Isa::Amx if crate::bf16::amx::detected() => return best(tiles),
        // SAFETY: the feature was detected.
        Isa::Avx512 if crate::bf16::avx512::detected() => return best(|| unsafe { dots() }),
        _ => {}
    }
    f32()
}

/// The fastest of some runs of `work`, which returns what it computed.
fn best(mut work: impl FnMut() -> usize) -> f64 {
    let mut most = 0.0f64;
    for _ in 0..TRIES {
        let start = Instant::now();
        let done = work();
        most = most.max(done as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    most
}

/// Four tiles of sums, as many as a product of two by two tiles has.
#[cfg(target_arch = "x86_64")]
fn tiles() -> usize {
    use std::arch::asm;
    let rounds = ROUNDS / 8;
    let palette = crate::bf16::amx::Palette::new();
    // SAFETY: the caller detected the feature; only tile registers are used, and released.
    unsafe {
        asm!(
            "ldtilecfg [{palette}]",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            "tilerelease",
            palette = in(reg) &palette,
            rounds = inout(reg) rounds => _,
            options(nostack),
        );
    }
    rounds * 4 * 2 * 16 * 16 * 32
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dots() -> usize {
    use std::arch::x86_64::*;
    let ones = _mm512_set1_epi32(black_box(0x3f80_3f80));
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            // SAFETY: both are 512 bits.
            *sum = unsafe {
                let ones = std::mem::transmute::<__m512i, __m512bh>(ones);
                _mm512_dpbf16_ps(*sum, ones, ones)
            };
        }
    }
    black_box(&sums);
    2 * SUMS * ROUNDS * 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_runs() {
        assert!(f32() > 0.0);
        assert!(Isa::available().into_iter().all(|isa| bf16(isa) > 0.0));
    }
}
