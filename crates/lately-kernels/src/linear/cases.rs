//! Shapes on which every backend is checked.

use super::Shape;

/// Shapes, and whether a ReLU follows.
pub const CASES: &[(Shape, bool)] = &[
    (Shape { rows: 0, inputs: 3, outputs: 2, stride: 3 }, false),
    (Shape { rows: 1, inputs: 1, outputs: 1, stride: 1 }, true),
    (Shape { rows: 3, inputs: 5, outputs: 4, stride: 5 }, false),
    (Shape { rows: 4, inputs: 3, outputs: 6, stride: 7 }, true),
    (Shape { rows: 17, inputs: 33, outputs: 19, stride: 33 }, true),
    (Shape { rows: 5, inputs: 0, outputs: 3, stride: 4 }, false),
];
