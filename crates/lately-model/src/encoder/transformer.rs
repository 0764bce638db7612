//! The transformer's layers, post-norm: x = norm(x + attention(x)), x = norm(x + ffn(x)).
//!
//! The first layer's projection is shared: with token = [a ; c] it is A(a) + C(c), A once a request's token and C once
//! a candidate.

use lately_kernels::attention::Shape as AttentionShape;
use lately_kernels::linear::Shape;
use lately_kernels::{Dropout, Real};

use super::Pass;
use super::tokens::{collect, spread, sum};
use crate::Gradients;
use crate::backend::Backend;
use crate::plan::{Builder, LayerIds};
use crate::tape::{EncoderTape, GradientTape, LayerTape, accumulate, at_least, sized, zeroed};

/// Places of dropout in a layer; a layer's masks start at `layer * PLACES`.
const PLACES: u64 = 4;

/// Declares `layers` layers, named `name.0`, `name.1`, ..., on tokens of a width.
pub(super) fn plan(b: &mut Builder, name: &str, layers: usize, width: usize, ffn: usize) -> Vec<LayerIds> {
    (0..layers).map(|i| b.layer(&format!("{name}.{i}"), width, ffn)).collect()
}

/// From `tape.token`, `tape.candidate` and `tape.stream` to the encoded tokens in `tape.stream`.
pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, keep: bool) {
    let layers = &pass.plan().layers;
    at_least(&mut tape.layers, if keep { layers.len() } else { 1 });
    for (i, ids) in layers.iter().enumerate() {
        layer::<R, B>(pass, tape, (i, *ids), keep);
    }
}

/// From `d.stream` to `d.token` and the parameters.
pub(super) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    gradients: &mut Gradients<R>,
) {
    for (i, ids) in pass.plan().layers.iter().enumerate().rev() {
        layer_backward::<R, B>(pass, tape, d, (i, *ids), gradients);
    }
    first_backward::<R, B>(pass, tape, d, gradients);
}

/// Queries, keys and values of the first layer: the token's part once a request, the candidate's once a row.
fn first_qkv<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, in_proj: usize) {
    let (plan, chunk, (w, b)) = (pass.plan(), pass.chunk, pass.network.linear(in_proj));
    let (d, c, n) = (plan.width, plan.candidate(), chunk.token_rows());
    let shape = Shape { rows: n, inputs: plan.token, outputs: 3 * d, stride: d };
    let token = sized(&mut tape.token_qkv, n * 3 * d);
    B::linear(shape, &tape.token, w, b, false, token);
    let candidate = sized(&mut tape.candidate_qkv, if c > 0 { chunk.source.len() * 3 * d } else { 0 });
    if c > 0 {
        let shape = Shape { rows: chunk.source.len(), inputs: c, outputs: 3 * d, stride: d };
        B::linear(shape, &tape.candidate, &w[plan.token..], &[], false, candidate);
    }
    let out = sized(&mut tape.layers[0].qkv, chunk.expanded() * 3 * d);
    spread::<R, B>(pass, 3 * d, token, candidate, out);
}

fn attention_shape<'a, R>(pass: &Pass<'a, R>, dropout: Dropout) -> AttentionShape<'a> {
    let (chunk, heads) = (pass.chunk, pass.network.config.attention_heads);
    let width = pass.plan().width;
    AttentionShape { offsets: &chunk.offsets, width, heads, masked: &chunk.masked, dropout }
}

fn layer<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    (index, ids): (usize, LayerIds),
    keep: bool,
) {
    let (network, chunk) = (pass.network, pass.chunk);
    let (d, ffn, n) = (pass.plan().width, network.config.ffn, chunk.expanded());
    let place = |i: u64| pass.dropout.at(index as u64 * PLACES + i);
    if index == 0 {
        first_qkv::<R, B>(pass, tape, ids.in_proj);
    }
    let EncoderTape { layers, stream, branch, scratch, .. } = tape;
    let LayerTape { input, qkv, probabilities, context, normed1, rstd1, middle, hidden, normed2, rstd2 } =
        &mut layers[if keep { index } else { 0 }];
    std::mem::swap(input, stream);
    if index > 0 {
        let (w, b) = network.linear(ids.in_proj);
        B::linear(Shape::new(n, d, 3 * d), input, w, b, false, sized(qkv, n * 3 * d));
    }
    let shape = attention_shape(pass, place(0));
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

/// In: `d.stream`, the gradient of the layer's output. Out: `d.qkv`, and `d.sum`, the gradient that reaches the
/// layer's input around the attention; for all but the first layer also `d.stream`, the gradient of the input.
fn layer_backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    (index, ids): (usize, LayerIds),
    gradients: &mut Gradients<R>,
) {
    let (network, chunk) = (pass.network, pass.chunk);
    let (width, ffn, n) = (pass.plan().width, network.config.ffn, chunk.expanded());
    let place = |i: u64| pass.dropout.at(index as u64 * PLACES + i);
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
    let shape = attention_shape(pass, place(0));
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
    pass: &Pass<'_, R>,
    tape: &EncoderTape<R>,
    d: &mut GradientTape<R>,
    gradients: &mut Gradients<R>,
) {
    let (plan, chunk, in_proj) = (pass.plan(), pass.chunk, pass.plan().layers[0].in_proj);
    let w = pass.network.weight(in_proj);
    let (width, c, n, s) = (plan.width, plan.candidate(), chunk.token_rows(), chunk.source.len());
    let (dw, db) = gradients.pair(in_proj);
    let token_qkv = zeroed(&mut d.token_qkv, n * 3 * width);
    collect::<R, B>(pass, (3 * width, 3 * width), &d.qkv, token_qkv);
    let token = sized(&mut d.token, n * plan.token);
    let shape = Shape { rows: n, inputs: plan.token, outputs: 3 * width, stride: width };
    B::linear_backward(shape, &tape.token, w, &[], token_qkv, token, dw, db);
    collect::<R, B>(pass, (width, plan.token), &d.sum, token);
    if c > 0 {
        let candidate_qkv = sized(&mut d.candidate_qkv, s * 3 * width);
        sum::<R, B>(pass, 3 * width, &d.qkv, candidate_qkv);
        let shape = Shape { rows: s, inputs: c, outputs: 3 * width, stride: width };
        let (w, dw) = (&w[plan.token..], &mut dw[plan.token..]);
        B::linear_backward(shape, &tape.candidate, w, &[], candidate_qkv, &mut [], dw, &mut []);
    }
}
