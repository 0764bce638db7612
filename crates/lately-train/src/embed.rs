//! Item vectors from the order in which people met items: truncated SVD of the shifted positive PMI matrix.
//!
//! Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization" (2014), with the context-distribution
//! smoothing and the symmetric U sqrt(S) of Levy, Goldberg and Dagan (2015). The SVD is the randomised subspace
//! iteration of Halko, Martinsson and Tropp (2011), so that nothing dense of the size items x items exists.

use nalgebra::{DMatrix, SymmetricEigen};

use crate::random::Random;

/// How to make the vectors.
#[derive(Debug, Clone)]
pub struct EmbedOptions {
    /// Length of a vector. Default 32.
    pub dim: usize,
    /// Items at most this many steps apart in a user's history occur together. Default 10.
    pub window: usize,
    /// Exponent of the context's frequency; below 1 it tempers the bias of PMI towards rare items. Default 0.75.
    pub smoothing: f64,
    /// ln of the number of negative samples that the shift stands for. Default 0: no shift.
    pub shift: f64,
    /// An item must occur this often to have a vector; others get zeros. Default 3.
    pub min_count: u32,
    /// Power iterations of the SVD. Default 4.
    pub iterations: usize,
    /// Seed of the start.
    pub seed: u64,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self { dim: 32, window: 10, smoothing: 0.75, shift: 0.0, min_count: 3, iterations: 4, seed: 1 }
    }
}

/// Extra columns of the random start (Halko et al. advise 5 to 10).
const OVERSAMPLE: usize = 10;

/// Vectors of `items` items, items x dim, row-major, from sequences of item numbers in order of time (each below
/// `items`; larger ones are skipped). Scaled as a whole so that the root mean square length of the non-zero rows is
/// 1. An item that is too rare has zeros, as has everything where nothing occurs together.
pub fn ppmi_svd(sequences: &[Vec<u32>], items: usize, options: &EmbedOptions) -> Vec<f32> {
    let matrix = ppmi(&pairs(sequences, items, options), items, options);
    let mut out = vec![0f32; items * options.dim];
    if matrix.columns.is_empty() || options.dim == 0 {
        return out;
    }
    let rank = (options.dim + OVERSAMPLE).min(items);
    let mut random = Random::of(options.seed, &[]);
    // Blocks are items x rank and row-major: a sparse product then streams over whole rows.
    let mut block: Vec<f64> = (0..items * rank).map(|_| random.normal()).collect();
    let transposed = matrix.transposed(items);
    block = matrix.times(&block, rank);
    for _ in 0..options.iterations {
        orthonormal(&mut block, rank);
        block = transposed.times(&block, rank);
        orthonormal(&mut block, rank);
        block = matrix.times(&block, rank);
    }
    orthonormal(&mut block, rank);
    // M ~ Q (Q^T M); with W = M^T Q, W^T W = Q^T M M^T Q has the squared singular values and rotates Q to U.
    let w = transposed.times(&block, rank);
    let eigen = SymmetricEigen::new(gram(&w, rank));
    let mut order: Vec<usize> = (0..rank).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    for (column, at) in order.iter().take(options.dim).enumerate() {
        let root = eigen.eigenvalues[*at].max(0.0).sqrt().sqrt(); // sqrt of the singular value
        let turn: Vec<f64> = (0..rank).map(|j| eigen.eigenvectors[(j, *at)]).collect();
        for (item, row) in block.chunks_exact(rank).enumerate() {
            let u: f64 = row.iter().zip(&turn).map(|(q, t)| q * t).sum();
            out[item * options.dim + column] = (u * root) as f32;
        }
    }
    for (item, row) in out.chunks_exact_mut(options.dim).enumerate() {
        if matrix.starts[item] == matrix.starts[item + 1] {
            row.fill(0.0); // rounding noise of items that occur with none
        }
    }
    rescale(&mut out, options.dim);
    out
}

