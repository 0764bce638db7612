//! Memory of the forward and backward pass, reused from call to call.

use lately_kernels::Real;
use lately_kernels::parallel::Pool;
use lately_kernels::shared::Parts;

use crate::chunk::Chunk;
use crate::config::Precision;
use crate::encoder::Unit;
use crate::rate::RateTape;
use crate::shard::Shard;
use lately_kernels::buffer::Buffer;

/// Working memory of [`crate::Model`]: one a caller. It grows to what the largest call needs and is then reused.
#[derive(Debug)]
pub struct Scratch<R = f32> {
    pub(crate) precision: Precision,
    pub(crate) pool: Pool,
    pub(crate) chunk: Chunk,
    pub(crate) shards: Vec<Shard<R>>,
    pub(crate) top: TopTape<R>,
    pub(crate) gradient: GradientTape<R>,
    /// One a layer of the encoder, where it has one head.
    pub(crate) folded: Vec<Folded<R>>,
}

impl<R: Default> Default for Scratch<R> {
    fn default() -> Self {
        Self::with_threads(1)
    }
}

impl<R: Default> Scratch<R> {
    /// For calls that share their work among this many threads of its own; with 1 the caller works itself. Results do not
    /// depend on it.
    pub fn with_threads(threads: usize) -> Self {
        let (chunk, shards, precision) = (Chunk::default(), Vec::new(), Precision::F32);
        let (top, gradient) = (TopTape::default(), GradientTape::default());
        Self { precision, pool: Pool::new(threads), chunk, shards, top, gradient, folded: Vec::new() }
    }

    /// The threads.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// For calls that multiply in this precision. The default is f32.
    #[must_use]
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }
}

/// What the encoder's backward needs, and its output.
#[derive(Debug, Default)]
pub(crate) struct EncoderTape<R> {
    /// Requests' tokens x [action ; item].
    pub(crate) token: Buffer<R>,
    /// Rows x candidate embedding.
    pub(crate) candidate: Buffer<R>,
    pub(crate) shared: Parts<Buffer<R>>,
    /// One a layer in training, one in all in serving.
    pub(crate) layers: Vec<LayerTape<R>>,
    /// Of target attention.
    pub(crate) unit: Unit<R>,
    pub(crate) pooled: Buffer<R>,
    pub(crate) argmax: Buffer<u32>,
    pub(crate) work: Work<R>,
}

/// What an encoder needs only while a piece is on its way forward, or backward. It goes from piece to piece, so that it
/// stays in the caches.
#[derive(Debug, Default)]
pub(crate) struct Work<R> {
    /// A part that is added to the tokens' action embedding.
    pub(crate) added: Buffer<R>,
    /// First layer's projections: parts of the token and of the candidate.
    pub(crate) token_projected: Buffer<R>,
    pub(crate) candidate_projected: Buffer<R>,
    /// Encoder tokens: input of a layer, at the end the output.
    pub(crate) stream: Buffer<R>,
    /// Output of a residual branch.
    pub(crate) branch: Buffer<R>,
    /// After a layer's first residual sum.
    pub(crate) middle: Buffer<R>,
    pub(crate) pool_out: Buffer<R>,
    /// Segments x width of the encoder's output.
    pub(crate) sequence: Buffer<R>,
    /// Of the attention.
    pub(crate) scratch: Vec<R>,
}

/// One encoder layer. The outputs of its norms are made again from what they normalised.
#[derive(Debug, Default)]
pub(crate) struct LayerTape<R> {
    /// Queries, keys and values; folded: queries and values.
    pub(crate) projected: Buffer<R>,
    pub(crate) probabilities: Buffer<R>,
    /// Of several heads.
    pub(crate) context: Buffer<R>,
    pub(crate) normed1: Buffer<R>,
    pub(crate) rstd1: Buffer<R>,
    /// Of the feed-forward part, after ReLU and dropout.
    pub(crate) hidden: Buffer<R>,
    pub(crate) normed2: Buffer<R>,
    pub(crate) rstd2: Buffer<R>,
}

/// Inputs, cross layers, MLP, heads; feature-major but for the ends.
#[derive(Debug, Default)]
pub(crate) struct TopTape<R> {
    /// Rows x inputs.
    pub(crate) rows_major: Buffer<R>,
    pub(crate) inputs: Buffer<R>,
    /// Input of every cross layer; the last one is the MLP's input.
    pub(crate) cross: Vec<Buffer<R>>,
    pub(crate) inner: Vec<Buffer<R>>,
    pub(crate) hidden: Vec<Buffer<R>>,
    pub(crate) outputs: Buffer<R>,
    /// Rows x heads.
    pub(crate) logits: Buffer<R>,
    /// The same without the rate tower, where there is one.
    pub(crate) order: Buffer<R>,
    pub(crate) rate: RateTape<R>,
}

/// Folded weights of one layer, see [`lately_kernels::fold`].
#[derive(Debug, Default)]
pub(crate) struct Folded<R> {
    /// 2d x d.
    pub(crate) map: Buffer<R>,
    /// 2d.
    pub(crate) bias: Buffer<R>,
}

/// Gradients of activations, and of folded weights.
#[derive(Debug, Default)]
pub(crate) struct GradientTape<R> {
    /// Rows x heads.
    pub(crate) logits: Buffer<R>,
    /// The rate tower's: of its logits, hidden layer and inputs.
    pub(crate) rate: Buffer<R>,
    pub(crate) rate_hidden: Buffer<R>,
    pub(crate) rate_inputs: Buffer<R>,
    /// Of the top's inputs, rows x inputs.
    pub(crate) rows_major: Buffer<R>,
    /// The top's, feature-major.
    pub(crate) current: Buffer<R>,
    pub(crate) next: Buffer<R>,
    pub(crate) base: Buffer<R>,
    pub(crate) sequence: Buffer<R>,
    pub(crate) unit: Unit<R>,
    pub(crate) pool: Buffer<R>,
    pub(crate) pooled: Buffer<R>,
    pub(crate) stream: Buffer<R>,
    pub(crate) sum: Buffer<R>,
    pub(crate) branch: Buffer<R>,
    pub(crate) middle: Buffer<R>,
    pub(crate) hidden: Buffer<R>,
    pub(crate) context: Buffer<R>,
    pub(crate) projected: Buffer<R>,
    pub(crate) token_projected: Buffer<R>,
    pub(crate) candidate_projected: Buffer<R>,
    pub(crate) shared: Parts<Buffer<R>>,
    pub(crate) token: Buffer<R>,
    /// One a layer.
    pub(crate) folded: Vec<Folded<R>>,
}

/// The buffer at length n; what it holds is not defined.
pub(crate) fn sized<T: Copy + Default>(buffer: &mut Buffer<T>, n: usize) -> &mut [T] {
    buffer.sized(n)
}

/// The buffer at length n, all 0.
pub(crate) fn zeroed<R: Real>(buffer: &mut Buffer<R>, n: usize) -> &mut [R] {
    let out = buffer.sized(n);
    out.fill(R::ZERO);
    out
}

/// As many buffers as wanted.
pub(crate) fn at_least<T: Default>(list: &mut Vec<T>, n: usize) {
    if list.len() < n {
        list.resize_with(n, T::default);
    }
}

/// `a += b`.
pub(crate) fn accumulate<R: Real>(a: &mut [R], b: &[R]) {
    lately_kernels::simd::wide(
        #[inline(always)]
        || a.iter_mut().zip(b).for_each(|(a, b)| *a += *b),
    );
}
