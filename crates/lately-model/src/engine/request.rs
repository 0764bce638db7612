//! What all candidates of a request share in the encoder's first layer: the tokens' parts of queries, keys, values and
//! exponentials (see [`lately_kernels::shared`] for the algebra).

use lately_kernels::buffer::Buffer;
use lately_kernels::lanes::{self, Activations, LANES, Shape, Start};

use super::dense::Dense;
use crate::tape::sized;

/// Packed maps of the first layer by what they see: the token or the candidate.
#[derive(Debug)]
pub(super) struct FirstWeights<W> {
    pub(super) query_of_token: Dense<W>,
    pub(super) query_of_candidate: Dense<W>,
    pub(super) value_of_token: Dense<W>,
    pub(super) value_of_candidate: Dense<W>,
}

/// One request's part. Matrices are features, or keys, x lanes; a lane is a token, `lanes` is their number rounded up to
/// a multiple of 16.
#[derive(Debug, Default)]
pub(super) struct RequestPart {
    pub(super) tokens: usize,
    pub(super) lanes: usize,
    /// Masked tokens; empty for none.
    pub(super) masked: Vec<bool>,
    /// [action ; item] of the tokens.
    pub(super) token: Buffer<f32>,
    /// Logits without the candidate's part, and their exponentials.
    pub(super) logits: Buffer<f32>,
    pub(super) exponentials: Buffer<f32>,
    /// Values without the candidate's part, with their bias.
    pub(super) values: Buffer<f32>,
}

/// Memory of [`RequestPart::fill`].
#[derive(Debug, Default)]
pub(super) struct Memory<W> {
    query: Buffer<f32>,
    words: Buffer<W>,
    query_words: Buffer<W>,
    keys: Buffer<W>,
}

impl<W: Copy + Default> Memory<W> {
    pub(super) fn bytes(&self) -> usize {
        let Self { query, words, query_words, keys } = self;
        query.bytes() + [words, query_words, keys].map(Buffer::bytes).iter().sum::<usize>()
    }
}

impl<W: Copy + Default> FirstWeights<W> {
    /// All four maps.
    pub(super) fn maps(&self) -> [&Dense<W>; 4] {
        [&self.query_of_token, &self.query_of_candidate, &self.value_of_token, &self.value_of_candidate]
    }
}

impl RequestPart {
    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        let numbers = [&self.token, &self.logits, &self.exponentials, &self.values];
        self.masked.capacity() + numbers.map(Buffer::bytes).iter().sum::<usize>()
    }

    /// Of tokens, rows of [action ; item].
    pub(super) fn fill<F: Activations>(
        &mut self,
        format: F,
        weights: &FirstWeights<F::Word>,
        rows: &[f32],
        masked: &[bool],
        memory: &mut Memory<F::Word>,
    ) {
        let width = weights.query_of_token.outputs();
        let n = rows.len() / width.max(1);
        let lanes = n.next_multiple_of(LANES);
        (self.tokens, self.lanes) = (n, lanes);
        self.masked.clear();
        self.masked.extend_from_slice(masked);
        let token = sized(&mut self.token, width * lanes);
        lanes::from_rows(n, width, width, rows, lanes, token);
        let padded = |rows: usize| rows.next_multiple_of(LANES) * lanes;
        let query = sized(&mut memory.query, padded(width));
        let right = format.right(width, lanes, token, &mut memory.words);
        let shape = |rows: usize| Shape { rows, lanes, stride: lanes, out: lanes };
        let map = &weights.query_of_token;
        format.product(shape(width), map.packed().all(), right, Start::Bias(&map.bias), query);
        let map = &weights.value_of_token;
        let values = sized(&mut self.values, padded(map.outputs()));
        format.product(shape(map.outputs()), map.packed().all(), right, Start::Bias(&map.bias), values);
        let logits = sized(&mut self.logits, padded(n));
        let keys = format.keys(n, width, lanes, right, &mut memory.keys);
        let right = format.right(width, lanes, &query[..width * lanes], &mut memory.query_words);
        format.product(shape(n), keys, right, Start::Zero, logits);
        let exponentials = sized(&mut self.exponentials, n * lanes);
        lanes::exponentials(n, lanes, lanes, masked, logits, exponentials);
    }
}
