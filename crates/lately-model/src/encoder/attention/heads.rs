//! Several heads: queries, keys and values written out.
//!
//! The first layer's projection is shared: with token = [a ; c] it is A(a) + C(c), A once a request's token and C once
//! a candidate.

use lately_kernels::attention::Shape as AttentionShape;
use lately_kernels::linear::Shape;
use lately_kernels::{Dropout, Real};

use super::Layer;
use crate::Gradients;
use crate::backend::Backend;
use crate::encoder::Pass;
use crate::encoder::tokens::{collect, spread, sum};
use crate::tape::{EncoderTape, GradientTape, LayerTape, Work, sized, zeroed};

fn shape<'a, R>(pass: &Pass<'a, R>, dropout: Dropout) -> AttentionShape<'a> {
    let (chunk, heads) = (pass.chunk, pass.network.config.attention_heads);
    let width = pass.plan().width;
    AttentionShape { offsets: &chunk.offsets, width, heads, masked: &chunk.masked, dropout }
}

/// Queries, keys and values of the first layer: the token's part once a request, the candidate's once a row.
fn first<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, in_proj: usize) {
    let (plan, chunk, (w, b)) = (pass.plan(), pass.chunk, pass.network.linear(in_proj));
    let (d, c, n) = (plan.width, plan.candidate(), chunk.token_rows());
    let token = sized(&mut tape.work.token_projected, n * 3 * d);
    B::linear(Shape::new(n, plan.token, 3 * d).within(d), &tape.token, w, b, false, token);
    let own = sized(&mut tape.work.candidate_projected, if c > 0 { chunk.source.len() * 3 * d } else { 0 });
    if c > 0 {
        let shape = Shape::new(chunk.source.len(), c, 3 * d).within(d);
        B::linear(shape, &tape.candidate, &w[plan.token..], &[], false, own);
    }
    let out = sized(&mut tape.layers[0].projected, chunk.expanded() * 3 * d);
    spread::<R, B>(pass, 3 * d, token, own, out);
}

pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, layer: Layer) {
    let (network, d, n) = (pass.network, pass.plan().width, pass.chunk.expanded());
    if layer.index == 0 {
        first::<R, B>(pass, tape, layer.ids.in_proj);
    }
    let EncoderTape { layers, work: Work { stream, branch, scratch, .. }, .. } = tape;
    let LayerTape { projected, probabilities, context, .. } = &mut layers[layer.tape];
    if layer.index > 0 {
        let (w, b) = network.linear(layer.ids.in_proj);
        B::linear(Shape::new(n, d, 3 * d), stream, w, b, false, sized(projected, n * 3 * d));
    }
    let shape = shape(pass, pass.dropout.at(layer.place));
    let probabilities = sized(probabilities, shape.probabilities());
    B::attention(shape, projected, probabilities, sized(context, n * d), scratch);
    let w = network.weight(layer.ids.out_proj);
    B::linear(Shape::new(n, d, d), context, w, &[], false, sized(branch, n * d));
}

pub(super) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    layer: Layer,
    gradients: &mut Gradients<R>,
) {
    let (network, width, n) = (pass.network, pass.plan().width, pass.chunk.expanded());
    let GradientTape { stream, branch, context, projected, .. } = d;
    let t = &tape.layers[layer.tape];
    let context = sized(context, n * width);
    let (dw, _) = gradients.pair(layer.ids.out_proj);
    let w = network.weight(layer.ids.out_proj);
    B::linear_backward(Shape::new(n, width, width), &t.context, w, &[], branch, context, dw, &mut []);
    let projected = sized(projected, n * 3 * width);
    let shape = shape(pass, pass.dropout.at(layer.place));
    B::attention_backward(shape, &t.projected, &t.probabilities, context, projected, &mut tape.work.scratch);
    if layer.index > 0 {
        let (dw, db) = gradients.pair(layer.ids.in_proj);
        let (shape, w) = (Shape::new(n, width, 3 * width).adding(), network.weight(layer.ids.in_proj));
        B::linear_backward(shape, &tape.work.stream, w, &[], projected, stream, dw, db);
    } else {
        first_backward::<R, B>(pass, tape, d, layer.ids.in_proj, gradients);
    }
}

/// Sums over the candidates come before the products, as in the forward.
fn first_backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &EncoderTape<R>,
    d: &mut GradientTape<R>,
    in_proj: usize,
    gradients: &mut Gradients<R>,
) {
    let (plan, chunk, w) = (pass.plan(), pass.chunk, pass.network.weight(in_proj));
    let (width, c, n, s) = (plan.width, plan.candidate(), chunk.token_rows(), chunk.source.len());
    let (dw, db) = gradients.pair(in_proj);
    let token_projected = zeroed(&mut d.token_projected, n * 3 * width);
    collect::<R, B>(pass, (3 * width, 3 * width), &d.projected, token_projected);
    let shape = Shape::new(n, plan.token, 3 * width).within(width).adding();
    B::linear_backward(shape, &tape.token, w, &[], token_projected, &mut d.token, dw, db);
    if c > 0 {
        let own = sized(&mut d.candidate_projected, s * 3 * width);
        sum::<R, B>(pass, 3 * width, &d.projected, own);
        let shape = Shape::new(s, c, 3 * width).within(width);
        let dw = &mut dw[plan.token..];
        B::linear_backward(shape, &tape.candidate, &[], &[], own, &mut [], dw, &mut []);
    }
}
