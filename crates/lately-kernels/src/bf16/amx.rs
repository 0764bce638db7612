//! Packed factors by AMX tiles: 2 x 2 tiles of 16 x 16 sums, two tiles of each factor a step.
//!
//! The intrinsics are not stable in Rust, so the seven instructions are written as assembly. The compiler never uses tile
//! registers itself; they are configured and released within one call.
#![allow(unsafe_code)] // inline assembly; the bounds are argued at each block

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _mm512_loadu_ps};
use std::sync::OnceLock;

use super::avx512::put;
use super::pack::{BLOCK, LANES, Out};

/// Side of the square of sums that one step makes.
const SIDE: usize = 2 * LANES;

/// Blocks along the contracted dimension that are gone through at a time, so that those of two columns of blocks, 64 KiB,
/// stay near while all rows pass. (From 16 to 512 a training step took the same within 2 %.) Split factors have two blocks a
/// step.
const STRETCH: usize = 32;

/// Whether the machine has AMX and the system lets this process use it.
pub(crate) fn detected() -> bool {
    static DETECTED: OnceLock<bool> = OnceLock::new();
    *DETECTED.get_or_init(|| {
        // CPUID 7.0: EDX bit 22 is AMX-BF16, 24 is AMX-TILE.
        let bits = __cpuid_count(7, 0).edx;
        bits >> 22 & 1 == 1 && bits >> 24 & 1 == 1 && permitted()
    })
}

/// Linux saves the 8 KiB of tiles only for processes that ask.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let mut result: i64 = 158; // arch_prctl
    // SAFETY: a system call that takes two numbers and touches no memory; it clobbers rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Palette 1: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
pub(crate) struct Palette([u8; 64]);

impl Palette {
    pub(crate) fn new() -> Self {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        for tile in 0..8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = 16;
        }
        Self(bytes)
    }
}

/// `out = [out +] left right`, both packed, of so many steps along the contracted dimension.
pub(super) fn multiply(split: bool, steps: usize, left: &[u32], right: &[u32], mut out: Out<'_>) {
    let (rows, columns) = (out.m.div_ceil(LANES), out.n.div_ceil(LANES));
    let parts = if split { 2 } else { 1 };
    let line = steps * parts * BLOCK;
    assert!(detected() && left.len() == rows * line && right.len() == columns * line);
    let palette = Palette::new();
    // SAFETY: the feature was detected; the operand is 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &palette, options(nostack)) };
    let mut edge = [0f32; SIDE * SIDE];
    for from in (0..steps).step_by(STRETCH / parts) {
        let count = (steps - from).min(STRETCH / parts);
        for j in (0..columns).step_by(2) {
            for i in (0..rows).step_by(2) {
                // At an odd edge the last block stands twice; its second sums are not used.
                let at = |x: usize, count: usize| x.min(count - 1) * line + from * parts * BLOCK;
                let a = (&left[at(i, rows)..], &left[at(i + 1, rows)..]);
                let b = (&right[at(j, columns)..], &right[at(j + 1, columns)..]);
                square(split, count, a, b, (i * LANES, j * LANES), &mut out, &mut edge);
            }
        }
        out.accumulate = true;
    }
    // SAFETY: ends what `ldtilecfg` began.
    unsafe { asm!("tilerelease", options(nostack)) };
}

