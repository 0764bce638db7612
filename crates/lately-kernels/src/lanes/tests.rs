//! Every format and instruction set of this machine against the references.

use super::*;
use crate::bf16::Isa;
use crate::bf16::scalar::rounded;
use crate::bf16::tests::numbers;

fn near(got: &[f32], want: &[f32], bound: f32, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= bound * (1.0 + w.abs()), "{what}: {g} is not {w} at {i}");
    }
}

/// Rows, depth, lanes, of usual sizes and around every edge.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 16),
    (96, 32, 80),
    (32, 96, 112),
    (7, 33, 48),
    (17, 31, 64),
    (75, 96, 16),
    (5, 300, 96),
    (16, 16, 128),
    (40, 64, 32),
];

/// A weight, keys and values by one format.
fn products<F: Activations>(format: F, round: impl Fn(f32) -> f32 + Copy) {
    for (i, (rows, depth, lanes)) in SHAPES.into_iter().enumerate() {
        let (stride, out) = (lanes + 16 * (i % 2), lanes + 16 * (i % 3));
        let s = Shape { rows, lanes, stride, out };
        let bound = 2e-6 * (depth as f32).sqrt();
        let (x, bias) = (numbers(depth * stride, 1), numbers(rows, 2));
        let start_of = numbers(rows.next_multiple_of(16) * out, 3);
        let residual = numbers(rows * out, 4);
        let starts = [Start::Zero, Start::Bias(&bias), Start::Residual(&residual, &bias), Start::Add];
        let mut buffer = Buffer::default();
        let right = format.right(depth, stride, &x, &mut buffer);
        let compare = |left: Left<'_, F::Word>, view: View<'_, f32>, what: &str| {
            for start in starts {
                let (mut got, mut want) = (start_of.clone(), start_of.clone());
                format.product(s, left, right, start, &mut got);
                scalar::product(s, depth, round, view, &x, start, &mut want);
                for row in 0..rows {
                    let at = row * out..row * out + lanes;
                    near(&got[at.clone()], &want[at], bound, &format!("{format:?} {what} {s:?} {start:?}"));
                }
            }
        };
        let w = numbers(rows * (depth + 3), 5);
        let packed = format.pack(rows, depth, View::rows(&w, depth + 3));
        compare(packed.all(), View::rows(&w, depth + 3), "weight");

        let wide = rows.next_multiple_of(16);
        let keys = numbers(depth * wide, 6);
        let (mut words, mut memory) = (Buffer::default(), Buffer::default());
        let key_words = format.right(depth, wide, &keys, &mut words);
        let left = format.keys(rows, depth, wide, key_words, &mut memory);
        compare(left, View::rows(&keys, wide).t(), "keys");

        let wide = depth.next_multiple_of(16);
        let mut values = numbers(rows * wide, 7);
        // Lanes past the depth meet words of 0.
        values.chunks_mut(wide).for_each(|v| v[depth..].fill(3.0));
        let left = format.values(rows, depth, wide, &values, &mut memory);
        compare(left, View::rows(&values, wide), "values");
    }
}

#[test]
fn products_agree_with_the_reference() {
    products(F32, |x| x);
    for isa in Isa::available() {
        products(Bf16::with(isa).unwrap(), |x| f32::from_bits(rounded(x)));
    }
}

/// In f32 by every width of vectors that this machine has: the widest is not the only one that runs somewhere.
#[test]
fn narrower_vectors_give_the_same() {
    use pulp::Simd;
    for (rows, depth, lanes) in SHAPES {
        let s = Shape { rows, lanes, stride: lanes, out: lanes };
        let (w, x, bias) = (numbers(rows * depth, 1), numbers(depth * lanes, 2), numbers(rows, 3));
        let packed = F32.pack(rows, depth, View::rows(&w, depth));
        let mut want = vec![0.0; rows.next_multiple_of(16) * lanes];
        scalar::product(s, depth, |x| x, View::rows(&w, depth), &x, Start::Bias(&bias), &mut want);
        let check = |run: &mut dyn FnMut(exact::Product<'_>), name: &str| {
            let mut y = vec![0.0; want.len()];
            run(exact::Product { s, left: packed.all(), right: &x, start: Start::Bias(&bias), y: &mut y });
            near(&y[..rows * lanes], &want[..rows * lanes], 2e-6 * (depth as f32).sqrt(), name);
        };
        check(&mut |product| Simd::vectorize(pulp::Scalar::new(), product), "no vectors");
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            check(&mut |product| Simd::vectorize(simd, product), "AVX2");
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V4::try_new() {
            check(&mut |product| Simd::vectorize(simd, product), "AVX-512");
        }
    }
}

