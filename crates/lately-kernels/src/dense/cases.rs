//! Shapes on which every backend is checked.

use super::Shape;

/// Shapes, whether a ReLU follows, and the first input of the range whose gradient is asked for.
pub const CASES: &[(Shape, bool, usize)] = &[
    (Shape { rows: 0, inputs: 4, outputs: 3 }, false, 0),
    (Shape { rows: 1, inputs: 1, outputs: 1 }, true, 0),
    (Shape { rows: 3, inputs: 5, outputs: 4 }, false, 2),
    (Shape { rows: 17, inputs: 33, outputs: 19 }, true, 16),
    (Shape { rows: 50, inputs: 70, outputs: 37 }, false, 1),
];

/// Columns and rows that are transposed.
pub const TRANSPOSED: &[(usize, usize)] = &[(0, 3), (1, 1), (16, 16), (17, 33), (40, 5)];
