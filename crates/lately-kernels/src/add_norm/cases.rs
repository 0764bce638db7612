//! Shapes on which every backend is checked.

/// (rows, width).
pub const CASES: &[(usize, usize)] = &[(0, 8), (1, 1), (3, 5), (2, 16), (7, 96), (5, 33)];
