//! What a batch's rows are trained for.

use lately_features::FeatureBatch;
pub use lately_kernels::loss::list::Lists;

use crate::ModelError;

/// The loss of a batch of N rows and H heads: binary cross-entropy of every row, and on top of it, where `lists` are
/// given, softmax cross-entropy within them.
#[derive(Debug, Clone, Copy)]
pub struct Objective<'a> {
    /// Weight of each row in each head, N x H; it scales the row's part in both terms.
    pub weight: &'a [f32],
    /// Lists over all rows: the offsets run from 0 to N. The rows of a list are computed at once, so that memory grows
    /// with the longest.
    pub lists: Option<Lists<'a>>,
}

impl<'a> Objective<'a> {
    /// Every row for itself.
    pub fn rows(weight: &'a [f32]) -> Self {
        Self { weight, lists: None }
    }

    /// Where lists begin and end; empty where rows stand for themselves.
    pub(crate) fn offsets(&self) -> &'a [u32] {
        self.lists.map_or(&[], |lists| lists.offsets)
    }

    /// The lists within a stretch of rows that cuts none.
    pub(crate) fn lists_within(&self, rows: &std::ops::Range<usize>) -> Option<Lists<'a>> {
        let lists = self.lists?;
        let at = |row: usize| lists.offsets.partition_point(|o| (*o as usize) < row);
        let offsets = &lists.offsets[at(rows.start)..=at(rows.end)];
        let copies = if lists.copies.is_empty() { lists.copies } else { &lists.copies[rows.clone()] };
        Some(Lists { offsets, copies, ..lists })
    }

    pub(crate) fn check(&self, batch: &FeatureBatch, heads: usize) -> Result<(), ModelError> {
        let (rows, length) = (batch.rows(), ModelError::length);
        length("label", rows * heads, batch.label.len())?;
        length("weight", rows * heads, self.weight.len())?;
        let Some(lists) = self.lists else { return Ok(()) };
        length("list head_weight", heads, lists.head_weight.len())?;
        crate::chunk::offsets("list offsets", lists.offsets)?;
        length("list offsets", rows, lists.offsets.last().map_or(usize::MAX, |o| *o as usize))?;
        if !lists.copies.is_empty() {
            length("list copies", rows, lists.copies.len())?;
        }
        Ok(())
    }
}
