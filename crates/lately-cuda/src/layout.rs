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

/// The next rows of a batch, from `from` on, that a launch takes: not empty, as one request of the longest history always
/// fits.
pub(crate) fn stretch(batch: &FeatureBatch, from: usize) -> Range<usize> {
    let mut request = batch.row_offsets.partition_point(|o| *o as usize <= from) - 1;
    let (mut extent, mut end) = (Extent::default(), from);
    while end < batch.rows() {
        let next = (batch.row_offsets[request + 1] as usize).min(from + MOST_ROWS);
        if next > end {
            extent.rows = next - from;
            extent.add_request((batch.token_offsets[request + 1] - batch.token_offsets[request]) as usize);
            if !extent.fits() {
                break;
            }
        }
        end = next;
        if end == from + MOST_ROWS {
            break;
        }
        request += 1;
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
pub(crate) fn fill(
    geometry: &Geometry,
    staged: &Staged<'_>,
    words: &mut [u32],
) -> Result<(Extent, usize), CudaError> {
    let mut extent = Extent::default();
    for request in staged.requests {
        if request.tokens.len() > geometry.most_tokens() {
            return Err(CudaError::Tokens { got: request.tokens.len(), limit: geometry.length });
        }
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
    Ok((extent, places.end))
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
