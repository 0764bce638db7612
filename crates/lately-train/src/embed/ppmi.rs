//! Vectors from the order in which people met items: truncated SVD of the shifted positive PMI matrix.
//!
//! Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization" (2014), with the context-distribution
//! smoothing and the symmetric U sqrt(S) of Levy, Goldberg and Dagan (2015).

use super::sparse::Sparse;
use super::svd::truncated;
use super::{EmbedOptions, frequent, rescale};

/// Vectors of `items` items, items x dim, row-major, from sequences of item numbers in order of time (each below
/// `items`; larger ones are skipped). Scaled as a whole so that the root mean square length of the non-zero rows is
/// 1. An item that is too rare has zeros, as has everything where nothing occurs together.
pub fn ppmi_svd(sequences: &[Vec<u32>], items: usize, options: &EmbedOptions) -> Vec<f32> {
    let matrix = ppmi(&pairs(sequences, items, options), items, options);
    let dim = options.dim;
    let mut out = vec![0f32; items * dim];
    let svd = truncated(&matrix, dim, options.iterations, options.seed);
    // What occurs with none keeps its zeros; its rows of the SVD hold rounding noise.
    for item in (0..items).filter(|item| matrix.row(*item).len() > 0) {
        for (column, value) in svd.values.iter().enumerate() {
            out[item * dim + column] = (svd.left[item * dim + column] * value.sqrt()) as f32;
        }
    }
    rescale(&mut out, dim);
    out
}

/// (smaller item, larger item, count), sorted.
fn pairs(sequences: &[Vec<u32>], items: usize, options: &EmbedOptions) -> Vec<(u32, u32, f64)> {
    let mut all = Vec::<u64>::new();
    for kept in frequent(sequences, items, options.min_count) {
        for (at, a) in kept.iter().enumerate() {
            for b in kept[at + 1..].iter().take(options.window).filter(|b| *b != a) {
                all.push(u64::from(*a.min(b)) << 32 | u64::from(*a.max(b)));
            }
        }
    }
    all.sort_unstable();
    let runs = all.chunk_by(|a, b| a == b);
    runs.map(|run| ((run[0] >> 32) as u32, run[0] as u32, run.len() as f64)).collect()
}

/// max(0, ln(P(a,b) / (P(a) P_smooth(b))) - shift) of each pair and both directions.
fn ppmi(pairs: &[(u32, u32, f64)], items: usize, options: &EmbedOptions) -> Sparse {
    let mut sums = vec![0f64; items];
    for (a, b, n) in pairs {
        sums[*a as usize] += n;
        sums[*b as usize] += n;
    }
    let smooth: Vec<f64> = sums.iter().map(|n| n.powf(options.smoothing)).collect();
    let total: f64 = smooth.iter().sum();
    let mut entries = Vec::with_capacity(2 * pairs.len());
    for (a, b, n) in pairs {
        for (word, context) in [(*a, *b), (*b, *a)] {
            let pmi = (n * total / (sums[word as usize] * smooth[context as usize])).ln() - options.shift;
            if pmi > 0.0 {
                entries.push((word, context, pmi));
            }
        }
    }
    Sparse::build(entries, items, items)
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;

    use super::super::tests::{near_and_far, planted};
    use super::*;

    #[test]
    fn items_of_one_group_stand_together() {
        let options = EmbedOptions { dim: 8, ..EmbedOptions::default() };
        let vectors = ppmi_svd(&planted(), 41, &options);
        let (inside, across) = near_and_far(&vectors, 8);
        assert!(inside > across + 0.4, "{inside} against {across}");
        assert!(vectors[40 * 8..].iter().all(|x| *x == 0.0), "an item without history has zeros");
        let squares: f64 = vectors.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((squares / 40.0 - 1.0).abs() < 1e-5);
        assert_eq!(vectors, ppmi_svd(&planted(), 41, &options), "the same seed gives the same vectors");
    }

    #[test]
    fn the_vectors_are_those_of_the_dense_matrix() {
        let options = EmbedOptions { dim: 6, iterations: 8, ..EmbedOptions::default() };
        let matrix = ppmi(&pairs(&planted(), 40, &options), 40, &options);
        let mut dense = DMatrix::<f64>::zeros(40, 40);
        for row in 0..40 {
            matrix.row(row).for_each(|(column, value)| dense[(row, column)] = value);
        }
        let svd = dense.svd(true, false);
        let u = svd.u.unwrap();
        let got = ppmi_svd(&planted(), 40, &options);
        // The products of rows do not depend on the signs of the columns.
        let want = |a: usize, b: usize| -> f64 {
            (0..6).map(|k| u[(a, k)] * u[(b, k)] * svd.singular_values[k]).sum()
        };
        let scale = 40.0 / (0..40).map(|a| want(a, a)).sum::<f64>();
        for (a, b) in [(0, 1), (0, 0), (7, 33), (20, 25)] {
            let dot: f64 = (0..6).map(|k| f64::from(got[a * 6 + k] * got[b * 6 + k])).sum();
            assert!((dot - want(a, b) * scale).abs() < 1e-3, "{a} {b}: {dot} {}", want(a, b) * scale);
        }
    }

    #[test]
    fn nothing_together_gives_zeros() {
        assert_eq!(
            ppmi_svd(&[vec![0], vec![1, 9]], 2, &EmbedOptions { dim: 2, ..Default::default() }),
            [0.0; 4]
        );
    }
}
