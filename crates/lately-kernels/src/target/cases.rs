//! Shapes on which every backend is checked, over the segments of [`crate::expand::cases`].

/// (width of the action part, width of an item).
pub const CASES: &[(usize, usize)] = &[(3, 2), (1, 1), (0, 9)];
