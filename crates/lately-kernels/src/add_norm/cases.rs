//! Shapes on which every backend is checked.

/// (rows, width, dropout rate).
pub const CASES: &[(usize, usize, f32)] =
    &[(0, 8, 0.0), (1, 1, 0.0), (3, 5, 0.3), (2, 16, 0.0), (7, 96, 0.2), (5, 33, 0.0)];
