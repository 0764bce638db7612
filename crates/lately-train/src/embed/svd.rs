//! The truncated SVD of a sparse matrix: the randomised subspace iteration of Halko, Martinsson and Tropp (2011), so
//! that nothing dense of the matrix's size exists.

use nalgebra::{DMatrix, SymmetricEigen};

use super::sparse::Sparse;
use crate::random::Random;

/// Extra columns of the random start (Halko et al. advise 5 to 10).
const OVERSAMPLE: usize = 10;

/// The largest singular values, descending, and what belongs to them on the side of the rows.
pub(super) struct Svd {
    /// rows x dim left singular vectors, row-major.
    pub(super) left: Vec<f64>,
    /// dim singular values; 0 beyond the rank of the matrix.
    pub(super) values: Vec<f64>,
}

/// The `dim` largest, by `iterations` power iterations.
pub(super) fn truncated(matrix: &Sparse, dim: usize, iterations: usize, seed: u64) -> Svd {
    let (rows, columns) = (matrix.rows(), matrix.width());
    let rank = (dim + OVERSAMPLE).min(rows).min(columns);
    let mut svd = Svd { left: vec![0.0; rows * dim], values: vec![0.0; dim] };
    if matrix.is_empty() || rank == 0 || dim == 0 {
        return svd;
    }
    let mut random = Random::of(seed, &[]);
    // Blocks are row-major: a sparse product then streams over whole rows.
    let mut block: Vec<f64> = (0..columns * rank).map(|_| random.normal()).collect();
    let transposed = matrix.transposed();
    block = matrix.times(&block, rank);
    for _ in 0..iterations {
        orthonormal(&mut block, rank);
        block = transposed.times(&block, rank);
        orthonormal(&mut block, rank);
        block = matrix.times(&block, rank);
    }
    orthonormal(&mut block, rank);
    // M ~ Q (Q^T M); with W = M^T Q, W^T W = Q^T M M^T Q has the squared singular values and rotates Q to U.
    let eigen = SymmetricEigen::new(gram(&transposed.times(&block, rank), rank));
    let mut order: Vec<usize> = (0..rank).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    for (column, at) in order.iter().take(dim).enumerate() {
        svd.values[column] = eigen.eigenvalues[*at].max(0.0).sqrt();
        let turn: Vec<f64> = (0..rank).map(|j| eigen.eigenvectors[(j, *at)]).collect();
        for (row, q) in block.chunks_exact(rank).enumerate() {
            svd.left[row * dim + column] = q.iter().zip(&turn).map(|(q, t)| q * t).sum();
        }
    }
    svd
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_the_dense_matrix() {
        let (rows, columns, dim) = (40, 25, 6);
        let mut random = Random::of(9, &[]);
        let all = (0..rows as u32).flat_map(|r| (0..columns as u32).map(move |c| (r, c)));
        let places: Vec<(u32, u32)> = all.filter(|_| random.uniform() < 0.3).collect();
        // A few strong directions, so that the subspace iteration has something to separate.
        let value =
            |(r, c): (u32, u32)| f64::from(r % 3) * f64::from(c % 4) + f64::from((r * 7 + c * 13) % 5);
        let entries: Vec<(u32, u32, f64)> = places.into_iter().map(|p| (p.0, p.1, value(p))).collect();
        let mut dense = DMatrix::<f64>::zeros(rows, columns);
        entries.iter().for_each(|(r, c, v)| dense[(*r as usize, *c as usize)] = *v);
        let got = truncated(&Sparse::build(entries, rows, columns), dim, 12, 1);
        let want = dense.svd(true, false);
        for k in 0..dim {
            let (s, w) = (got.values[k], want.singular_values[k]);
            assert!((s - w).abs() < 1e-6 * w, "singular value {k}: {s} {w}");
            let u = want.u.as_ref().unwrap().column(k).into_owned();
            let dot: f64 = (0..rows).map(|r| got.left[r * dim + k] * u[r]).sum();
            assert!((dot.abs() - 1.0).abs() < 1e-4, "direction {k}: {dot}");
        }
    }
}