/// (smaller item, larger item, count), sorted.
fn pairs(sequences: &[Vec<u32>], items: usize, options: &EmbedOptions) -> Vec<(u32, u32, f64)> {
    let mut counts = vec![0u32; items];
    for item in sequences.iter().flatten().filter(|i| (**i as usize) < items) {
        counts[*item as usize] += 1;
    }
    let frequent = |item: &&u32| counts.get(**item as usize).is_some_and(|n| *n >= options.min_count);
    let mut all = Vec::<u64>::new();
    for sequence in sequences {
        // Rare items are taken out before the window is laid, so that it reaches over them.
        let kept: Vec<u32> = sequence.iter().filter(frequent).copied().collect();
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

/// Rows of (column, value), compressed.
struct Sparse {
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f64>,
}

impl Sparse {
    fn build(mut entries: Vec<(u32, u32, f64)>, rows: usize) -> Self {
        entries.sort_unstable_by_key(|(row, column, _)| (*row, *column));
        let mut starts = vec![0; rows + 1];
        for (row, ..) in &entries {
            starts[*row as usize + 1] += 1;
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let (columns, values) = entries.into_iter().map(|(_, column, value)| (column, value)).unzip();
        Self { starts, columns, values }
    }

    fn transposed(&self, rows: usize) -> Self {
        let of_row = |row: usize| (self.starts[row]..self.starts[row + 1]).map(move |at| (row, at));
        let entries = (0..rows).flat_map(of_row);
        Self::build(entries.map(|(row, at)| (self.columns[at], row as u32, self.values[at])).collect(), rows)
    }

    /// The product with a block of `width` columns, row-major.
    fn times(&self, block: &[f64], width: usize) -> Vec<f64> {
        let mut out = vec![0.0; block.len()];
        for (row, sum) in out.chunks_exact_mut(width).enumerate() {
            for at in self.starts[row]..self.starts[row + 1] {
                let from = &block[self.columns[at] as usize * width..][..width];
                let value = self.values[at];
                sum.iter_mut().zip(from).for_each(|(s, x)| *s += value * x);
            }
        }
        out
    }
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
    Sparse::build(entries, items)
}

/// Block^T Block, rank x rank.
fn gram(block: &[f64], rank: usize) -> DMatrix<f64> {
    let mut out = DMatrix::<f64>::zeros(rank, rank);
    for row in block.chunks_exact(rank) {
        for i in 0..rank {
            let x = row[i];
            if x != 0.0 {
                let column = &mut out.as_mut_slice()[i * rank..][..rank];
                column.iter_mut().zip(row).for_each(|(s, y)| *s += x * y);
            }
        }
    }
    out
}

/// Makes the columns orthonormal by the eigenvectors of the Gram matrix, twice: once loses half of the digits where
/// the columns are nearly dependent, the second pass restores them. Directions without length become zero.
fn orthonormal(block: &mut [f64], rank: usize) {
    for _ in 0..2 {
        let eigen = SymmetricEigen::new(gram(block, rank));
        let largest = eigen.eigenvalues.iter().fold(0f64, |a, b| a.max(*b));
        let mut turn = eigen.eigenvectors;
        for (j, value) in eigen.eigenvalues.iter().enumerate() {
            let scale = if *value > 1e-14 * largest { value.sqrt().recip() } else { 0.0 };
            turn.column_mut(j).scale_mut(scale);
        }
        let mut turned = vec![0.0; rank];
        for row in block.chunks_exact_mut(rank) {
            for (j, out) in turned.iter_mut().enumerate() {
                let column = &turn.as_slice()[j * rank..][..rank];
                *out = row.iter().zip(column).map(|(x, t)| x * t).sum();
            }
            row.copy_from_slice(&turned);
        }
    }
}

fn rescale(out: &mut [f32], dim: usize) {
    let rows = out.chunks_exact(dim).filter(|row| row.iter().any(|x| *x != 0.0)).count();
    let squares: f64 = out.iter().map(|x| f64::from(*x).powi(2)).sum();
    if rows > 0 && squares > 0.0 {
        let scale = (rows as f64 / squares).sqrt() as f32;
        out.iter_mut().for_each(|x| *x *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum() };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-12)
    }

    /// Users who stay in one of four groups of ten items most of the time.
    fn planted() -> Vec<Vec<u32>> {
        let mut random = Random::of(5, &[]);
        let user = |u: usize, random: &mut Random| {
            let step = |random: &mut Random| match random.uniform() < 0.9 {
                true => (u % 4 * 10 + random.below(10)) as u32,
                false => random.below(40) as u32,
            };
            (0..20).map(|_| step(random)).collect()
        };
        (0..200).map(|u| user(u, &mut random)).collect()
    }

    #[test]
    fn items_of_one_group_stand_together() {
        let options = EmbedOptions { dim: 8, ..EmbedOptions::default() };
        let vectors = ppmi_svd(&planted(), 41, &options);
        let row = |i: usize| &vectors[i * 8..][..8];
        let (mut inside, mut across) = (Vec::new(), Vec::new());
        for a in 0..40 {
            for b in 0..a {
                if a / 10 == b / 10 { &mut inside } else { &mut across }.push(cosine(row(a), row(b)));
            }
        }
        let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
        assert!(mean(&inside) > mean(&across) + 0.4, "{} against {}", mean(&inside), mean(&across));
        assert!(row(40).iter().all(|x| *x == 0.0), "an item without history has zeros");
        let squares: f64 = vectors.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((squares / 40.0 - 1.0).abs() < 1e-5);
        assert_eq!(vectors, ppmi_svd(&planted(), 41, &options), "the same seed gives the same vectors");
    }

    #[test]
    fn the_svd_is_that_of_the_dense_matrix() {
        let options = EmbedOptions { dim: 6, iterations: 8, ..EmbedOptions::default() };
        let matrix = ppmi(&pairs(&planted(), 40, &options), 40, &options);
        let mut dense = DMatrix::<f64>::zeros(40, 40);
        for row in 0..40 {
            for at in matrix.starts[row]..matrix.starts[row + 1] {
                dense[(row, matrix.columns[at] as usize)] = matrix.values[at];
            }
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