/// Against exact sums of the rounded factors, in one part and in two.
#[test]
fn products_of_whole_numbers_are_those_of_the_rounded_factors() {
    for (i, (rows, depth, lanes)) in SHAPES.into_iter().enumerate() {
        let (stride, out) = (lanes, lanes + 16 * (i % 3));
        let s = Shape { rows, lanes, stride, out };
        let (w, x, bias) = (numbers(rows * depth, 1), numbers(depth * stride, 2), numbers(rows, 3));
        let residual = numbers(rows * out, 4);
        let start_of = numbers(rows.next_multiple_of(16) * out, 5);
        let rounded = |values: &mut dyn Iterator<Item = f32>| -> Vec<f32> {
            let values: Vec<f32> = values.collect();
            let (worth, rate) = int8::scale(values.iter().fold(0.0f32, |m, x| m.max(x.abs())));
            values.iter().map(|x| (x * rate).round_ties_even() * worth).collect()
        };
        let w_rounded: Vec<f32> = w.chunks(depth).flat_map(|row| rounded(&mut row.iter().copied())).collect();
        let lanes_rounded: Vec<Vec<f32>> =
            (0..lanes).map(|l| rounded(&mut (0..depth).map(|k| x[k * stride + l]))).collect();
        let x_rounded: Vec<f32> =
            (0..depth).flat_map(|k| lanes_rounded.iter().map(move |lane| lane[k])).collect();
        for isa in Int8Isa::available() {
            let format = Int8::with(isa).unwrap();
            let packed = format.pack(rows, depth, View::rows(&w, depth));
            let mut buffer = Buffer::default();
            let right = format.right(depth, stride, &x, &mut buffer);
            for start in [Start::Zero, Start::Bias(&bias), Start::Residual(&residual, &bias), Start::Add] {
                let (mut got, mut want) = (start_of.clone(), start_of.clone());
                let first = packed.blocks().min(2);
                format.product(s, packed.part(0, first), right, start, &mut got);
                let rest = &right[first * 16 * stride..];
                format.product(s, packed.part(first, packed.blocks()), rest, Start::Add, &mut got);
                let view = View::rows(&w_rounded, depth);
                scalar::product(s, depth, |x| x, view, &x_rounded, start, &mut want);
                for row in 0..rows {
                    let at = row * out..row * out + lanes;
                    near(&got[at.clone()], &want[at], 2e-5, &format!("{isa:?} {s:?} {start:?}"));
                }
            }
        }
    }
}

/// By parts of the contracted dimension, and for some lanes alone, the very same bits.
#[test]
fn a_lane_has_the_same_bits_in_any_company() {
    fn check<F: Format>(format: F) {
        let (rows, depth, lanes) = (40, 150, 112);
        let (w, x) = (numbers(rows * depth, 1), numbers(depth * lanes, 2));
        let bias = numbers(rows, 3);
        let packed = format.pack(rows, depth, View::rows(&w, depth));
        let mut buffer = Buffer::default();
        let run = |lanes: usize, from: usize, buffer: &mut Buffer<F::Word>| {
            let x: Vec<f32> = x.chunks(112).flat_map(|row| row[from..from + lanes].iter().copied()).collect();
            let s = Shape { rows, lanes, stride: lanes, out: lanes };
            let right = format.right(depth, lanes, &x, buffer);
            let mut y = vec![0.0; 48 * lanes];
            format.product(s, packed.all(), right, Start::Bias(&bias), &mut y);
            y
        };
        let all = run(lanes, 0, &mut buffer);
        for (count, from) in [(16, 0), (32, 16), (48, 64), (64, 48), (80, 16)] {
            let some = run(count, from, &mut buffer);
            for row in 0..rows {
                let want = &all[row * lanes + from..][..count];
                assert_eq!(&some[row * count..][..count], want, "{format:?} {count} from {from}");
            }
        }
    }
    check(F32);
    Isa::available().into_iter().for_each(|isa| check(Bf16::with(isa).unwrap()));
    Int8Isa::available().into_iter().for_each(|isa| check(Int8::with(isa).unwrap()));
}

