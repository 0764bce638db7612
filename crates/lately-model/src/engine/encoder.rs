//! The encoder of some candidates at a time: a one-head transformer over [token ; candidate], see `crate::encoder`.

use lately_features::FeatureBatch;
use lately_kernels::Dropout;
use lately_kernels::buffer::Buffer;
use lately_kernels::lanes::{self, Activations, LANES, Left, Shape, Start};

use super::dense::Dense;
use super::layer::{Group, LayerWeights};
use super::request::{FirstWeights, RequestPart};
use crate::backend::Cpu;
use crate::chunk::Chunk;
use crate::encoder::{Pass, fold, tokens};
use crate::network::Network;
use crate::tape::{EncoderTape, Folded, sized};

/// Lanes, candidates times tokens, that pass a layer at once: products of few lanes wait for the weights. (Histories of 80
/// go one by one.)
const TOGETHER: usize = 96;

/// Packed weights of the encoder.
#[derive(Debug)]
pub(super) struct EncoderWeights<W> {
    width: usize,
    /// Widths of a token's part and of the candidate's.
    token: usize,
    candidate: usize,
    first_k: usize,
    output: usize,
    first: FirstWeights<W>,
    layers: Vec<LayerWeights<W>>,
    pool: Option<Dense<W>>,
}

/// Memory of one call.
#[derive(Debug, Default)]
pub(super) struct Memory<W> {
    part: RequestPart,
    /// The candidates of a request, features x lanes, and what the first layer makes of them.
    candidate: Buffer<f32>,
    query: Buffer<f32>,
    own: Buffer<f32>,
    value: Buffer<f32>,
    /// The same, a row each.
    own_rows: Buffer<f32>,
    exponents: Buffer<f32>,
    value_rows: Buffer<f32>,
    /// Tokens of the candidates that go together, features x lanes.
    pub(super) stream: Buffer<f32>,
    pub(super) next: Buffer<f32>,
    pub(super) hidden: Buffer<f32>,
    pub(super) projected: Buffer<f32>,
    pub(super) probabilities: Buffer<f32>,
    pooled: Buffer<f32>,
    pool_lanes: Buffer<f32>,
    pool_out: Buffer<f32>,
    pub(super) words: Words<W>,
}

/// Factors of products.
#[derive(Debug, Default)]
pub(super) struct Words<W> {
    /// Of the request.
    token: Buffer<W>,
    token_keys: Buffer<W>,
    token_values: Buffer<W>,
    /// Of a group.
    pub(super) stream: Buffer<W>,
    pub(super) more: Buffer<W>,
    pub(super) probabilities: Buffer<W>,
    pub(super) keys: Buffer<W>,
    pub(super) values: Buffer<W>,
}

impl<W: Copy + Default> Memory<W> {
    pub(super) fn bytes(&self) -> usize {
        let Self {
            part,
            words,
            candidate,
            query,
            own,
            value,
            own_rows,
            exponents,
            value_rows,
            stream,
            next,
            hidden,
            projected,
            probabilities,
            pooled,
            pool_lanes,
            pool_out,
        } = self;
        let numbers = [
            candidate,
            query,
            own,
            value,
            own_rows,
            exponents,
            value_rows,
            stream,
            next,
            hidden,
            projected,
            probabilities,
            pooled,
            pool_lanes,
            pool_out,
        ];
        let Words {
            token,
            token_keys,
            token_values,
            stream: of_stream,
            more,
            probabilities: of_these,
            keys,
            values,
        } = words;
        let words = [token, token_keys, token_values, of_stream, more, of_these, keys, values];
        part.bytes() + numbers.map(Buffer::bytes).iter().chain(&words.map(Buffer::bytes)).sum::<usize>()
    }
}

