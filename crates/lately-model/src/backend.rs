//! The seam between the model and what computes it: about a dozen fused operations, each with its backward.
//!
//! A backend promises the results of [`Scalar`], the plain reference, up to rounding. What each operation computes,
//! with the shapes, is documented in the module of `lately-kernels` that is named beside it. `suite` is the one test
//! that every backend passes.

use std::ops::Range;

use lately_kernels::add_norm::Shape as NormShape;
use lately_kernels::attention::Shape as AttentionShape;
use lately_kernels::bf16::{Bf16, Split};
use lately_kernels::dense::Shape as Tile;
use lately_kernels::embedding::Shape as EmbeddingShape;
use lately_kernels::expand::Segments;
use lately_kernels::folded::Shape as FoldedShape;
use lately_kernels::linear::Shape;
use lately_kernels::matrix::Exact;
use lately_kernels::shared::{Parts, Shape as SharedShape};
use lately_kernels::{Dropout, Real};

#[cfg(test)]
pub(crate) mod suite;

/// The fast operations of `lately-kernels`.
#[derive(Debug, Clone, Copy)]
pub struct Cpu;

/// The same with the weights' gradients multiplied in bfloat16 (sums and all else stay f32) and other products in split
/// numbers; see [`lately_kernels::bf16`].
#[derive(Debug, Clone, Copy)]
pub struct CpuBf16;

/// The same with all products of rounded factors: for scoring, where a third of the multiplications keeps the order of
/// candidates (rank correlation with f32 above .999).
#[derive(Debug, Clone, Copy)]
pub struct CpuRounded;

/// The references of `lately-kernels` in plain loops.
#[derive(Debug, Clone, Copy)]
pub struct Scalar;

/// Declares the trait and implements it by the functions named on the right: `module::function` for [`Cpu`],
/// [`CpuBf16`] and [`CpuRounded`], `module::scalar::function` for [`Scalar`]. `by` marks those that multiply matrices.
macro_rules! backend {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?)
        = $module:ident::$function:ident $(by $products:ident)?;)*) => {
        /// What the model is made of. `R` is f32, or f64 in gradient checks.
        #[allow(missing_docs)] // the attributes below carry the documentation
        pub trait Backend<R: Real>: 'static {
            $($(#[$doc])* fn $name($($arg: $type),*);)*
        }
        impl<R: Real> Backend<R> for Cpu {
            $(fn $name($($arg: $type),*) { fast!(R, Exact, Exact, $module::$function($($arg),*) $($products)?) })*
        }
        const _: () = {
            type R = f32; // the operations' arguments name it
            impl Backend<R> for CpuBf16 {
                $(fn $name($($arg: $type),*) { fast!(R, Split, Bf16, $module::$function($($arg),*) $($products)?) })*
            }
            impl Backend<R> for CpuRounded {
                $(fn $name($($arg: $type),*) { fast!(R, Bf16, Bf16, $module::$function($($arg),*) $($products)?) })*
            }
        };
        impl<R: Real> Backend<R> for Scalar {
            $(fn $name($($arg: $type),*) { lately_kernels::$module::scalar::$function($($arg),*) })*
        }
    };
}

/// The fast form of an operation, by the products given for forward and for backward where it multiplies.
macro_rules! fast {
    ($r:ty, $f:ty, $b:ty, $module:ident::$function:ident($($arg:ident),*) forward) => {
        lately_kernels::$module::$function::<$r, $f>($($arg),*)
    };
    ($r:ty, $f:ty, $b:ty, $module:ident::$function:ident($($arg:ident),*) exact) => {
        lately_kernels::$module::$function::<$r, Exact>($($arg),*)
    };
    ($r:ty, $f:ty, $b:ty, $module:ident::$function:ident($($arg:ident),*) backward) => {
        lately_kernels::$module::$function::<$r, $b>($($arg),*)
    };
    ($r:ty, $f:ty, $b:ty, $module:ident::$function:ident($($arg:ident),*) both) => {
        lately_kernels::$module::$function::<$r, $f, $b>($($arg),*)
    };
    ($r:ty, $f:ty, $b:ty, $module:ident::$function:ident($($arg:ident),*)) => {
        lately_kernels::$module::$function($($arg),*)
    };
}