/// The sums of two blocks of rows from `row` on and two of columns from `column` on.
fn square(
    split: bool,
    steps: usize,
    a: (&[u32], &[u32]),
    b: (&[u32], &[u32]),
    (row, column): (usize, usize),
    out: &mut Out<'_>,
    edge: &mut [f32; SIDE * SIDE],
) {
    let need = steps * BLOCK * if split { 2 } else { 1 };
    assert!(a.0.len() >= need && a.1.len() >= need && b.0.len() >= need && b.1.len() >= need);
    let whole = row + SIDE <= out.m && column + SIDE <= out.n;
    let (target, stride) = if whole {
        let last = (row + SIDE - 1) * out.stride + column + SIDE;
        assert!(last <= out.data.len());
        // SAFETY: in bounds by the assertion.
        (unsafe { out.data.as_mut_ptr().add(row * out.stride + column) }, out.stride)
    } else {
        (edge.as_mut_ptr(), SIDE)
    };
    if whole && out.accumulate {
        // SAFETY: loads the 32 rows of 32 floats that the stores below write.
        unsafe {
            asm!(
                "tileloadd tmm0, [{c} + {row}]",
                "tileloadd tmm1, [{c} + {row} + 64]",
                "tileloadd tmm2, [{d} + {row}]",
                "tileloadd tmm3, [{d} + {row} + 64]",
                c = in(reg) target,
                d = in(reg) target.wrapping_add(LANES * stride),
                row = in(reg) 4 * stride,
                options(nostack),
            );
        }
    } else {
        // SAFETY: clears four tiles.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack));
        }
    }
    // SAFETY: each factor has so many blocks of 1 KiB, as the assertion says.
    unsafe { if split { split_steps(steps, a, b) } else { plain_steps(steps, a, b) } }
    // SAFETY: the four stores write 32 rows of 32 floats at `stride`, which lie within `target`.
    unsafe {
        asm!(
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 64], tmm1",
            "tilestored [{d} + {row}], tmm2",
            "tilestored [{d} + {row} + 64], tmm3",
            c = in(reg) target,
            d = in(reg) target.wrapping_add(LANES * stride),
            row = in(reg) 4 * stride,
            options(nostack),
        );
    }
    if !whole {
        spread(edge, row, column, out);
    }
}

/// Adds the products of `steps` blocks to the four sums.
///
/// # Safety
/// The tiles are configured, and each factor has its blocks, of 16 rows of 64 bytes one after another.
unsafe fn plain_steps(steps: usize, a: (&[u32], &[u32]), b: (&[u32], &[u32])) {
    // SAFETY: reads what the caller promises, and nothing else of memory.
    unsafe {
        asm!(
            "2:",
            "tileloadd tmm4, [{a0} + {line}]",
            "tileloadd tmm6, [{b0} + {line}]",
            "tileloadd tmm5, [{a1} + {line}]",
            "tileloadd tmm7, [{b1} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {count}",
            "jnz 2b",
            a0 = inout(reg) a.0.as_ptr() => _,
            a1 = inout(reg) a.1.as_ptr() => _,
            b0 = inout(reg) b.0.as_ptr() => _,
            b1 = inout(reg) b.1.as_ptr() => _,
            count = inout(reg) steps => _,
            line = in(reg) 64usize,
            options(nostack),
        );
    }
}

/// The same of split factors, two blocks a step: high high, high low, low high.
///
/// # Safety
/// The tiles are configured, and each factor has its blocks, of 16 rows of 64 bytes one after another.
unsafe fn split_steps(steps: usize, a: (&[u32], &[u32]), b: (&[u32], &[u32])) {
    // SAFETY: reads what the caller promises, and nothing else of memory.
    unsafe {
        asm!(
            "2:",
            "tileloadd tmm4, [{a0} + {line}]",
            "tileloadd tmm6, [{b0} + {line}]",
            "tileloadd tmm5, [{a1} + {line}]",
            "tileloadd tmm7, [{b1} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{b0} + {line} + 1024]",
            "tileloadd tmm7, [{b1} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a0} + {line} + 1024]",
            "tileloadd tmm6, [{b0} + {line}]",
            "tileloadd tmm5, [{a1} + {line} + 1024]",
            "tileloadd tmm7, [{b1} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 2048",
            "add {a1}, 2048",
            "add {b0}, 2048",
            "add {b1}, 2048",
            "dec {count}",
            "jnz 2b",
            a0 = inout(reg) a.0.as_ptr() => _,
            a1 = inout(reg) a.1.as_ptr() => _,
            b0 = inout(reg) b.0.as_ptr() => _,
            b1 = inout(reg) b.1.as_ptr() => _,
            count = inout(reg) steps => _,
            line = in(reg) 64usize,
            options(nostack),
        );
    }
}

/// Writes or adds what of a square of sums lies within the output.
fn spread(edge: &[f32; SIDE * SIDE], row: usize, column: usize, out: &mut Out<'_>) {
    for (i, line) in edge.chunks_exact(SIDE).enumerate().take(out.m - row) {
        for (at, part) in (column..out.n).step_by(LANES).zip(line.chunks_exact(LANES)) {
            let count = (out.n - at).min(LANES);
            let to = &mut out.data[(row + i) * out.stride + at..][..count];
            // SAFETY: `part` has 16 floats; AVX-512 is there wherever AMX is.
            unsafe { put(_mm512_loadu_ps(part.as_ptr()), to, out.accumulate) };
        }
    }
}
