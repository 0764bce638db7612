//! AMX: up to five tiles of 16 x 16 sums side by side, a tile of the left factor for all of them.
//!
//! Five lanes of tiles are the 80 of a usual history; the sixth and seventh tile register hold the factors. Two by two tiles would load
//! as many factors a product, and leave every fifth column of tiles half used.
#![allow(unsafe_code)] // inline assembly; the bounds are argued at each block

use std::arch::asm;

use super::super::left::Left;
use super::super::{LANES, SIDE, Shape, Start};
use crate::bf16::amx::{Palette, detected};
use crate::simd::wide;

/// Tiles of sums side by side.
const MOST: usize = 5;

/// See [`super::super::Format::product`]; the caller has checked the shapes.
pub(super) fn product(s: Shape, left: Left<'_, u32>, right: &[u32], start: Start<'_>, y: &mut [f32]) {
    assert!(detected() && left.step == 1 && left.run == SIDE, "a left factor that is no tiles");
    let steps = left.depth.div_ceil(SIDE);
    let groups = s.rows.div_ceil(SIDE);
    // What `check` leaves open: a tile is read whole.
    assert!(groups == 0 || steps == 0 || right.len() >= (steps * SIDE - 1) * s.stride + s.lanes);
    let last =
        |rows: usize| (groups - 1) * left.group + (steps - 1) * left.jump + (rows - 1) * left.row + SIDE;
    assert!(groups == 0 || steps == 0 || left.data.len() >= last(SIDE));
    let palette = Palette::new();
    // SAFETY: the feature was detected; the operand is 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &palette, options(nostack)) };
    let mut sums = Sums([0.0; SIDE * SIDE * MOST]);
    let tiles = s.lanes / LANES;
    // Seven as four and three, not five and two: fewer loads of the left factor's tiles do not pay for a lonely pair.
    let parts = tiles.div_ceil(MOST);
    let mut at = 0;
    for part in 0..parts {
        let count = (tiles - at).div_ceil(parts - part);
        for group in 0..groups {
            let out = &mut y[group * SIDE * s.out + at * LANES..];
            let adds = matches!(start, Start::Add);
            // Sums that something is added to go through 5 KiB that stay in the first cache: to write what they start from
            // into `y`, to load it and to store it again took nearly twice as long as the product.
            let direct = adds || matches!(start, Start::Zero);
            let (c, stride) =
                if direct { (out.as_mut_ptr(), s.out) } else { (sums.0.as_mut_ptr(), SIDE * MOST) };
            // SAFETY: asserted above and by `check`: 16 rows of `y` (or the sums) and `steps` tiles of both factors lie
            // within.
            unsafe {
                let a = left.data.as_ptr().add(group * left.group);
                let b = right.as_ptr().add(at * LANES);
                row_of_tiles(count, steps, adds, (a, left.row, left.jump), (b, s.stride), (c, stride));
            }
            if !direct {
                finish(s, start, group * SIDE, at * LANES, count * LANES, &sums.0, out);
            }
        }
        at += count;
    }
    // SAFETY: ends what `ldtilecfg` began.
    unsafe { asm!("tilerelease", options(nostack)) };
}

/// A row of tiles, on cache lines.
#[repr(C, align(64))]
struct Sums([f32; SIDE * SIDE * MOST]);

/// Adds what the sums of 16 rows from `row` on start from, and writes them to `y`, which begins there.
fn finish(s: Shape, start: Start<'_>, row: usize, lane: usize, lanes: usize, sums: &[f32], y: &mut [f32]) {
    let rows = (s.rows - row).min(SIDE);
    wide(
        #[inline(always)]
        || {
            let sums = sums.chunks_exact(SIDE * MOST).take(rows);
            for (i, (sums, y)) in sums.zip(y.chunks_mut(s.out)).enumerate() {
                let (sums, y) = (&sums[..lanes], &mut y[..lanes]);
                match start {
                    Start::Residual(x, bias) => {
                        let x = &x[(row + i) * s.out + lane..][..lanes];
                        let bias = bias[row + i];
                        for ((y, sum), x) in y.iter_mut().zip(sums).zip(x) {
                            *y = *sum + *x + bias;
                        }
                    }
                    Start::Bias(bias) => {
                        let bias = bias[row + i];
                        for (y, sum) in y.iter_mut().zip(sums) {
                            *y = *sum + bias;
                        }
                    }
                    Start::Zero | Start::Add => {}
                }
            }
        },
    );
}

/// `c = [c +] a b` for `count` tiles side by side; rows and strides in words.
///
/// # Safety
/// Tiles are configured; `steps` tiles of `a` (rows `row` apart, tiles `jump` apart) and of `b` (16 rows a step, `stride`
/// apart), and 16 rows of `count` tiles of `c` can be read, `c` also written.
unsafe fn row_of_tiles(
    count: usize,
    steps: usize,
    adds: bool,
    a: (*const u32, usize, usize),
    b: (*const u32, usize),
    c: (*mut f32, usize),
) {
    let run = match count {
        1 => one,
        2 => two,
        3 => three,
        4 => four,
        _ => five,
    };
    // SAFETY: as the caller promises.
    unsafe { run(steps, adds, a, b, c) }
}

