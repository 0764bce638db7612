//! A stretch as the words of one copy.

use std::sync::{Mutex, PoisonError};

use lately_model::training::{Scatter, Stretch, TableRows};

/// Parts start at 16 bytes.
const ALIGNMENT: usize = 4;
/// Words from which on several threads copy, and how many. Not measured: at 8 GB/s a million words take 500 us, and a thread is
/// thought to cost a tenth of that.
const WORTH_THREADS: usize = 1 << 20;
const THREADS: usize = 4;

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
    pub(super) source: usize,
    /// First row of appended candidates; none.
    pub(super) appended: Option<usize>,
    /// See [`Uses`](lately_model::training::Uses).
    pub(super) uses: [usize; 3],
    pub(super) row_segment: usize,
    pub(super) row_starts: usize,
    pub(super) token_items: usize,
    pub(super) candidates: usize,
    pub(super) features: usize,
    pub(super) summary: usize,
    pub(super) token_tables: Vec<TableAt>,
    pub(super) tables: Vec<TableAt>,
    /// All of it.
    pub(super) words: usize,
}

/// Lists of a stretch, one after another.
#[derive(Default)]
struct Packer<'a> {
    lists: Vec<(usize, List<'a>)>,
    at: usize,
}

#[derive(Clone, Copy)]
enum List<'a> {
    Words(&'a [u32]),
    Numbers(&'a [f32]),
}

impl List<'_> {
    fn len(self) -> usize {
        match self {
            Self::Words(list) => list.len(),
            Self::Numbers(list) => list.len(),
        }
    }

    fn copy(self, to: &mut [u32]) {
        match self {
            Self::Words(list) => to.copy_from_slice(list),
            Self::Numbers(list) => to.iter_mut().zip(list).for_each(|(to, x)| *to = x.to_bits()),
        }
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::Words(list) => (Self::Words(&list[..at]), Self::Words(&list[at..])),
            Self::Numbers(list) => (Self::Numbers(&list[..at]), Self::Numbers(&list[at..])),
        }
    }
}

impl<'a> Packer<'a> {
    fn list(&mut self, list: List<'a>) -> usize {
        let start = self.at;
        self.lists.push((start, list));
        self.at += list.len().next_multiple_of(ALIGNMENT);
        start
    }

    fn words(&mut self, words: &'a [u32]) -> usize {
        self.list(List::Words(words))
    }

    fn numbers(&mut self, numbers: &'a [f32]) -> usize {
        self.list(List::Numbers(numbers))
    }

    fn scatter(&mut self, s: &'a Scatter) -> ScatterAt {
        ScatterAt {
            count: s.rows.len(),
            rows: self.words(&s.rows),
            starts: self.words(&s.starts),
            from: self.words(&s.from),
            share: (!s.share.is_empty()).then(|| self.numbers(&s.share)),
        }
    }

    fn tables(&mut self, tables: &'a [TableRows]) -> Vec<TableAt> {
        let of = |t: &'a TableRows| TableAt { indices: self.words(&t.indices), back: self.scatter(&t.back) };
        tables.iter().map(of).collect()
    }

    fn stretch(&mut self, s: &'a Stretch) -> Packed {
        Packed {
            offsets: self.words(&s.offsets),
            source: self.words(&s.source),
            appended: s.appended.then(|| s.token_rows - s.segments()),
            uses: [&s.uses.first, &s.uses.count, &s.uses.place].map(|list| self.words(list)),
            row_segment: self.words(&s.row_segment),
            row_starts: self.words(&s.row_starts),
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
    Packer::default().stretch(stretch).words
}

/// Writes a stretch into `words`, at least [`size`] of them.
pub(super) fn pack(stretch: &Stretch, words: &mut [u32]) -> Packed {
    let mut packer = Packer::default();
    let packed = packer.stretch(stretch);
    let threads = if packed.words > WORTH_THREADS { THREADS } else { 1 };
    let parts = cut(packer.lists, words, packed.words.div_ceil(threads));
    let parts = Mutex::new(parts.into_iter());
    let work = || {
        loop {
            let part = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            match part {
                Some(part) => part.into_iter().for_each(|(list, to)| list.copy(to)),
                None => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Where the system refuses a thread the others do its work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    packed
}

/// Lists with the places that they go to, by parts of about `share` words.
fn cut<'a, 'w>(
    lists: Vec<(usize, List<'a>)>,
    words: &'w mut [u32],
    share: usize,
) -> Vec<Vec<(List<'a>, &'w mut [u32])>> {
    let mut parts: Vec<Vec<_>> = vec![Vec::new()];
    let (mut rest, mut done, mut left) = (words, 0, share);
    for (start, mut list) in lists {
        rest = &mut std::mem::take(&mut rest)[start - done..]; // what aligns is not written
        done = start + list.len();
        while list.len() > 0 {
            if left == 0 {
                parts.push(Vec::new());
                left = share.max(1);
            }
            let (piece, after) = list.split_at(list.len().min(left));
            let (to, more) = std::mem::take(&mut rest).split_at_mut(piece.len());
            (list, rest, left) = (after, more, left - piece.len());
            if let Some(part) = parts.last_mut() {
                part.push((piece, to));
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_into_parts_that_lose_nothing() {
        let (a, b, c) = ([1, 2, 3], [0.5f32, 2.0], [7, 8, 9, 10, 11]);
        for share in [1, 2, 4, 100] {
            let mut packer = Packer::default();
            let starts = (packer.words(&a), packer.numbers(&b), packer.words(&[]), packer.words(&c));
            assert_eq!(starts, (0, 4, 8, 8));
            let mut words = [u32::MAX; 16];
            let parts = cut(packer.lists, &mut words, share);
            assert!(parts.len() == 10usize.div_ceil(share));
            parts.into_iter().flatten().for_each(|(list, to)| list.copy(to));
            assert_eq!(words[..3], a);
            assert_eq!(words[4..6], b.map(f32::to_bits));
            assert_eq!(words[8..13], c);
            assert!([3, 6, 7, 13, 14, 15].iter().all(|i| words[*i] == u32::MAX), "nothing else is written");
        }
    }
}
