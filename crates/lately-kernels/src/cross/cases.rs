//! Shapes on which every backend is checked.

/// (rows, width).
pub const CASES: &[(usize, usize)] = &[(0, 4), (1, 1), (3, 5), (9, 37)];