impl<W: Copy + Default> EncoderWeights<W> {
    /// None where the encoder has no compiled form.
    pub(super) fn new<F: Activations<Word = W>>(format: F, network: &Network<f32>) -> Option<Self> {
        let plan = &network.plan.encoder;
        let candidate = plan.width.saturating_sub(plan.token);
        let fits = plan.folds && plan.per_candidate && !plan.appended && candidate > 0;
        if !fits || plan.layers.is_empty() {
            return None;
        }
        let (d, da) = (plan.width, plan.token);
        let mut folded: Vec<Folded<f32>> = Vec::new();
        fold::<f32, Cpu>(network, &mut folded);
        let Folded { map, bias } = &folded[0];
        let zeros = vec![0.0; d];
        let part = |row: usize, column: usize, rows: usize, columns: usize, bias: &[f32]| {
            Dense::whole(format, &map[row * d + column..], d, (rows, columns), &bias[..rows])
        };
        let first = FirstWeights {
            query_of_token: part(0, 0, da, da, bias),
            query_of_candidate: part(0, da, da, candidate, &zeros),
            value_of_token: part(d, 0, d, da, &bias[d..]),
            value_of_candidate: part(d, da, d, candidate, &zeros),
        };
        let layers = plan.layers.iter().zip(&folded).enumerate();
        let layers = layers
            .map(|(i, (ids, folded))| LayerWeights::new(format, network, *ids, (i > 0).then_some(folded)));
        let pool = plan.pool.map(|id| Dense::of(format, network, id));
        let (first_k, output) = (plan.first_k, plan.output);
        Some(Self { width: d, token: da, candidate, first_k, output, first, layers: layers.collect(), pool })
    }

    /// Bytes of its packed weights.
    pub(super) fn bytes(&self) -> usize {
        let maps = self.first.maps().into_iter().chain(&self.pool).map(Dense::bytes);
        maps.chain(self.layers.iter().map(LayerWeights::bytes)).sum()
    }

    /// Multiply-adds of the products for one candidate of so many tokens.
    pub(super) fn multiply_adds(&self, tokens: usize) -> usize {
        let (d, n) = (self.width, tokens);
        let ffn = |layer: &LayerWeights<W>| 2 * n * d * layer.linear1.outputs();
        let own = self.candidate * (self.token + d) + n * self.token;
        let later = self.layers[1..].iter().map(|layer| 2 * n * d * d + 2 * n * n * d + ffn(layer));
        own + n * n * d
            + ffn(&self.layers[0])
            + later.sum::<usize>()
            + d * d * usize::from(self.pool.is_some())
    }

    /// Fills `sequence` (the chunk's rows x the encoder's output); returns how many candidates took the plain path.
    pub(super) fn forward<F: Activations<Word = W>>(
        &self,
        format: F,
        network: &Network<f32>,
        batch: &FeatureBatch,
        chunk: &Chunk,
        tape: &mut EncoderTape<f32>,
        kept: Option<super::Kept<'_>>,
        memory: &mut super::Encoding<W>,
        sequence: &mut [f32],
    ) -> u64 {
        let pass = Pass { network, batch, chunk, dropout: Dropout::default(), folded: &[] };
        tokens::forward::<f32, Cpu>(&pass, tape);
        tokens::candidates(&pass, self.candidate, tape);
        let mut fallbacks = 0;
        let mut row = 0;
        while row < chunk.request.len() {
            let count = chunk.request[row..].iter().take_while(|r| **r == chunk.request[row]).count();
            let range = chunk.offsets[row] as usize..chunk.offsets[row + 1] as usize;
            let sequence = &mut sequence[row * self.output..(row + count) * self.output];
            if range.is_empty() {
                sequence.fill(0.0);
            } else {
                let from = chunk.source[row] as usize * self.token;
                let rows = &tape.token[from..from + range.len() * self.token];
                let masked = if chunk.masked.is_empty() { &[] } else { &chunk.masked[range] };
                let super::Encoding { request, encoder } = &mut *memory;
                let candidates = &tape.candidate[row * self.candidate..(row + count) * self.candidate];
                if let Some(kept) = kept {
                    let found = kept.cache.part(
                        kept.users[chunk.request[row] as usize],
                        kept.engine,
                        rows,
                        masked,
                        || {
                            let mut part = RequestPart::default();
                            part.fill(format, &self.first, rows, masked, request);
                            part
                        },
                    );
                    fallbacks += self.request(format, &found.part, candidates, encoder, sequence);
                } else {
                    let mut part = std::mem::take(&mut encoder.part);
                    part.fill(format, &self.first, rows, masked, request);
                    fallbacks += self.request(format, &part, candidates, encoder, sequence);
                    encoder.part = part;
                }
            }
            row += count;
        }
        fallbacks
    }

