//! A call's numbers as one array of words, which goes to the card in one copy, and the room that it needs there.
//!
//! ```text
//! header            32 words: counts, and where what follows starts (`kernels/call.cu` has their order)
//! row's request     a word each
//! row's item        a word each: its slot of the table, or with the highest bit its number among the items below
//! request           4 words: tokens, tiles of 16 tokens, its first tile, its first square
//! request's columns of the top's inputs, f32
//! tokens            tiles x 16 x token width, f32, 0 beyond a request's last one
//! open              tiles x 16, f32: 1 for tokens that may be looked at, else 0
//! kinds             tiles x 16, where there is an affinity block: type of the action, bit 8 for a recent one
//! item's slot       a word each: where it is stored, all bits where it is not
//! items             those that are not in the table: candidate width in f32, then its columns in bfloat16
//! ```
//!
//! A square is 16 x 16 logits of a request's tokens: a request of t tiles has t squared of them.

use std::ops::Range;

use lately_features::FeatureBatch;
use lately_model::device::{Staged, StagedItems, TokenKind};

use crate::CudaError;
use crate::fragment::{TILE, TILE_WORDS, pair, tiles};
use crate::geometry::Geometry;
use crate::items::Found;

const HEADER: usize = 32;
/// Words of a request.
const REQUEST: usize = 4;

/// Most rows of a launch: 2,048 make 16 waves of a block a row on 132 multiprocessors, after which more only cost memory.
pub(crate) const MOST_ROWS: usize = 2048;
/// Most tiles of tokens: 32,768 tokens of different requests.
const MOST_TILES: usize = 2048;
/// Most squares: 12 MiB of logits and exponentials.
const MOST_SQUARES: usize = 8192;

/// What some rows take up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) rows: usize,
    pub(crate) requests: usize,
    /// Items that come with it.
    items: usize,
    tiles: usize,
    squares: usize,
    /// Tiles of the longest history.
    pub(crate) longest: usize,
}

impl Extent {
    /// The most that a launch takes.
    pub(crate) const MOST: Self = Self {
        rows: MOST_ROWS,
        requests: MOST_ROWS,
        items: MOST_ROWS,
        tiles: MOST_TILES,
        squares: MOST_SQUARES,
        longest: 0,
    };

    fn add_request(&mut self, tokens: usize) {
        let tiles = tiles(tokens);
        self.requests += 1;
        self.tiles += tiles;
        self.squares += tiles * tiles;
        self.longest = self.longest.max(tiles);
    }

    fn fits(&self) -> bool {
        let most = Self::MOST;
        self.rows <= most.rows && self.tiles <= most.tiles && self.squares <= most.squares
    }
}

/// Refuses requests with more tokens than the kernels have room for.
pub(crate) fn check(geometry: &Geometry, batch: &FeatureBatch) -> Result<(), CudaError> {
    match batch.token_offsets.windows(2).map(|w| (w[1] - w[0]) as usize).max() {
        Some(got) if geometry.encoder.is_some() && got > geometry.most_tokens() => {
            Err(CudaError::Tokens { got, limit: geometry.length })
        }
        _ => Ok(()),
    }
}

/// The next rows of a [`check`]ed batch, from `from` on, that a launch takes: not empty, as one request always fits.
pub(crate) fn stretch(geometry: &Geometry, batch: &FeatureBatch, from: usize) -> Range<usize> {
    let first = batch.row_offsets.partition_point(|o| *o as usize <= from) - 1;
    let (mut extent, mut end) = (Extent::default(), from);
    for request in first..batch.requests() {
        let next = (batch.row_offsets[request + 1] as usize).min(from + MOST_ROWS);
        if next > end {
            let tokens = (batch.token_offsets[request + 1] - batch.token_offsets[request]) as usize;
            extent.rows = next - from;
            extent.add_request(if geometry.encoder.is_some() { tokens } else { 0 });
            if !extent.fits() {
                break;
            }
            end = next;
        }
    }
    from..end
}

