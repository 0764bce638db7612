//! Shapes on which every backend is checked.

use super::Shape;

/// Rows of the table in all cases.
pub const TABLE: usize = 7;
/// Indices of three entities with four slots each: one value, several with a gap and a repeat, none.
pub const INDICES: &[u32] = &[1, 3, 0, 0, 2, 6, 0, 6, 5, 0, 0, 0];

/// One slot, several slots, entities shared between output rows, no row at all.
pub const CASES: &[Shape<'_>] = &[
    Shape { dim: 3, slots: 1, index_stride: 4, index_start: 0, entity: &[0, 1, 2], stride: 3, offset: 0 },
    Shape { dim: 5, slots: 3, index_stride: 4, index_start: 1, entity: &[0, 0, 1, 2], stride: 9, offset: 2 },
    Shape { dim: 1, slots: 4, index_stride: 4, index_start: 0, entity: &[], stride: 2, offset: 1 },
    Shape { dim: 2, slots: 2, index_stride: 4, index_start: 2, entity: &[2, 1, 0], stride: 2, offset: 0 },
];