    /// All candidates (rows of their part of a token) of a request.
    fn request<F: Activations<Word = W>>(
        &self,
        format: F,
        part: &RequestPart,
        candidates: &[f32],
        memory: &mut Memory<W>,
        sequence: &mut [f32],
    ) -> u64 {
        let (d, count) = (self.width, candidates.len() / self.candidate);
        let (n, lanes) = (part.tokens, part.lanes);
        // Taken out, so that its factors can be held while the rest of the memory is used.
        let [mut words, mut keys, mut values] =
            [&mut memory.words.token, &mut memory.words.token_keys, &mut memory.words.token_values]
                .map(std::mem::take);
        let right = format.right(self.token, lanes, &part.token, &mut words);
        let key_factor = format.keys(n, self.token, lanes, right, &mut keys);
        self.candidates(format, candidates, n, key_factor, memory);
        let value_factor = format.values(d, n, lanes, &part.values, &mut values);
        let together = (TOGETHER / lanes).max(1);
        sized(&mut memory.pooled, count * d);
        let mut fallbacks = 0;
        for from in (0..count).step_by(together) {
            let size = together.min(count - from);
            let group = Group { count: size, tokens: n, lanes, all: size * lanes };
            fallbacks += self.first_layer(format, part, value_factor, candidates, from, group, memory);
            for layer in &self.layers[1..] {
                layer.attend(format, d, group, &part.masked, memory);
                layer.rest(format, d, group, memory);
            }
            self.outputs(from, group, memory, sequence);
        }
        let taken = &mut memory.words;
        (taken.token, taken.token_keys, taken.token_values) = (words, keys, values);
        if let Some(pool) = &self.pool {
            self.pool(format, pool, count, memory, sequence);
        }
        fallbacks
    }

    /// The candidates' own logits (exponents of [`lanes::combine`]) and values, a row each.
    fn candidates<F: Activations<Word = W>>(
        &self,
        format: F,
        candidates: &[f32],
        keys: usize,
        left: Left<'_, W>,
        memory: &mut Memory<W>,
    ) {
        let (d, da, count) = (self.width, self.token, candidates.len() / self.candidate);
        let lanes = count.next_multiple_of(LANES);
        let shape = |rows: usize| Shape { rows, lanes, stride: lanes, out: lanes };
        let padded = |rows: usize| rows.next_multiple_of(LANES) * lanes;
        let Memory { candidate, query, own, value, own_rows, value_rows, words, .. } = memory;
        let candidate = sized(candidate, self.candidate * lanes);
        lanes::from_rows(count, self.candidate, self.candidate, candidates, lanes, candidate);
        let right = format.right(self.candidate, lanes, candidate, &mut words.stream);
        let query = sized(query, padded(da));
        let map = &self.first.query_of_candidate;
        format.product(shape(da), map.packed().all(), right, Start::Bias(&map.bias), query);
        let value = sized(value, padded(d));
        let map = &self.first.value_of_candidate;
        format.product(shape(d), map.packed().all(), right, Start::Bias(&map.bias), value);
        let own = sized(own, padded(keys));
        let right = format.right(da, lanes, &query[..da * lanes], &mut words.more);
        format.product(shape(keys), left, right, Start::Zero, own);
        lanes::to_rows(count, keys, lanes, own, keys, sized(own_rows, count * keys));
        lanes::to_rows(count, d, lanes, value, d, sized(value_rows, count * d));
    }

