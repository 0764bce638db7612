//! Matrix products: the seam between the operations and what multiplies for them, and the one call into `gemm`.

use crate::Real;

/// How matrices are multiplied; everything else of an operation is the same for all.
pub trait Product<R>: 'static {
    /// `out (m x n, row stride) = [out +] factor * a (m x k) * b (k x n)`.
    ///
    /// # Panics
    /// Where a view is shorter than its shape.
    fn product(
        shape: (usize, usize, usize),
        out: &mut [R],
        stride: usize,
        accumulate: bool,
        factor: R,
        a: View<'_, R>,
        b: View<'_, R>,
    );
}

/// Products in the numbers themselves, by the `gemm` crate.
#[derive(Debug, Clone, Copy)]
pub struct Exact;

impl<R: Real> Product<R> for Exact {
    fn product(
        shape: (usize, usize, usize),
        out: &mut [R],
        stride: usize,
        accumulate: bool,
        factor: R,
        a: View<'_, R>,
        b: View<'_, R>,
    ) {
        product(shape, out, stride, accumulate, factor, a, b);
    }
}

/// A view of a matrix: element (i, j) is `data[i * row + j * column]`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, R> {
    /// From element (0, 0) on.
    pub data: &'a [R],
    /// Distance of two rows.
    pub row: usize,
    /// Distance of two columns.
    pub column: usize,
}

impl<'a, R> View<'a, R> {
    /// Rows one after another, `stride` apart.
    pub fn rows(data: &'a [R], stride: usize) -> Self {
        Self { data, row: stride, column: 1 }
    }
    /// The transposed matrix.
    #[must_use]
    pub fn t(self) -> Self {
        Self { data: self.data, row: self.column, column: self.row }
    }
    pub(crate) fn covers(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row + (columns - 1) * self.column < self.data.len()
    }
}

fn product<R: Real>(
    (m, n, k): (usize, usize, usize),
    out: &mut [R],
    stride: usize,
    accumulate: bool,
    factor: R,
    a: View<'_, R>,
    b: View<'_, R>,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(View::rows(out, stride).covers(m, n) && stride >= n, "output is shorter than {m} x {n}");
    if k == 0 {
        if !accumulate {
            for row in out.chunks_mut(stride).take(m) {
                row[..n].fill(R::ZERO);
            }
        }
        return;
    }
    assert!(a.covers(m, k) && b.covers(k, n), "factor is shorter than its shape, m n k {m} {n} {k}");
    // SAFETY: the asserts above show that every element that the call reads or writes lies within the slices; `out`
    // is a unique borrow, so it does not overlap the inputs; with stride >= n no two of its elements coincide. The
    // crate supports f32 and f64, the only types that implement `Real`.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            R::ONE,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