/// Where the parts of a call start, in words.
#[derive(Debug, Clone, Copy)]
struct Places {
    rows: usize,
    row_items: usize,
    requests: usize,
    columns: usize,
    tokens: usize,
    open: usize,
    kinds: usize,
    slots: usize,
    items: usize,
    end: usize,
    /// In the scratch.
    values: usize,
    logits: usize,
    exponentials: usize,
    candidate_keys: usize,
    token_items: usize,
    lengths: usize,
    sums: usize,
    scratch: usize,
}

impl Places {
    fn of(geometry: &Geometry, extent: &Extent) -> Self {
        let (token, width) = geometry.encoder.as_ref().map_or((0, 0), |e| (e.token, e.width));
        let candidate = geometry.candidate();
        let tokens = extent.tiles * TILE;
        let affine = if geometry.columns.affinity.is_some() { tokens } else { 0 };
        let mut at = HEADER;
        let mut part = |words: usize| {
            let start = at;
            at += words.next_multiple_of(4); // 16 bytes, the widest load
            start
        };
        let input = [
            extent.rows,
            extent.rows,
            extent.requests * REQUEST,
            extent.requests * geometry.columns.request,
            tokens * token,
            tokens,
            affine,
            extent.items,
            extent.items * geometry.item_words(),
            0,
        ];
        let [rows, row_items, requests, columns, tokens_at, open, kinds, slots, items, end] =
            input.map(&mut part);
        at = 0;
        let mut part = |words: usize| {
            let start = at;
            at += words;
            start
        };
        Self {
            rows,
            row_items,
            requests,
            columns,
            tokens: tokens_at,
            open,
            kinds,
            slots,
            items,
            end,
            values: part(extent.tiles * tiles(width) * TILE_WORDS),
            logits: part(extent.squares * TILE * TILE),
            exponentials: part(extent.squares * TILE_WORDS),
            candidate_keys: part(tokens * candidate),
            token_items: part(affine * candidate),
            lengths: part(affine),
            sums: part(extent.requests * tiles(geometry.first().outputs) * TILE),
            scratch: part(0),
        }
    }

    fn header(&self, extent: &Extent) -> [u32; HEADER] {
        let mut header = [0; HEADER];
        let words = [
            extent.rows,
            extent.requests,
            extent.items,
            self.rows,
            self.row_items,
            self.requests,
            self.columns,
            self.tokens,
            self.open,
            self.kinds,
            self.slots,
            self.items,
            self.values,
            self.logits,
            self.exponentials,
            self.candidate_keys,
            self.token_items,
            self.lengths,
            self.sums,
        ];
        header.iter_mut().zip(words).for_each(|(to, from)| *to = from as u32);
        header
    }
}

/// Words of the largest call, and of the scratch that it needs.
pub(crate) fn most(geometry: &Geometry) -> (usize, usize) {
    let places = Places::of(geometry, &Extent::MOST);
    (places.end, places.scratch)
}

/// Writes a call into `words`, at least as many as [`most`]; returns what it takes up and its words. `items` are those that
/// were not found.
pub(crate) fn fill(
    geometry: &Geometry,
    staged: &Staged<'_>,
    found: &Found,
    items: &StagedItems<'_>,
    words: &mut [u32],
) -> (Extent, usize) {
    let mut extent = Extent { items: found.slots.len(), ..Extent::default() };
    for request in staged.requests {
        extent.add_request(request.tokens.len());
        extent.rows = request.rows.end;
    }
    let places = Places::of(geometry, &extent);
    words[..HEADER].copy_from_slice(&places.header(&extent));
    words[places.row_items..][..extent.rows].copy_from_slice(&found.places);
    words[places.slots..][..extent.items].copy_from_slice(&found.slots);
    numbers(staged.columns, &mut words[places.columns..places.tokens]);
    let (mut tile, mut square) = (0, 0);
    for (i, request) in staged.requests.iter().enumerate() {
        words[places.rows..][request.rows.clone()].fill(i as u32);
        let count = tiles(request.tokens.len());
        let record = [request.tokens.len(), count, tile, square].map(|n| n as u32);
        words[places.requests + i * REQUEST..][..REQUEST].copy_from_slice(&record);
        if let Some(encoder) = &geometry.encoder {
            let masked = &staged.masked[request.masked.clone()];
            let open = &mut words[places.open + tile * TILE..][..count * TILE];
            for (j, open) in open.iter_mut().enumerate() {
                let closed = j >= request.tokens.len() || masked.get(j).is_some_and(|m| *m);
                *open = if closed { 0.0f32 } else { 1.0 }.to_bits();
            }
            let width = encoder.token;
            let tokens = &staged.tokens[request.tokens.start * width..request.tokens.end * width];
            let to = &mut words[places.tokens + tile * TILE * width..][..count * TILE * width];
            numbers(tokens, to);
        }
        if geometry.columns.affinity.is_some() {
            let of_request = &staged.kinds[request.tokens.clone()];
            let to = &mut words[places.kinds + tile * TILE..];
            to.iter_mut().zip(of_request).for_each(|(to, kind)| *to = kind_word(*kind));
        }
        tile += count;
        square += count * count;
    }
    fill_items(geometry, items, &mut words[places.items..places.end]);
    (extent, places.end)
}