/// One width of [`row_of_tiles`]: what loads its sums, what multiplies in a step, what stores them. Tiles 0 to 4 are the sums, 5
/// is of the left factor, 6 and 7 of the right one, loaded while the other is multiplied.
macro_rules! width {
    ($name:ident, [$($load:literal),*], [$($multiply:literal),*], [$($store:literal),*]) => {
        unsafe fn $name(
            steps: usize,
            adds: bool,
            (a, row, jump): (*const u32, usize, usize),
            (b, stride): (*const u32, usize),
            (c, out): (*mut f32, usize),
        ) {
            // SAFETY: as the caller promises; nothing but `c` is written.
            unsafe {
                asm!(
                    "test {adds}, {adds}",
                    "jz 4f",
                    $($load,)*
                    "jmp 5f",
                    "4:",
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", "tilezero tmm4",
                    "5:",
                    "test {steps}, {steps}",
                    "jz 3f",
                    "2:",
                    "tileloadd tmm5, [{a} + {row}]",
                    $($multiply,)*
                    "add {a}, {jump}",
                    "add {b}, {down}",
                    "dec {steps}",
                    "jnz 2b",
                    "3:",
                    $($store,)*
                    a = inout(reg) a => _,
                    b = inout(reg) b => _,
                    steps = inout(reg) steps => _,
                    adds = in(reg) usize::from(adds),
                    row = in(reg) 4 * row,
                    jump = in(reg) 4 * jump,
                    stride = in(reg) 4 * stride,
                    down = in(reg) 4 * SIDE * stride,
                    c = in(reg) c,
                    out = in(reg) 4 * out,
                    options(nostack),
                );
            }
        }
    };
}

width!(
    one,
    ["tileloadd tmm0, [{c} + {out}]"],
    ["tileloadd tmm6, [{b} + {stride}]", "tdpbf16ps tmm0, tmm5, tmm6"],
    ["tilestored [{c} + {out}], tmm0"]
);
width!(
    two,
    ["tileloadd tmm0, [{c} + {out}]", "tileloadd tmm1, [{c} + {out} + 64]"],
    [
        "tileloadd tmm6, [{b} + {stride}]",
        "tileloadd tmm7, [{b} + {stride} + 64]",
        "tdpbf16ps tmm0, tmm5, tmm6",
        "tdpbf16ps tmm1, tmm5, tmm7"
    ],
    ["tilestored [{c} + {out}], tmm0", "tilestored [{c} + {out} + 64], tmm1"]
);
width!(
    three,
    [
        "tileloadd tmm0, [{c} + {out}]",
        "tileloadd tmm1, [{c} + {out} + 64]",
        "tileloadd tmm2, [{c} + {out} + 128]"
    ],
    [
        "tileloadd tmm6, [{b} + {stride}]",
        "tileloadd tmm7, [{b} + {stride} + 64]",
        "tdpbf16ps tmm0, tmm5, tmm6",
        "tileloadd tmm6, [{b} + {stride} + 128]",
        "tdpbf16ps tmm1, tmm5, tmm7",
        "tdpbf16ps tmm2, tmm5, tmm6"
    ],
    [
        "tilestored [{c} + {out}], tmm0",
        "tilestored [{c} + {out} + 64], tmm1",
        "tilestored [{c} + {out} + 128], tmm2"
    ]
);
width!(
    four,
    [
        "tileloadd tmm0, [{c} + {out}]",
        "tileloadd tmm1, [{c} + {out} + 64]",
        "tileloadd tmm2, [{c} + {out} + 128]",
        "tileloadd tmm3, [{c} + {out} + 192]"
    ],
    [
        "tileloadd tmm6, [{b} + {stride}]",
        "tileloadd tmm7, [{b} + {stride} + 64]",
        "tdpbf16ps tmm0, tmm5, tmm6",
        "tileloadd tmm6, [{b} + {stride} + 128]",
        "tdpbf16ps tmm1, tmm5, tmm7",
        "tileloadd tmm7, [{b} + {stride} + 192]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tdpbf16ps tmm3, tmm5, tmm7"
    ],
    [
        "tilestored [{c} + {out}], tmm0",
        "tilestored [{c} + {out} + 64], tmm1",
        "tilestored [{c} + {out} + 128], tmm2",
        "tilestored [{c} + {out} + 192], tmm3"
    ]
);
width!(
    five,
    [
        "tileloadd tmm0, [{c} + {out}]",
        "tileloadd tmm1, [{c} + {out} + 64]",
        "tileloadd tmm2, [{c} + {out} + 128]",
        "tileloadd tmm3, [{c} + {out} + 192]",
        "tileloadd tmm4, [{c} + {out} + 256]"
    ],
    [
        "tileloadd tmm6, [{b} + {stride}]",
        "tileloadd tmm7, [{b} + {stride} + 64]",
        "tdpbf16ps tmm0, tmm5, tmm6",
        "tileloadd tmm6, [{b} + {stride} + 128]",
        "tdpbf16ps tmm1, tmm5, tmm7",
        "tileloadd tmm7, [{b} + {stride} + 192]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tileloadd tmm6, [{b} + {stride} + 256]",
        "tdpbf16ps tmm3, tmm5, tmm7",
        "tdpbf16ps tmm4, tmm5, tmm6"
    ],
    [
        "tilestored [{c} + {out}], tmm0",
        "tilestored [{c} + {out} + 64], tmm1",
        "tilestored [{c} + {out} + 128], tmm2",
        "tilestored [{c} + {out} + 192], tmm3",
        "tilestored [{c} + {out} + 256], tmm4"
    ]
);
