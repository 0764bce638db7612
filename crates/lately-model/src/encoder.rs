//! The user sequence: forward and backward of the mean and of TransAct.

use lately_features::FeatureBatch;
use lately_kernels::attention::Shape as AttentionShape;
use lately_kernels::columns::{self, Block};
use lately_kernels::embedding::Shape as EmbeddingShape;
use lately_kernels::expand::Segments;
use lately_kernels::linear::Shape;
use lately_kernels::{Dropout, Real};

use crate::Gradients;
use crate::backend::Backend;
use crate::chunk::Chunk;
use crate::config::Encoder;
use crate::network::Network;
use crate::plan::{LayerIds, Plan};
use crate::tape::{EncoderTape, GradientTape, LayerTape, accumulate, at_least, sized, zeroed};

/// Places of dropout in a layer; a layer's masks start at `layer * PLACES`.
const PLACES: u64 = 4;

fn segments(chunk: &Chunk) -> Segments<'_> {
    Segments { offsets: &chunk.offsets, source: &chunk.source }
}

fn actions<'a>(plan: &Plan, action_dim: usize, chunk: &'a Chunk) -> EmbeddingShape<'a> {
    let entity = chunk.identity(chunk.tokens.len());
    let (index_stride, index_start, offset) = (1, 0, 0);
    EmbeddingShape {
        dim: action_dim,
        slots: 1,
        index_stride,
        index_start,
        entity,
        stride: plan.token,
        offset,
    }
}

/// Fills `tape.sequence` (segments x the encoder's output width). With `keep` every layer's activations stay.
pub(crate) fn forward<R: Real, B: Backend<R>>(
    network: &Network<R>,
    batch: &FeatureBatch,
    chunk: &Chunk,
    tape: &mut EncoderTape<R>,
    keep: bool,
    dropout: Dropout,
) {
    if network.config.encoder == Encoder::None {
        return;
    }
    tokens::<R, B>(network, batch, chunk, tape);
    let plan = &network.plan;
    let out = sized(&mut tape.sequence, chunk.source.len() * plan.sequence);
    if network.config.encoder == Encoder::Mean {
        return B::mean_pool(&chunk.offsets, plan.token, &tape.token, out);
    }
    expand::<R, B>(network, batch, chunk, tape);
    at_least(&mut tape.layers, if keep { plan.layers.len() } else { 1 });
    for (i, ids) in plan.layers.iter().enumerate() {
        layer::<R, B>(network, chunk, tape, (i, *ids), keep, dropout);
    }
    outputs::<R, B>(network, chunk, tape);
}

/// [action embedding ; item embedding] of the requests' tokens.
fn tokens<R: Real, B: Backend<R>>(
    network: &Network<R>,
    batch: &FeatureBatch,
    chunk: &Chunk,
    tape: &mut EncoderTape<R>,
) {
    let (plan, dim) = (&network.plan, network.config.action_dim);
    let n = chunk.tokens.len();
    let token = sized(&mut tape.token, n * plan.token);
    let shape = actions(plan, dim, chunk);
    B::embedding(shape, network.weight(plan.action_table), &chunk.action, token);
    let item = Block { source: chunk.identity(n), width: plan.item_dim, stride: plan.token, offset: dim };
    let from = &batch.token_item[chunk.tokens.start * plan.item_dim..];
    columns::scaled(item, from, network.embedding_scale(), token);
}

/// Tokens of every segment, with the candidate where it is fused.
fn expand<R: Real, B: Backend<R>>(
    network: &Network<R>,
    batch: &FeatureBatch,
    chunk: &Chunk,
    tape: &mut EncoderTape<R>,
) {
    let (plan, c) = (&network.plan, network.plan.candidate());
    let candidate = sized(&mut tape.candidate, chunk.source.len() * c);
    if c > 0 {
        let block = Block { source: chunk.identity(chunk.rows.len()), width: c, stride: c, offset: 0 };
        columns::scaled(
            block,
            &batch.candidate[chunk.rows.start * c..],
            network.embedding_scale(),
            candidate,
        );
    }
    let stream = sized(&mut tape.stream, chunk.expanded() * plan.width);
    B::expand(segments(chunk), (plan.token, c), &tape.token, candidate, stream);
}

