//! Memory of the forward and backward pass, reused from call to call.

use lately_kernels::Real;
use lately_kernels::parallel::Pool;
use lately_kernels::shared::Parts;

use crate::chunk::Chunk;
use crate::config::Precision;
use crate::encoder::Unit;
use crate::rate::RateTape;
use crate::shard::Shard;

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
    pub(crate) token: Vec<R>,
    /// Rows x candidate embedding.
    pub(crate) candidate: Vec<R>,
    pub(crate) shared: Parts<Vec<R>>,
    /// One a layer in training, one in all in serving.
    pub(crate) layers: Vec<LayerTape<R>>,
    /// Of target attention.
    pub(crate) unit: Unit<R>,
    pub(crate) pooled: Vec<R>,
    pub(crate) argmax: Vec<u32>,
    pub(crate) work: Work<R>,
}

/// What an encoder needs only while a piece is on its way forward, or backward and goes from piece to piece, so that it
/// stays in the caches.
#[derive(Debug, Default)]
pub(crate) struct Work<R> {
    /// A part that is added to the tokens' action embedding.
    pub(crate) added: Vec<R>,
    /// First layer's projections: parts of the token and of the candidate.
    pub(crate) token_projected: Vec<R>,
    pub(crate) candidate_projected: Vec<R>,
    /// Encoder tokens: input of a layer, at the end the output.
    pub(crate) stream: Vec<R>,
    /// Output of a residual branch.
    pub(crate) branch: Vec<R>,
    /// After a layer's first residual sum.
    pub(crate) middle: Vec<R>,
    pub(crate) pool_out: Vec<R>,
    /// Segments x width of the encoder's output.
    pub(crate) sequence: Vec<R>,
    /// Of the attention.
    pub(crate) scratch: Vec<R>,
}

/// One encoder layer. The outputs of its norms are made again from what they normalised.
#[derive(Debug, Default)]
pub(crate) struct LayerTape<R> {
    /// Queries, keys and values; folded: queries and values.
    pub(crate) projected: Vec<R>,
    pub(crate) probabilities: Vec<R>,
    /// Of several heads.
    pub(crate) context: Vec<R>,
    pub(crate) normed1: Vec<R>,
    pub(crate) rstd1: Vec<R>,
    /// Of the feed-forward part, after ReLU and dropout.
    pub(crate) hidden: Vec<R>,
    pub(crate) normed2: Vec<R>,
    pub(crate) rstd2: Vec<R>,
}

/// Inputs, cross layers, MLP, heads; feature-major but for the ends.
#[derive(Debug, Default)]
pub(crate) struct TopTape<R> {
    /// Rows x inputs.
    pub(crate) rows_major: Vec<R>,
    pub(crate) inputs: Vec<R>,
    /// Input of every cross layer; the last one is the MLP's input.
    pub(crate) cross: Vec<Vec<R>>,
    pub(crate) inner: Vec<Vec<R>>,
    pub(crate) hidden: Vec<Vec<R>>,
    pub(crate) outputs: Vec<R>,
    /// Rows x heads.
    pub(crate) logits: Vec<R>,
    /// The same without the rate tower, where there is one.
    pub(crate) order: Vec<R>,
    pub(crate) rate: RateTape<R>,
}

/// Folded weights of one layer, see [`lately_kernels::fold`].
#[derive(Debug, Default)]
pub(crate) struct Folded<R> {
    /// 2d x d.
    pub(crate) map: Vec<R>,
    /// 2d.
    pub(crate) bias: Vec<R>,
}

/// Gradients of activations, and of folded weights.
#[derive(Debug, Default)]
pub(crate) struct GradientTape<R> {
    /// Rows x heads.
    pub(crate) logits: Vec<R>,
    /// The rate tower's: of its logits, hidden layer and inputs.
    pub(crate) rate: Vec<R>,
    pub(crate) rate_hidden: Vec<R>,
    pub(crate) rate_inputs: Vec<R>,
    /// Of the top's inputs, rows x inputs.
    pub(crate) rows_major: Vec<R>,
    /// The top's, feature-major.
    pub(crate) current: Vec<R>,
    pub(crate) next: Vec<R>,
    pub(crate) base: Vec<R>,
    pub(crate) sequence: Vec<R>,
    pub(crate) unit: Unit<R>,
    pub(crate) pool: Vec<R>,
    pub(crate) pooled: Vec<R>,
    pub(crate) stream: Vec<R>,
    pub(crate) sum: Vec<R>,
    pub(crate) branch: Vec<R>,
    pub(crate) middle: Vec<R>,
    pub(crate) hidden: Vec<R>,
    pub(crate) context: Vec<R>,
    pub(crate) projected: Vec<R>,
    pub(crate) token_projected: Vec<R>,
    pub(crate) candidate_projected: Vec<R>,
    pub(crate) shared: Parts<Vec<R>>,
    pub(crate) token: Vec<R>,
    /// One a layer.
    pub(crate) folded: Vec<Folded<R>>,
}

/// The buffer at length n; what it holds is not defined.
pub(crate) fn sized<T: Copy + Default>(buffer: &mut Vec<T>, n: usize) -> &mut [T] {
    buffer.resize(n, T::default());
    buffer
}

/// The buffer at length n, all 0.
pub(crate) fn zeroed<R: Real>(buffer: &mut Vec<R>, n: usize) -> &mut [R] {
    buffer.clear();
    buffer.resize(n, R::ZERO);
    buffer
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
