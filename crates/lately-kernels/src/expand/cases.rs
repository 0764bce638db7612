//! Shapes on which every backend is checked.

use super::Segments;

/// Source tokens in all cases.
pub const TOKENS: usize = 6;

/// Requests of 3, 0, 1 and 2 tokens with 2, 1, 1 and 3 candidates; then no segment at all.
pub const CASES: &[Segments<'_>] = &[
    Segments { offsets: &[0, 3, 6, 6, 7, 9, 11, 13], source: &[0, 0, 3, 3, 4, 4, 4] },
    Segments { offsets: &[0], source: &[] },
];
