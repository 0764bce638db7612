//! A sparse matrix by rows, and its product with a dense block.

/// Rows of (column, value), compressed.
pub(super) struct Sparse {
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f64>,
    width: usize,
}

impl Sparse {
    /// From (row, column, value), each place once, in any order.
    pub(super) fn build(mut entries: Vec<(u32, u32, f64)>, rows: usize, width: usize) -> Self {
        entries.sort_unstable_by_key(|(row, column, _)| (*row, *column));
        let mut starts = vec![0; rows + 1];
        for (row, ..) in &entries {
            starts[*row as usize + 1] += 1;
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let (columns, values) = entries.into_iter().map(|(_, column, value)| (column, value)).unzip();
        Self { starts, columns, values, width }
    }

    pub(super) fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Columns and values of a row.
    pub(super) fn row(&self, row: usize) -> impl ExactSizeIterator<Item = (usize, f64)> + Clone + '_ {
        let at = self.starts[row]..self.starts[row + 1];
        self.columns[at.clone()].iter().zip(&self.values[at]).map(|(c, v)| (*c as usize, *v))
    }

    pub(super) fn transposed(&self) -> Self {
        let of_row =
            |row: usize| self.row(row).map(move |(column, value)| (column as u32, row as u32, value));
        Self::build((0..self.rows()).flat_map(of_row).collect(), self.width, self.rows())
    }

    /// The product with a block of `width` columns, row-major.
    pub(super) fn times(&self, block: &[f64], width: usize) -> Vec<f64> {
        let mut out = vec![0.0; self.rows() * width];
        for (row, sum) in out.chunks_exact_mut(width).enumerate() {
            for (column, value) in self.row(row) {
                let from = &block[column * width..][..width];
                sum.iter_mut().zip(from).for_each(|(s, x)| *s += value * x);
            }
        }
        out
    }
}
