//! A stretch as the words of one copy.

use lately_model::training::{Scatter, Stretch, TableRows};

/// Parts start at 16 bytes.
const ALIGNMENT: usize = 4;

/// Where a [`Scatter`]'s lists begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScatterAt {
    /// Rows that get something.
    pub(super) count: usize,
    pub(super) rows: usize,
    pub(super) starts: usize,
    pub(super) from: usize,
    /// None: all 1.
    pub(super) share: Option<usize>,
}

/// Where a table's indices begin, and its way back.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableAt {
    pub(super) indices: usize,
    pub(super) back: ScatterAt,
}

/// First words of everything that a stretch sends.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub(super) offsets: usize,
    pub(super) segment: usize,
    pub(super) gather: usize,
    pub(super) row_segment: usize,
    pub(super) by_token: ScatterAt,
    pub(super) by_segment: ScatterAt,
    pub(super) token_items: usize,
    pub(super) candidates: usize,
    pub(super) features: usize,
    pub(super) summary: usize,
    pub(super) token_tables: Vec<TableAt>,
    pub(super) tables: Vec<TableAt>,
    /// All of it.
    pub(super) words: usize,
}

/// Writes words one after another, or, without memory, counts them.
struct Packer<'a> {
    words: Option<&'a mut [u32]>,
    at: usize,
}

impl Packer<'_> {
    fn list(&mut self, words: impl ExactSizeIterator<Item = u32>) -> usize {
        let (start, length) = (self.at, words.len());
        if let Some(to) = &mut self.words {
            to[start..start + length].iter_mut().zip(words).for_each(|(to, word)| *to = word);
        }
        self.at += length.next_multiple_of(ALIGNMENT);
        start
    }

    fn words(&mut self, words: &[u32]) -> usize {
        self.list(words.iter().copied())
    }

    fn numbers(&mut self, numbers: &[f32]) -> usize {
        self.list(numbers.iter().map(|x| x.to_bits()))
    }

    fn scatter(&mut self, s: &Scatter) -> ScatterAt {
        ScatterAt {
            count: s.rows.len(),
            rows: self.words(&s.rows),
            starts: self.words(&s.starts),
            from: self.words(&s.from),
            share: (!s.share.is_empty()).then(|| self.numbers(&s.share)),
        }
    }

    fn tables(&mut self, tables: &[TableRows]) -> Vec<TableAt> {
        let of = |t: &TableRows| TableAt { indices: self.words(&t.indices), back: self.scatter(&t.back) };
        tables.iter().map(of).collect()
    }

    fn stretch(mut self, s: &Stretch) -> Packed {
        Packed {
            offsets: self.words(&s.offsets),
            segment: self.words(&s.segment),
            gather: self.words(&s.gather),
            row_segment: self.words(&s.row_segment),
            by_token: self.scatter(&s.by_token),
            by_segment: self.scatter(&s.by_segment),
            token_items: self.numbers(&s.token_items),
            candidates: self.numbers(&s.candidates),
            features: self.numbers(&s.features),
            summary: self.numbers(&s.summary),
            token_tables: self.tables(&s.token_tables),
            tables: self.tables(&s.tables),
            words: self.at,
        }
    }
}

/// Words that a stretch sends.
pub(super) fn size(stretch: &Stretch) -> usize {
    Packer { words: None, at: 0 }.stretch(stretch).words
}

/// Writes a stretch into `words`, at least [`size`] of them.
pub(super) fn pack(stretch: &Stretch, words: &mut [u32]) -> Packed {
    Packer { words: Some(words), at: 0 }.stretch(stretch)
}
