//! Shapes on which every backend is checked.

use super::Shape;

const fn shape(rows: usize, inputs: usize, outputs: usize, stride: usize, add: bool) -> Shape {
    Shape { rows, inputs, outputs, stride, add }
}

/// Shapes, and whether a ReLU follows.
pub const CASES: &[(Shape, bool)] = &[
    (shape(0, 3, 2, 3, false), false),
    (shape(1, 1, 1, 1, false), true),
    (shape(3, 5, 4, 5, true), false),
    (shape(4, 3, 6, 7, false), true),
    (shape(17, 33, 19, 33, true), true),
    (shape(5, 0, 3, 4, false), false),
];