/// Queries, keys and values of the first layer: the token's part once a request, the candidate's once a row.
fn first_qkv<R: Real, B: Backend<R>>(
    network: &Network<R>,
    chunk: &Chunk,
    tape: &mut EncoderTape<R>,
    in_proj: usize,
) {
    let (plan, (w, b)) = (&network.plan, network.linear(in_proj));
    let (d, c, n) = (plan.width, plan.candidate(), chunk.tokens.len());
    let shape = Shape { rows: n, inputs: plan.token, outputs: 3 * d, stride: d };
    let token = sized(&mut tape.token_qkv, n * 3 * d);
    B::linear(shape, &tape.token, w, b, false, token);
    let candidate = sized(&mut tape.candidate_qkv, if c > 0 { chunk.source.len() * 3 * d } else { 0 });
    if c > 0 {
        let shape = Shape { rows: chunk.source.len(), inputs: c, outputs: 3 * d, stride: d };
        B::linear(shape, &tape.candidate, &w[plan.token..], &[], false, candidate);
    }
    let out = sized(&mut tape.layers[0].qkv, chunk.expanded() * 3 * d);
    B::expand_add(segments(chunk), 3 * d, token, candidate, out);
}

fn attention_shape<'a, R: Real>(
    network: &Network<R>,
    chunk: &'a Chunk,
    dropout: Dropout,
) -> AttentionShape<'a> {
    let heads = network.config.attention_heads;
    let width = network.plan.width;
    AttentionShape { offsets: &chunk.offsets, width, heads, masked: &chunk.masked, dropout }
}

fn layer<R: Real, B: Backend<R>>(
    network: &Network<R>,
    chunk: &Chunk,
    tape: &mut EncoderTape<R>,
    (index, ids): (usize, LayerIds),
    keep: bool,
    dropout: Dropout,
) {
    let (d, ffn, n) = (network.plan.width, network.config.ffn, chunk.expanded());
    let place = |i: u64| dropout.at(index as u64 * PLACES + i);
    if index == 0 {
        first_qkv::<R, B>(network, chunk, tape, ids.in_proj);
    }
    let EncoderTape { layers, stream, branch, scratch, .. } = tape;
    let LayerTape { input, qkv, probabilities, context, normed1, rstd1, middle, hidden, normed2, rstd2 } =
        &mut layers[if keep { index } else { 0 }];
    std::mem::swap(input, stream);
    if index > 0 {
        let (w, b) = network.linear(ids.in_proj);
        B::linear(Shape::new(n, d, 3 * d), input, w, b, false, sized(qkv, n * 3 * d));
    }
    let shape = attention_shape(network, chunk, place(0));
    let probabilities = sized(probabilities, shape.probabilities());
    B::attention(shape, qkv, probabilities, sized(context, n * d), scratch);
    let (w, b) = network.linear(ids.out_proj);
    let branch = sized(branch, n * d);
    B::linear(Shape::new(n, d, d), context, w, b, false, branch);
    B::dropout(place(1), 0, branch);
    let (g, b) = network.linear(ids.norm1);
    let (normed, rstd) = (sized(normed1, n * d), sized(rstd1, n));
    B::add_norm(d, input, branch, g, b, normed, rstd, sized(middle, n * d));
    let (w, b) = network.linear(ids.linear1);
    B::linear(Shape::new(n, d, ffn), middle, w, b, true, sized(hidden, n * ffn));
    B::dropout(place(2), 0, hidden);
    let (w, b) = network.linear(ids.linear2);
    B::linear(Shape::new(n, ffn, d), hidden, w, b, false, branch);
    B::dropout(place(3), 0, branch);
    let (g, b) = network.linear(ids.norm2);
    let (normed, rstd) = (sized(normed2, n * d), sized(rstd2, n));
    B::add_norm(d, middle, branch, g, b, normed, rstd, sized(stream, n * d));
}