backend! {
    /// y = x W^T + b, optionally through a ReLU.
    fn linear(s: Shape, x: &[R], w: &[R], b: &[R], relu: bool, y: &mut [R]) = linear::forward by forward;
    /// Gradients of `linear`.
    fn linear_backward(
        s: Shape, x: &[R], w: &[R], y: &[R], dy: &mut [R], dx: &mut [R], dw: &mut [R], db: &mut [R],
    ) = linear::backward by both;
    /// Multi-head attention within ragged segments.
    fn attention(
        s: AttentionShape<'_>, qkv: &[R], probabilities: &mut [R], context: &mut [R], scratch: &mut Vec<R>,
    ) = attention::forward by forward;
    /// Gradient of `attention`.
    fn attention_backward(
        s: AttentionShape<'_>, qkv: &[R], probabilities: &[R], d_context: &[R], d_qkv: &mut [R],
        scratch: &mut Vec<R>,
    ) = attention::backward by forward;
    /// Weights of one-head attention, folded.
    fn fold(d: usize, in_weight: &[R], in_bias: &[R], out_weight: &[R], map: &mut [R], bias: &mut [R])
        = fold::forward by exact;
    /// Gradients of `fold`.
    fn fold_backward(
        d: usize, weights: (&[R], &[R], &[R]), d_folded: (&[R], &[R]), d_in_weight: &mut [R],
        d_in_bias: &mut [R], d_out_weight: &mut [R],
    ) = fold::backward by exact;
    /// One-head attention by folded weights.
    fn folded(
        s: FoldedShape<'_>, x: &[R], qv: &[R], probabilities: &mut [R], out: &mut [R], scratch: &mut Vec<R>,
    ) = folded::forward by forward;
    /// Gradients of `folded`.
    fn folded_backward(
        s: FoldedShape<'_>, x: &[R], qv: &[R], probabilities: &[R], d_out: &[R], d_qv: &mut [R],
        d_x: &mut [R], scratch: &mut Vec<R>,
    ) = folded::backward by forward;
    /// The same where a request's candidates share their tokens' queries, keys and values.
    fn shared(
        s: SharedShape<'_>, parts: Parts<&[R]>, probabilities: &mut [R], out: &mut [R], scratch: &mut Vec<R>,
    ) = shared::forward by forward;
    /// Gradients of `shared`.
    fn shared_backward(
        s: SharedShape<'_>, parts: Parts<&[R]>, probabilities: &[R], d_out: &[R], d: &mut Parts<&mut [R]>,
        scratch: &mut Vec<R>,
    ) = shared::backward by forward;
    /// Residual sum, with the branch's bias and dropout, and layer normalisation.
    fn add_norm(
        s: NormShape, x: &[R], branch: &[R], bias: &[R], gamma: &[R], beta: &[R], normed: &mut [R],
        rstd: &mut [R], y: &mut [R],
    ) = add_norm::forward;
    /// The output of `add_norm` again.
    fn add_norm_output(width: usize, normed: &[R], gamma: &[R], beta: &[R], y: &mut [R]) = add_norm::output;
    /// Gradients of `add_norm`.
    fn add_norm_backward(
        s: NormShape, normed: &[R], rstd: &[R], gamma: &[R], dy: &[R], dx: &mut [R], d_branch: &mut [R],
        d_bias: &mut [R], d_gamma: &mut [R], d_beta: &mut [R],
    ) = add_norm::backward;
    /// A tile of a linear map, feature-major.
    fn dense(s: Tile, x: &[R], w: &[R], b: &[R], relu: bool, y: &mut [R]) = dense::forward by forward;
    /// Gradient of `dense` for a range of its inputs.
    fn dense_input(s: Tile, range: Range<usize>, w: &[R], dy: &[R], dx: &mut [R])
        = dense::input_gradient by forward;
    /// Gradients of `dense` for a tile's weights.
    fn dense_weight(s: Tile, x: &[R], dy: &[R], dw: &mut [R], db: &mut [R])
        = dense::weight_gradient by backward;
    /// Gradient of a ReLU.
    fn relu_backward(y: &[R], dy: &mut [R]) = dense::relu_backward;
    /// What makes a DCN v2 layer of a linear map.
    fn gate(x0: &[R], inner: &[R], x: &[R], y: &mut [R]) = dense::gate;
    /// Gradients of `gate`.
    fn gate_backward(x0: &[R], inner: &mut [R], dy: &[R], dx0: &mut [R]) = dense::gate_backward;
    /// From row-major to feature-major and back.
    fn transpose(rows: usize, columns: usize, x: &[R], out: &mut [R]) = dense::transpose;
    /// Rows of a table, averaged over slots.
    fn embedding(s: EmbeddingShape<'_>, table: &[R], indices: &[u32], out: &mut [R]) = embedding::gather;
    /// Gradient of `embedding`.
    fn embedding_backward(
        s: EmbeddingShape<'_>, indices: &[u32], d_out: &[R], padding: bool, d_table: &mut [R],
        touch: &mut dyn FnMut(u32),
    ) = embedding::scatter;
    /// Tokens of every segment, [a ; c].
    fn expand(s: Segments<'_>, widths: (usize, usize), a: &[R], c: &[R], out: &mut [R]) = expand::concat;
    /// A linear map of the tokens of every segment, A(a) + C(c).
    fn expand_add(s: Segments<'_>, width: usize, a: &[R], c: &[R], out: &mut [R]) = expand::add;
    /// Gradient of both for a.
    fn expand_collect(s: Segments<'_>, stride: usize, width: usize, d_out: &[R], da: &mut [R]) = expand::collect;
    /// Gradient of `expand_add` for c.
    fn expand_sum(s: Segments<'_>, width: usize, d_out: &[R], dc: &mut [R]) = expand::sum;
    /// Maximum over the tokens of a segment.
    fn max_pool(offsets: &[u32], width: usize, x: &[R], out: &mut [R], argmax: &mut [u32]) = pool::max;
    /// Gradient of `max_pool`.
    fn max_pool_backward(width: usize, argmax: &[u32], dy: &[R], dx: &mut [R]) = pool::max_backward;
    /// The first K tokens of a segment.
    fn first_k(
        offsets: &[u32], width: usize, k: usize, x: &[R], out: &mut [R], stride: usize, offset: usize,
    ) = pool::first;
    /// Gradient of `first_k`.
    fn first_k_backward(
        offsets: &[u32], width: usize, k: usize, dy: &[R], stride: usize, offset: usize, dx: &mut [R],
    ) = pool::first_backward;
    /// Mean over the tokens of a segment.
    fn mean_pool(offsets: &[u32], width: usize, x: &[R], out: &mut [R]) = pool::mean;
    /// Gradient of `mean_pool`.
    fn mean_pool_backward(offsets: &[u32], width: usize, dy: &[R], dx: &mut [R]) = pool::mean_backward;
    /// Inputs of target attention: token, candidate, product, difference.
    fn pairs(s: Segments<'_>, widths: (usize, usize), token: &[R], candidate: &[R], out: &mut [R])
        = target::pairs;
    /// Gradient of `pairs` for the tokens.
    fn pairs_backward(
        s: Segments<'_>, widths: (usize, usize), candidate: &[R], d_out: &[R], d_token: &mut [R],
    ) = target::pairs_backward;
    /// Weighted sum over the tokens of a segment.
    fn weighted(s: Segments<'_>, width: usize, token: &[R], weight: &[R], out: &mut [R]) = target::weighted;
    /// Gradients of `weighted`.
    fn weighted_backward(
        s: Segments<'_>, width: usize, token: &[R], weight: &[R], dy: &[R], d_token: &mut [R],
        d_weight: &mut [R],
    ) = target::weighted_backward;
    /// Dropout, forward and backward alike.
    fn dropout(dropout: Dropout, start: u32, x: &mut [R]) = dropout::apply;
}
