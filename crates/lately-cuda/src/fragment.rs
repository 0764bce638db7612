//! bfloat16 numbers, and where they lie in a matrix that a warp loads as fragments (see `kernels/prelude.cu`).

/// Rows and columns of a tile.
pub(crate) const TILE: usize = 16;
/// Words of a tile: 16 x 16 numbers, two a word.
pub(crate) const TILE_WORDS: usize = TILE * TILE / 2;

/// The nearest bfloat16, ties to even; infinities stay, and what is no number stays none.
pub(crate) fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Two of them in a word, the first one in its low half.
pub(crate) fn pair(first: f32, second: f32) -> u32 {
    u32::from(bf16(first)) | u32::from(bf16(second)) << 16
}

/// Tiles that hold n rows or columns.
pub(crate) fn tiles(n: usize) -> usize {
    n.div_ceil(TILE)
}

/// A weight, outputs x inputs, as the right factor of `x W^T`: `[outputs / 16][inputs / 16][lane][4]` words, 0 beyond both.
pub(crate) fn right(outputs: usize, inputs: usize, weight: impl Fn(usize, usize) -> f32) -> Vec<u32> {
    let at = |n: usize, k: usize| if n < outputs && k < inputs { weight(n, k) } else { 0.0 };
    let mut words = Vec::with_capacity(tiles(outputs) * tiles(inputs) * TILE_WORDS);
    for n in (0..outputs).step_by(TILE) {
        for k in (0..inputs).step_by(TILE) {
            for lane in 0..32 {
                for word in 0..4 {
                    let n = n + word / 2 * 8 + lane / 4;
                    let k = k + lane % 4 * 2 + word % 2 * 8;
                    words.push(pair(at(n, k), at(n, k + 1)));
                }
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(half: u16) -> f32 {
        f32::from_bits(u32::from(half) << 16)
    }

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        for (x, want) in [
            (1.0, 0x3f80),
            (-2.5, 0xc020),
            (f32::from_bits(0x3f80_8000), 0x3f80), // a tie, down to even
            (f32::from_bits(0x3f81_8000), 0x3f82), // a tie, up to even
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::INFINITY, 0x7f80),
            (0.0, 0),
        ] {
            assert_eq!(bf16(x), want, "{x}");
        }
        assert!(number(bf16(f32::NAN)).is_nan());
        // A number whose payload is in the low half alone stays no number.
        assert!(number(bf16(f32::from_bits(0x7f80_0001))).is_nan());
        for i in 0..1000u32 {
            let x = (i as f32 - 500.0) * 0.37;
            assert!((number(bf16(x)) - x).abs() <= x.abs() / 256.0, "{x}");
        }
    }

    #[test]
    fn a_weight_lies_as_the_instruction_wants_it() {
        // 20 outputs x 18 inputs: two tiles each way.
        let (outputs, inputs) = (20, 18);
        let words = right(outputs, inputs, |n, k| (n * inputs + k) as f32);
        assert_eq!(words.len(), 2 * 2 * TILE_WORDS);
        // By the manual: b0 and b1 of a lane are rows k = 2t, 2t + 1, then 2t + 8, 2t + 9 of column n = lane / 4.
        let at = |n: usize, k: usize| {
            let tile = n / 16 * 2 + k / 16;
            let (n, k) = (n % 16, k % 16);
            let (lane, register) = (n % 8 * 4 + k % 8 / 2, k / 8);
            let word = words[(tile * 32 + lane) * 4 + n / 8 * 2 + register];
            number((if k % 2 == 0 { word } else { word >> 16 }) as u16)
        };
        for n in 0..32 {
            for k in 0..32 {
                let want =
                    if n < outputs && k < inputs { number(bf16((n * inputs + k) as f32)) } else { 0.0 };
                assert_eq!(at(n, k), want, "{n} {k}");
            }
        }
    }
}
