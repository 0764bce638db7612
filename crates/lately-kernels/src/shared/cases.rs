//! Shapes on which every backend is checked.

use crate::expand::Segments;

/// One case: segments, widths of key and value, whether some keys are masked, dropout rate, and by how much the
/// logits are blown up.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The candidates' tokens.
    pub segments: Segments<'static>,
    /// Width of a key and of a value.
    pub widths: (usize, usize),
    /// Every third key of a request is masked.
    pub masked: bool,
    /// Share of dropped probabilities.
    pub dropout: f32,
    /// Factor of the queries: large ones make the sums of the factored exponentials vanish.
    pub size: f32,
}

/// Source tokens in all cases.
pub const TOKENS: usize = 6;

const SOME: Segments<'_> = crate::expand::cases::CASES[0];
const NONE: Segments<'_> = crate::expand::cases::CASES[1];

/// Ragged groups, one and several candidates, an empty history.
pub const CASES: &[Case] = &[
    Case { segments: NONE, widths: (3, 4), masked: false, dropout: 0.0, size: 1.0 },
    Case { segments: SOME, widths: (3, 4), masked: false, dropout: 0.0, size: 1.0 },
    Case { segments: SOME, widths: (4, 6), masked: true, dropout: 0.0, size: 1.0 },
    Case { segments: SOME, widths: (2, 17), masked: false, dropout: 0.3, size: 1.0 },
    Case { segments: SOME, widths: (5, 5), masked: true, dropout: 0.2, size: 1.0 },
    Case { segments: SOME, widths: (5, 2), masked: false, dropout: 0.2, size: 30.0 },
];
