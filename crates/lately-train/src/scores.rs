//! Scores of a slice's rows, by a model ([`crate::predict`]) or by any other rule given as a column.

use lately_features::schema::Polarity;

use crate::dataset::Slice;

/// One scorer's output for a slice of N rows and H heads.
#[derive(Debug, Clone)]
pub struct Scores {
    /// Name in reports.
    pub name: String,
    /// N x H, each row with its own sequence: logits, or any number that orders.
    pub rows: Vec<f32>,
    /// N x H, each row with the sequence of its chunk's start; `None`: the same as `rows`. NaN outside of chunks.
    pub in_chunk: Option<Vec<f32>>,
    /// N x H, each row with the sequence of its user's first request of the slice; `None`: the same as `rows`.
    pub in_user: Option<Vec<f32>>,
    /// Whether `rows` are logits, so that log loss and calibration mean something.
    pub logits: bool,
}

/// The popularity order: an item's number of rows in `past` with any action of positive polarity. One number for all
/// heads; the thing that a ranker must beat.
pub fn by_popularity(past: &Slice<'_>, slice: &Slice<'_>) -> Scores {
    let actions = past.dataset.schema.actions.iter().enumerate();
    let wanted =
        actions.filter(|(_, a)| a.polarity == Polarity::Positive).fold(0u64, |bits, (i, _)| bits | 1 << i);
    let mut counts = vec![0f32; slice.dataset.items.len().max(past.dataset.items.len())];
    for candidate in past.iter().flat_map(|r| &r.candidates) {
        counts[candidate.item as usize] += f32::from(u8::from(candidate.observed & wanted != 0));
    }
    let heads = slice.dataset.heads();
    let rows = slice.iter().flat_map(|r| &r.candidates);
    let rows = rows.flat_map(|c| std::iter::repeat_n(counts[c.item as usize], heads)).collect();
    Scores { name: "popularity".to_owned(), rows, in_chunk: None, in_user: None, logits: false }
}
