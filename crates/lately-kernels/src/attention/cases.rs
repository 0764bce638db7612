//! Shapes on which every backend is checked.

/// One case: lengths of the segments, heads, width of a head, whether some keys are masked, dropout rate.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Tokens of each segment.
    pub lengths: &'static [u32],
    /// Heads.
    pub heads: usize,
    /// Width of one head.
    pub head_width: usize,
    /// Every third key is masked, and all keys of the last segment.
    pub masked: bool,
    /// Share of dropped probabilities.
    pub dropout: f32,
}

/// Ragged, empty, single and long segments.
pub const CASES: &[Case] = &[
    Case { lengths: &[], heads: 1, head_width: 4, masked: false, dropout: 0.0 },
    Case { lengths: &[1], heads: 1, head_width: 3, masked: false, dropout: 0.0 },
    Case { lengths: &[0, 3, 0, 1, 2], heads: 2, head_width: 2, masked: false, dropout: 0.0 },
    Case { lengths: &[4, 7, 2], heads: 3, head_width: 5, masked: true, dropout: 0.0 },
    Case { lengths: &[5, 3], heads: 2, head_width: 4, masked: false, dropout: 0.3 },
    Case { lengths: &[17], heads: 1, head_width: 16, masked: true, dropout: 0.2 },
];

/// Too long for finite differences; compared with the reference only.
pub const LONG: Case = Case { lengths: &[100, 31, 46], heads: 2, head_width: 48, masked: true, dropout: 0.0 };
