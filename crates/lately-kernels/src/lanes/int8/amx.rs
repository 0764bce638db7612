//! AMX on 8 bits: the rows of tiles of bfloat16 ([`crate::bf16::amx`] has the palette), with whole numbers in them.
#![allow(unsafe_code)] // inline assembly; the bounds are argued at each block

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::super::left::Left;
use super::super::{LANES, SIDE, Shape, Start};
use super::{finish, of_row, scales};
use crate::bf16::amx::{self, Palette};
use crate::simd::wide;

/// Tiles of sums side by side.
const MOST: usize = 3;

/// Whether the machine has AMX on 8 bits and the system lets this process use it.
pub(super) fn detected() -> bool {
    static DETECTED: OnceLock<bool> = OnceLock::new();
    // CPUID 7.0: EDX bit 25 is AMX-INT8.
    *DETECTED.get_or_init(|| amx::detected() && __cpuid_count(7, 0).edx >> 25 & 1 == 1)
}

/// A row of tiles, on cache lines.
#[repr(C, align(64))]
struct Sums([i32; SIDE * SIDE * MOST]);

/// See [`super::super::Format::product`]; the caller has checked the shapes.
pub(super) fn product(s: Shape, left: Left<'_, u32>, right: &[u32], start: Start<'_>, y: &mut [f32]) {
    assert!(detected() && left.step == 1 && left.run == SIDE, "a left factor that is no tiles");
    let (steps, groups) = (left.depth.div_ceil(SIDE), s.rows.div_ceil(SIDE));
    if steps == 0 || groups == 0 {
        return super::portable(s, left, right, start, y);
    }
    // What `check` leaves open: a tile is read whole.
    assert!(right.len() >= (steps * SIDE - 1) * s.stride + s.lanes);
    let last = (groups - 1) * left.group + (steps - 1) * left.jump + (SIDE - 1) * left.row + SIDE;
    assert!(left.data.len() >= last);
    let palette = Palette::new();
    // SAFETY: the feature was detected; the operand is 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &palette, options(nostack)) };
    let mut sums = Sums([0; SIDE * SIDE * MOST]);
    let tiles = s.lanes / LANES;
    for at in (0..tiles).step_by(MOST) {
        let count = (tiles - at).min(MOST);
        for group in 0..groups {
            // SAFETY: asserted above: `steps` tiles of both factors lie within; the sums are a row of tiles.
            unsafe {
                let a = left.data.as_ptr().add(group * left.group);
                let b = right.as_ptr().add(at * LANES);
                row_of_tiles(count, steps, (a, left.row, left.jump), (b, s.stride), &mut sums);
            }
            let lanes = (at * LANES, count * LANES);
            write(s, left, start, group * SIDE, lanes, &sums, scales(right, s.stride), y);
        }
    }
    // SAFETY: ends what `ldtilecfg` began.
    unsafe { asm!("tilerelease", options(nostack)) };
}

/// Scales 16 rows of sums from `row` on and writes them.
fn write(
    s: Shape,
    left: Left<'_, u32>,
    start: Start<'_>,
    row: usize,
    (lane, lanes): (usize, usize),
    sums: &Sums,
    scales: &[u32],
    y: &mut [f32],
) {
    wide(
        #[inline(always)]
        || {
            let rows = sums.0.chunks_exact(SIDE * MOST).take(s.rows - row).enumerate();
            for (i, sums) in rows {
                let of = of_row(&left, row + i, s.rows);
                let y = &mut y[(row + i) * s.out + lane..];
                finish(s, start, (row + i, lane), of, &sums[..lanes], &scales[lane..], y);
            }
        },
    );
}

/// `sums = a b` for `count` tiles side by side; rows and strides in words. Always three products a step: at the edge the
/// last tile stands for the missing ones, whose sums are not used.
///
/// # Safety
/// Tiles are configured; `steps` tiles of `a` (rows `row` apart, tiles `jump` apart) and of `b` (16 rows a step, `stride`
/// apart) can be read.
unsafe fn row_of_tiles(
    count: usize,
    steps: usize,
    (a, row, jump): (*const u32, usize, usize),
    (b, stride): (*const u32, usize),
    sums: &mut Sums,
) {
    let at = |tile: usize| tile.min(count - 1) * LANES;
    // SAFETY: as the caller promises; three tiles of 16 rows are written into `sums`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "2:",
            "tileloadd tmm5, [{a} + {row}]",
            "tileloadd tmm6, [{b} + {stride}]",
            "tileloadd tmm7, [{c} + {stride}]",
            "tileloadd tmm4, [{d} + {stride}]",
            "tdpbsud tmm0, tmm5, tmm6",
            "tdpbsud tmm1, tmm5, tmm7",
            "tdpbsud tmm2, tmm5, tmm4",
            "add {a}, {jump}",
            "add {b}, {down}",
            "add {c}, {down}",
            "add {d}, {down}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {width}], tmm0",
            "tilestored [{out} + {width} + 64], tmm1",
            "tilestored [{out} + {width} + 128], tmm2",
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            c = inout(reg) b.add(at(1)) => _,
            d = inout(reg) b.add(at(2)) => _,
            steps = inout(reg) steps => _,
            row = in(reg) 4 * row,
            jump = in(reg) 4 * jump,
            stride = in(reg) 4 * stride,
            down = in(reg) 4 * SIDE * stride,
            out = in(reg) sums.0.as_mut_ptr(),
            width = in(reg) 4 * SIDE * MOST,
            options(nostack),
        );
    }
}