fn kind_word(kind: TokenKind) -> u32 {
    u32::from(kind.action) | u32::from(kind.recent) << 8
}

/// An item after another, each up to whole words, then anything.
fn fill_items(geometry: &Geometry, items: &StagedItems<'_>, to: &mut [u32]) {
    let (candidate, columns) = (geometry.candidate(), geometry.columns.item);
    for (i, to) in to.chunks_exact_mut(geometry.item_words()).enumerate() {
        let own = &items.candidates[i * candidate..(i + 1) * candidate];
        let (of_token, of_top) = to.split_at_mut(candidate);
        of_token.iter_mut().zip(own).for_each(|(to, x)| *to = x.to_bits());
        let own = &items.columns[i * columns..(i + 1) * columns];
        for (pairs, to) in own.chunks(2).zip(of_top) {
            *to = pair(pairs[0], pairs.get(1).copied().unwrap_or(0.0));
        }
    }
}

/// The numbers, then 0.
fn numbers(from: &[f32], to: &mut [u32]) {
    let (head, tail) = to.split_at_mut(from.len());
    head.iter_mut().zip(from).for_each(|(to, x)| *to = x.to_bits());
    tail.fill(0);
}

#[cfg(test)]
mod tests {
    use lately_model::device::{ItemStaging, ServingParts, StagedRequest, Staging, admitted};
    use lately_model::{Encoder, ModelConfig};

    use super::*;
    use crate::items::ItemTable;
    use crate::tests::world::{batch, model, schema, tiny};

    fn geometry(config: &ModelConfig, length: usize) -> Geometry {
        Geometry::of(&ServingParts::of(&model(config, &schema(4, length)))).unwrap().0
    }

    /// Only what stretches look at.
    fn offsets(requests: &[(usize, usize)]) -> FeatureBatch {
        let mut b = FeatureBatch::default();
        for (tokens, rows) in requests {
            b.token_offsets.push((b.tokens() + tokens) as u32);
            b.row_offsets.push((b.rows() + rows) as u32);
        }
        b
    }

    fn stretches(geometry: &Geometry, batch: &FeatureBatch) -> Vec<usize> {
        let mut ends = vec![0];
        while ends[ends.len() - 1] < batch.rows() {
            let range = stretch(geometry, batch, ends[ends.len() - 1]);
            assert_eq!(range.start, ends[ends.len() - 1]);
            ends.push(range.end);
        }
        ends
    }

    #[test]
    fn a_batch_is_cut_where_a_launch_is_full() {
        let g = geometry(&tiny(), 256);
        assert_eq!(stretches(&g, &offsets(&[(3, 5), (0, 0), (9, 2)])), [0, 7]);
        assert_eq!(stretches(&g, &offsets(&[(3, 2047), (0, 1), (9, 1)])), [0, 2048, 2049]);
        assert_eq!(stretches(&g, &offsets(&[(256, 5000)])), [0, 2048, 4096, 5000]);
        // 32 longest histories are 8,192 squares; those without rows count for nothing.
        let histories: Vec<_> = (0..70).map(|i| (256, usize::from(i % 2 == 0))).collect();
        assert_eq!(stretches(&g, &offsets(&histories)), [0, 32, 35]);
        let without = geometry(&ModelConfig { encoder: Encoder::None, ..tiny() }, 256);
        assert_eq!(stretches(&without, &offsets(&histories)), [0, 35]);
    }

