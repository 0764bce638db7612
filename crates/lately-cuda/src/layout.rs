//! A call's numbers as one array of words, which goes to the card in one copy, and the room that it needs there.
//!
//! ```text
//! header            16 words: counts, and where what follows starts (`kernels/prelude.cu` has their order)
//! row's request     a word each
//! request           4 words: tokens, tiles of 16 tokens, its first tile, its first square
//! tokens            tiles x 16 x token width, f32, 0 beyond a request's last one
//! open              tiles x 16, f32: 1 for tokens that may be looked at, else 0
//! candidates        rows x candidate width, f32
//! features          rows x the inputs beside the encoder's, bfloat16, to whole words
//! ```
//!
//! A square is 16 x 16 logits of a request's tokens: a request of t tiles has t squared of them.

use std::ops::Range;

use lately_features::FeatureBatch;
use lately_model::device::Staged;

use crate::CudaError;
use crate::fragment::{TILE, TILE_WORDS, pair, tiles};
use crate::geometry::Geometry;

const HEADER: usize = 16;
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
    tiles: usize,
    squares: usize,
    /// Tiles of the longest history.
    pub(crate) longest: usize,
}

impl Extent {
    /// The most that a launch takes.
    pub(crate) const MOST: Self =
        Self { rows: MOST_ROWS, requests: MOST_ROWS, tiles: MOST_TILES, squares: MOST_SQUARES, longest: 0 };

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
    requests: usize,
    tokens: usize,
    open: usize,
    candidates: usize,
    features: usize,
    end: usize,
    /// In the scratch.
    values: usize,
    logits: usize,
    exponentials: usize,
    candidate_keys: usize,
    scratch: usize,
}

impl Places {
    fn of(geometry: &Geometry, extent: &Extent) -> Self {
        let (token, candidate, width) =
            geometry.encoder.as_ref().map_or((0, 0, 0), |e| (e.token, e.candidate, e.width));
        let mut at = HEADER;
        let mut part = |words: usize| {
            let start = at;
            at += words.next_multiple_of(4); // 16 bytes, the widest load
            start
        };
        let rows = part(extent.rows);
        let requests = part(extent.requests * REQUEST);
        let tokens = part(extent.tiles * TILE * token);
        let open = part(extent.tiles * TILE);
        let candidates = part(extent.rows * candidate);
        let features = part(extent.rows * feature_words(geometry));
        let end = part(0);
        at = 0;
        let mut part = |words: usize| {
            let start = at;
            at += words;
            start
        };
        Self {
            rows,
            requests,
            tokens,
            open,
            candidates,
            features,
            end,
            values: part(extent.tiles * tiles(width) * TILE_WORDS),
            logits: part(extent.squares * TILE * TILE),
            exponentials: part(extent.squares * TILE_WORDS),
            candidate_keys: part(extent.tiles * TILE * candidate),
            scratch: part(0),
        }
    }

    fn header(&self, extent: &Extent) -> [u32; HEADER] {
        let mut header = [0; HEADER];
        let words = [
            extent.rows,
            extent.requests,
            self.rows,
            self.requests,
            self.tokens,
            self.open,
            self.candidates,
            self.features,
            self.values,
            self.logits,
            self.exponentials,
            self.candidate_keys,
        ];
        header.iter_mut().zip(words).for_each(|(to, from)| *to = from as u32);
        header
    }
}

fn feature_words(geometry: &Geometry) -> usize {
    (geometry.inputs - geometry.output()).div_ceil(2)
}

/// Words of the largest call, and of the scratch that it needs.
pub(crate) fn most(geometry: &Geometry) -> (usize, usize) {
    let places = Places::of(geometry, &Extent::MOST);
    (places.end, places.scratch)
}

/// Writes a call into `words`, at least as many as [`most`]; returns what it takes up and its words.
pub(crate) fn fill(geometry: &Geometry, staged: &Staged<'_>, words: &mut [u32]) -> (Extent, usize) {
    let mut extent = Extent::default();
    for request in staged.requests {
        extent.add_request(request.tokens.len());
        extent.rows = request.rows.end;
    }
    let places = Places::of(geometry, &extent);
    words[..HEADER].copy_from_slice(&places.header(&extent));
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
        tile += count;
        square += count * count;
    }
    numbers(staged.candidates, &mut words[places.candidates..places.features]);
    features(geometry, staged.inputs, &mut words[places.features..places.end]);
    (extent, places.end)
}

/// The numbers, then 0.
fn numbers(from: &[f32], to: &mut [u32]) {
    let (head, tail) = to.split_at_mut(from.len());
    head.iter_mut().zip(from).for_each(|(to, x)| *to = x.to_bits());
    tail.fill(0);
}

/// What is beside the encoder's columns of rows x inputs.
fn features(geometry: &Geometry, inputs: &[f32], to: &mut [u32]) {
    let stride = feature_words(geometry);
    if stride == 0 {
        return;
    }
    for (row, to) in inputs.chunks_exact(geometry.inputs).zip(to.chunks_exact_mut(stride)) {
        for (pairs, to) in row[geometry.output()..].chunks(2).zip(to) {
            *to = pair(pairs[0], pairs.get(1).copied().unwrap_or(0.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use lately_model::device::{ServingParts, StagedRequest, Staging, admitted};
    use lately_model::{Encoder, ModelConfig};

    use super::*;
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
        let (extent, end) = fill(&g, &staged, &mut words);
        assert_eq!(extent, Extent { rows: 5, requests: 3, tiles: 3, squares: 5, longest: 2 });
        assert_eq!(words[..2], [5, 3]);
        let at = |header: usize| words[header] as usize;
        assert_eq!(words[at(2)..][..5], [0, 1, 2, 2, 2]);
        assert_eq!(words[at(3)..][..12], [17, 2, 0, 0, 0, 0, 2, 4, 3, 1, 2, 4]);
        // 17 tokens of 8 numbers, then zeros to 32 of them, then those of the last request.
        let numbers = |from: &[f32]| from.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(words[at(4)..][..136], numbers(&staged.tokens[..136]));
        assert!(words[at(4) + 136..at(4) + 256].iter().all(|w| *w == 0));
        assert_eq!(
            words[at(4) + 256..][..24],
            numbers(&staged.tokens[staged.requests[2].tokens.start * 8..])[..24]
        );
        let open: Vec<f32> = words[at(5)..][..48].iter().map(|w| f32::from_bits(*w)).collect();
        assert!((0..48).all(|i| (open[i] == 1.0) == (i < 17 || (32..35).contains(&i))), "{open:?}");
        assert_eq!(words[at(6)..][..20], numbers(staged.candidates));
        let first = pair(staged.inputs[g.output()], staged.inputs[g.output() + 1]);
        assert_eq!(words[at(7)], first);
        assert!(words[end..].iter().all(|w| *w == u32::MAX), "nothing is written beyond the end");
    }
}
