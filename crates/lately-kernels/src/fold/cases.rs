//! Shapes on which every backend is checked.

/// Widths of a token.
pub const CASES: &[usize] = &[1, 3, 17];