    #[test]
    fn histories_that_are_too_long_are_refused() {
        let g = geometry(&tiny(), 20);
        assert_eq!(check(&g, &offsets(&[(32, 1)])), Ok(()), "a whole tile more is room that there is");
        let refused = check(&g, &offsets(&[(3, 1), (33, 0)]));
        assert_eq!(refused, Err(CudaError::Tokens { got: 33, limit: 20 }));
    }

    #[test]
    fn a_call_is_laid_out_as_its_header_says() {
        let schema = schema(4, 20);
        let model = model(&tiny(), &schema);
        let g = geometry(&tiny(), 20);
        let b = batch(&schema, &[(17, 2), (0, 1), (5, 0), (3, 3)], 2, |_| false);
        let mut staging = Staging::default();
        let b = admitted(&model, &b).unwrap();
        let staged = staging.fill(&model, &b, 1..6);
        let rows: Vec<_> = staged.requests.iter().map(|r: &StagedRequest| r.rows.clone()).collect();
        assert_eq!(rows, [0..1, 1..2, 2..5], "requests without rows are left out");
        let (most, _) = most(&g);
        let mut words = vec![u32::MAX; most];
        // The items of rows 2 and 3 are there.
        let (table, mut found, mut items) = (ItemTable::new(9), Found::default(), ItemStaging::default());
        let mut visit = table.visit();
        visit.find(&b, 2..4, &mut found);
        visit.stored();
        visit.find(&b, 1..6, &mut found);
        let items = items.fill(&model, &b, &found.staged);
        let (extent, end) = fill(&g, &staged, &found, &items, &mut words);
        assert_eq!(extent, Extent { rows: 5, requests: 3, items: 3, tiles: 3, squares: 5, longest: 2 });
        assert_eq!(words[..3], [5, 3, 3]);
        let at = |header: usize| words[header] as usize;
        assert_eq!(words[at(3)..][..5], [0, 1, 2, 2, 2]);
        assert_eq!(words[at(4)..][..5], [1 << 31, 0, 1, 1 << 31 | 1, 1 << 31 | 2]);
        assert_eq!(words[at(5)..][..12], [17, 2, 0, 0, 0, 0, 2, 4, 3, 1, 2, 4]);
        let numbers = |from: &[f32]| from.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(words[at(6)..][..3 * g.columns.request], numbers(staged.columns));
        // 17 tokens of 8 numbers, then zeros to 32 of them, then those of the last request.
        assert_eq!(words[at(7)..][..136], numbers(&staged.tokens[..136]));
        assert!(words[at(7) + 136..at(7) + 256].iter().all(|w| *w == 0));
        let last = staged.requests[2].tokens.clone();
        assert_eq!(words[at(7) + 256..][..24], numbers(&staged.tokens[last.start * 8..])[..24]);
        let open: Vec<f32> = words[at(8)..][..48].iter().map(|w| f32::from_bits(*w)).collect();
        assert!((0..48).all(|i| (open[i] == 1.0) == (i < 17 || (32..35).contains(&i))), "{open:?}");
        let kinds: Vec<u32> = last.map(|t| kind_word(staged.kinds[t])).collect();
        assert_eq!(words[at(9) + 32..][..3], kinds);
        assert_eq!(kind_word(TokenKind { action: 3, recent: true }), 0x103);
        assert_eq!(words[at(10)..][..3], [2, 3, 4]);
        let (words_of_item, item) = (g.item_words(), at(11));
        assert_eq!(words[item + words_of_item..][..4], numbers(&items.candidates[4..8]));
        let columns = g.columns.item;
        assert_eq!(words[item + words_of_item + 4], pair(items.columns[columns], items.columns[columns + 1]));
        assert!(words[end..].iter().all(|w| *w == u32::MAX), "nothing is written beyond the end");
    }
}