    /// From the candidates `from..` to the first layer's output in `memory.stream`.
    fn first_layer<F: Activations<Word = W>>(
        &self,
        format: F,
        part: &RequestPart,
        values: Left<'_, W>,
        candidates: &[f32],
        from: usize,
        group: Group,
        memory: &mut Memory<W>,
    ) -> u64 {
        let Group { tokens: n, lanes, all, .. } = group;
        let (d, layer) = (self.width, &self.layers[0]);
        let Memory { next, probabilities, exponents, own_rows, value_rows, words, .. } = &mut *memory;
        let y = sized(next, d.next_multiple_of(LANES) * all);
        let p = sized(probabilities, n * lanes);
        let mut fallbacks = 0;
        let exponents = sized(exponents, n);
        for i in 0..group.count {
            let row = from + i;
            let (own, value) = (&own_rows[row * n..][..n], &value_rows[row * d..][..d]);
            let candidate = &candidates[row * self.candidate..][..self.candidate];
            residual(&part.token, candidate, value, &layer.out_bias, lanes, all, &mut y[i * lanes..]);
            exponents.copy_from_slice(own);
            lanes::exponentials_of(&part.masked, exponents);
            if !lanes::combine(n, n, lanes, &part.masked, &part.exponentials, exponents, p) {
                lanes::plain(n, lanes, lanes, &part.masked, &part.logits, own, p);
                fallbacks += 1;
            }
            let shape = Shape { rows: d, lanes, stride: lanes, out: all };
            let right = format.right(n, lanes, p, &mut words.probabilities);
            format.product(shape, values, right, Start::Add, &mut y[i * lanes..]);
        }
        layer.rest(format, d, group, memory);
        fallbacks
    }

    /// First tokens into `sequence`, maxima into `memory.pooled`.
    fn outputs(&self, from: usize, group: Group, memory: &mut Memory<W>, sequence: &mut [f32]) {
        let Group { tokens: n, lanes, all, .. } = group;
        let (d, first) = (self.width, self.width * usize::from(self.pool.is_some()));
        let Memory { stream, pooled, .. } = memory;
        for i in 0..group.count {
            let row = &mut sequence[(from + i) * self.output..][..self.output];
            let (x, kept) = (&stream[i * lanes..], n.min(self.first_k));
            let out = &mut row[first..first + self.first_k * d];
            lanes::to_rows(kept, d, all, x, d, out);
            out[kept * d..].fill(0.0);
            if self.pool.is_some() {
                lanes::largest(n, all, x, &mut pooled[(from + i) * d..][..d]);
            }
        }
    }

    /// The linear map of all maxima, into the first columns of `sequence`.
    fn pool<F: Activations<Word = W>>(
        &self,
        format: F,
        pool: &Dense<W>,
        count: usize,
        memory: &mut Memory<W>,
        sequence: &mut [f32],
    ) {
        let (d, lanes) = (self.width, count.next_multiple_of(LANES));
        let Memory { pooled, pool_lanes, pool_out, words, .. } = memory;
        let words = &mut words.stream;
        let x = sized(pool_lanes, d * lanes);
        lanes::from_rows(count, d, d, pooled, lanes, x);
        let y = sized(pool_out, d.next_multiple_of(LANES) * lanes);
        let shape = Shape { rows: d, lanes, stride: lanes, out: lanes };
        format.product(
            shape,
            pool.packed().all(),
            format.right(d, lanes, x, words),
            Start::Bias(&pool.bias),
            y,
        );
        lanes::to_rows(count, d, lanes, y, self.output, sequence);
    }
}

/// The first layer's residual sum before the attention's product: [token ; candidate] + value + bias, features x lanes at
/// `stride`.
fn residual(
    token: &[f32],
    candidate: &[f32],
    value: &[f32],
    bias: &[f32],
    lanes: usize,
    stride: usize,
    y: &mut [f32],
) {
    let more = value.iter().zip(bias).map(|(v, b)| *v + *b);
    let own = candidate.iter().map(Some);
    let tokens = token.chunks_exact(lanes).map(Some).chain(std::iter::repeat(None));
    let candidates = std::iter::repeat_n(None, token.len() / lanes).chain(own);
    for (((y, more), token), candidate) in y.chunks_mut(stride).zip(more).zip(tokens).zip(candidates) {
        let y = &mut y[..lanes];
        match (token, candidate) {
            (Some(token), _) => y.iter_mut().zip(token).for_each(|(y, t)| *y = *t + more),
            (None, c) => y.fill(c.map_or(0.0, |c| *c) + more),
        }
    }
}