/// [Linear(max over tokens) ; first K tokens], all zeros for an empty segment.
fn outputs<R: Real, B: Backend<R>>(network: &Network<R>, chunk: &Chunk, tape: &mut EncoderTape<R>) {
    let (plan, d, s) = (&network.plan, network.plan.width, chunk.source.len());
    let first = d * usize::from(plan.pool.is_some());
    let EncoderTape { stream, pooled, pool_out, argmax, sequence, .. } = tape;
    B::first_k(&chunk.offsets, d, plan.first_k, stream, sequence, plan.sequence, first);
    let Some(pool) = plan.pool else { return };
    let pooled = sized(pooled, s * d);
    B::max_pool(&chunk.offsets, d, stream, pooled, sized(argmax, s * d));
    let (w, b) = network.linear(pool);
    let out = sized(pool_out, s * d);
    B::linear(Shape::new(s, d, d), pooled, w, b, false, out);
    chunk.empty_segments().for_each(|s| out[s * d..(s + 1) * d].fill(R::ZERO));
    let block = Block { source: chunk.identity(s), width: d, stride: plan.sequence, offset: 0 };
    columns::place(block, out, sequence);
}

/// From `d.sequence` to the parameters.
pub(crate) fn backward<R: Real, B: Backend<R>>(
    network: &Network<R>,
    chunk: &Chunk,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    dropout: Dropout,
    gradients: &mut Gradients<R>,
) {
    let (plan, n) = (&network.plan, chunk.tokens.len());
    if network.config.encoder == Encoder::Mean {
        let token = zeroed(&mut d.token, n * plan.token);
        B::mean_pool_backward(&chunk.offsets, plan.token, &d.sequence, token);
    } else {
        outputs_backward::<R, B>(network, chunk, tape, d, gradients);
        for (i, ids) in plan.layers.iter().enumerate().rev() {
            layer_backward::<R, B>(network, chunk, tape, d, (i, *ids), dropout, gradients);
        }
        first_backward::<R, B>(network, chunk, tape, d, plan.layers[0].in_proj, gradients);
    }
    let (table, mut touch) = gradients.table(plan.action_table);
    let shape = actions(plan, network.config.action_dim, chunk);
    B::embedding_backward(shape, &chunk.action, &d.token, network.config.compatibility, table, &mut touch);
}

fn outputs_backward<R: Real, B: Backend<R>>(
    network: &Network<R>,
    chunk: &Chunk,
    tape: &EncoderTape<R>,
    d: &mut GradientTape<R>,
    gradients: &mut Gradients<R>,
) {
    let (plan, w, s) = (&network.plan, network.plan.width, chunk.source.len());
    let first = w * usize::from(plan.pool.is_some());
    let stream = zeroed(&mut d.stream, chunk.expanded() * w);
    B::first_k_backward(&chunk.offsets, w, plan.first_k, &d.sequence, plan.sequence, first, stream);
    let Some(pool) = plan.pool else { return };
    let out = sized(&mut d.pool, s * w);
    for (out, row) in out.chunks_exact_mut(w).zip(d.sequence.chunks_exact(plan.sequence)) {
        out.copy_from_slice(&row[..w]);
    }
    chunk.empty_segments().for_each(|s| out[s * w..(s + 1) * w].fill(R::ZERO));
    let pooled = sized(&mut d.pooled, s * w);
    let (dw, db) = gradients.pair(pool);
    B::linear_backward(Shape::new(s, w, w), &tape.pooled, network.weight(pool), &[], out, pooled, dw, db);
    B::max_pool_backward(w, &tape.argmax, pooled, stream);
}

