//! Shapes on which every backend is checked.

/// (lengths of the segments, width, first K).
pub const CASES: &[(&[u32], usize, usize)] =
    &[(&[], 3, 2), (&[1], 1, 1), (&[3, 0, 5, 1], 4, 3), (&[0, 0], 2, 4), (&[20, 7], 17, 10)];