#[test]
fn norms_and_probabilities_agree_with_the_references() {
    for (n, lanes) in [(1, 16), (5, 16), (46, 48), (80, 80), (100, 112)] {
        let stride = lanes + 16;
        let start = numbers(n * stride, 1);
        let (gamma, beta) = (numbers(n, 2), numbers(n, 3));
        let (mut got, mut want) = (start.clone(), start.clone());
        norm(lanes, stride, &gamma, &beta, &mut got);
        scalar::norm(lanes, stride, &gamma, &beta, &mut want);
        near(&got, &want, 2e-5, "norm");

        let all: Vec<bool> = vec![true; n];
        let some: Vec<bool> = (0..n).map(|i| i % 3 == 1).collect();
        for masked in [&[][..], &some, &all] {
            let (mut got, mut want) = (start.clone(), start.clone());
            softmax(n, lanes, stride, masked, &mut got);
            scalar::softmax(n, lanes, stride, masked, &mut want);
            near(&got, &want, 1e-6, "softmax");

            // The shared form, and the plain one of the same logits.
            let own = numbers(n, 4);
            let mut shared = vec![0.0; n * stride];
            exponentials(n, lanes, stride, masked, &start, &mut shared);
            let top = own.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let own_exponentials: Vec<f32> = own.iter().map(|x| (x - top).exp()).collect();
            let (mut got, mut want) = (vec![0.0; n * stride], vec![0.0; n * stride]);
            assert!(combine(n, lanes, stride, masked, &shared, &own_exponentials, &mut got));
            plain(n, lanes, stride, masked, &start, &own, &mut want);
            near(&got, &want, 1e-6, "combine");
        }
    }
}

/// See the test of the same name of [`crate::shared`].
#[test]
fn maxima_that_lie_far_apart_are_not_trusted() {
    let (mut shared, mut out) = (vec![0.0; 32], vec![0.0; 32]);
    let logits: Vec<f32> = [100.0, 0.0].iter().flat_map(|x| [*x; 16]).collect();
    exponentials(2, 16, 16, &[], &logits, &mut shared);
    let own = [(0.0f32 - 101.0).exp(), 1.0];
    assert!(!combine(2, 2, 16, &[], &shared, &own, &mut out));
    plain(2, 16, 16, &[], &logits, &[0.0, 101.0], &mut out);
    assert!((out[0] - 0.2689).abs() < 1e-3 && (out[16] - 0.7311).abs() < 1e-3, "{out:?}");
}

#[test]
fn rows_become_lanes_and_come_back() {
    for (rows, width) in [(1usize, 1usize), (16, 16), (35, 20), (7, 96)] {
        let (from, stride) = (width + 3, rows.next_multiple_of(16) + 16);
        let x = numbers(rows * from, 1);
        let mut lanes = vec![9.0; width * stride];
        from_rows(rows, width, from, &x, stride, &mut lanes);
        for f in 0..width {
            for r in 0..rows.next_multiple_of(16) {
                let want = if r < rows { x[r * from + f] } else { 0.0 };
                assert_eq!(lanes[f * stride + r], want);
            }
        }
        let mut back = vec![0.0; rows * from];
        to_rows(rows, width, stride, &lanes, from, &mut back);
        for r in 0..rows {
            assert_eq!(back[r * from..][..width], x[r * from..][..width]);
        }
        let mut most = vec![0.0; width];
        largest(rows, stride, &lanes, &mut most);
        let of = |f: usize| (0..rows).map(|r| x[r * from + f]).fold(f32::NEG_INFINITY, f32::max);
        assert!((0..width).all(|f| most[f] == of(f)));
    }
}