/// In: `d.stream`, the gradient of the layer's output. Out: `d.qkv`, and `d.sum`, the gradient that reaches the
/// layer's input around the attention; for all but the first layer also `d.stream`, the gradient of the input.
fn layer_backward<R: Real, B: Backend<R>>(
    network: &Network<R>,
    chunk: &Chunk,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    (index, ids): (usize, LayerIds),
    dropout: Dropout,
    gradients: &mut Gradients<R>,
) {
    let (width, ffn, n) = (network.plan.width, network.config.ffn, chunk.expanded());
    let place = |i: u64| dropout.at(index as u64 * PLACES + i);
    let GradientTape { stream, sum, branch, middle, hidden, context, qkv, .. } = d;
    let t = &tape.layers[index];
    let w = |id: usize| network.weight(id);
    let sum = sized(sum, n * width);
    let (dg, db) = gradients.pair(ids.norm2);
    B::add_norm_backward(width, &t.normed2, &t.rstd2, w(ids.norm2), stream, sum, dg, db);
    let branch = sized(branch, n * width);
    branch.copy_from_slice(sum);
    B::dropout(place(3), 0, branch);
    let hidden = sized(hidden, n * ffn);
    let (dw, db) = gradients.pair(ids.linear2);
    B::linear_backward(Shape::new(n, ffn, width), &t.hidden, w(ids.linear2), &[], branch, hidden, dw, db);
    B::dropout(place(2), 0, hidden);
    let middle = sized(middle, n * width);
    let (dw, db) = gradients.pair(ids.linear1);
    let shape = Shape::new(n, width, ffn);
    B::linear_backward(shape, &t.middle, w(ids.linear1), &t.hidden, hidden, middle, dw, db);
    accumulate(middle, sum);
    let (dg, db) = gradients.pair(ids.norm1);
    B::add_norm_backward(width, &t.normed1, &t.rstd1, w(ids.norm1), middle, sum, dg, db);
    branch.copy_from_slice(sum);
    B::dropout(place(1), 0, branch);
    let context = sized(context, n * width);
    let (dw, db) = gradients.pair(ids.out_proj);
    let shape = Shape::new(n, width, width);
    B::linear_backward(shape, &t.context, w(ids.out_proj), &[], branch, context, dw, db);
    let qkv = sized(qkv, n * 3 * width);
    let shape = attention_shape(network, chunk, place(0));
    B::attention_backward(shape, &t.qkv, &t.probabilities, context, qkv, &mut tape.scratch);
    if index > 0 {
        let (dw, db) = gradients.pair(ids.in_proj);
        let shape = Shape::new(n, width, 3 * width);
        B::linear_backward(shape, &t.input, w(ids.in_proj), &[], qkv, stream, dw, db);
        accumulate(stream, sum);
    }
}

/// The first layer's projection and the tokens: sums over the candidates come before the products, as in the forward.
fn first_backward<R: Real, B: Backend<R>>(
    network: &Network<R>,
    chunk: &Chunk,
    tape: &EncoderTape<R>,
    d: &mut GradientTape<R>,
    in_proj: usize,
    gradients: &mut Gradients<R>,
) {
    let (plan, w) = (&network.plan, network.weight(in_proj));
    let (width, c, n, s) = (plan.width, plan.candidate(), chunk.tokens.len(), chunk.source.len());
    let (dw, db) = gradients.pair(in_proj);
    let token_qkv = zeroed(&mut d.token_qkv, n * 3 * width);
    B::expand_collect(segments(chunk), 3 * width, 3 * width, &d.qkv, token_qkv);
    let token = sized(&mut d.token, n * plan.token);
    let shape = Shape { rows: n, inputs: plan.token, outputs: 3 * width, stride: width };
    B::linear_backward(shape, &tape.token, w, &[], token_qkv, token, dw, db);
    B::expand_collect(segments(chunk), width, plan.token, &d.sum, token);
    if c > 0 {
        let candidate_qkv = sized(&mut d.candidate_qkv, s * 3 * width);
        B::expand_sum(segments(chunk), 3 * width, &d.qkv, candidate_qkv);
        let shape = Shape { rows: s, inputs: c, outputs: 3 * width, stride: width };
        let (w, dw) = (&w[plan.token..], &mut dw[plan.token..]);
        B::linear_backward(shape, &tape.candidate, w, &[], candidate_qkv, &mut [], dw, &mut []);
    }
}
