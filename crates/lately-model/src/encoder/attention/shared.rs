//! One head in the first layer, where candidates are part of the tokens: what a request's candidates share is computed
//! once. The rows of the folded query map that make the candidate's part of a key have no effect there, as that part is
//! the same for all keys.

use lately_kernels::linear::Shape;
use lately_kernels::shared::{Parts, Shape as SharedShape};
use lately_kernels::{Dropout, Real};

use super::{Layer, gradient};
use crate::backend::Backend;
use crate::encoder::Pass;
use crate::encoder::tokens::segments;
use crate::tape::{EncoderTape, GradientTape, LayerTape, Work, sized};
use lately_kernels::buffer::Buffer;

fn shape<'a, R>(pass: &Pass<'a, R>, dropout: Dropout) -> SharedShape<'a> {
    let (chunk, plan) = (pass.chunk, pass.plan());
    let widths = (plan.token, plan.width);
    SharedShape { segments: segments(chunk), widths, masked: &chunk.masked, dropout }
}

/// Where in the folded map and bias are: the token's part of queries, the candidate's, the token's of values, the candidate's.
fn parts<R>(d: usize, token: usize, map: &[R]) -> [&[R]; 4] {
    let (query, value) = map.split_at(d * d);
    [query, &query[token..], value, &value[token..]]
}

/// Shapes of the linear maps to a query and to a value, of the token and of the candidate.
fn maps<R>(pass: &Pass<'_, R>) -> [Shape; 4] {
    let (plan, rows, segments) = (pass.plan(), pass.chunk.token_rows(), pass.chunk.source.len());
    let (d, da, dc) = (plan.width, plan.token, plan.candidate());
    [(rows, da, da), (segments, dc, da), (rows, da, d), (segments, dc, d)]
        .map(|(rows, inputs, outputs)| Shape::new(rows, inputs, outputs).within(d))
}

fn given<'a, R>(shared: &'a Parts<Buffer<R>>, token: &'a [R]) -> Parts<&'a [R]> {
    let Parts { token_query, token_key: _, token_value, query, value } = shared;
    Parts { token_query, token_key: token, token_value, query, value }
}

pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, layer: Layer) {
    let (d, da, n) = (pass.plan().width, pass.plan().token, pass.chunk.expanded());
    let (rows, s) = (pass.chunk.token_rows(), pass.chunk.source.len());
    let (map, bias) = (&pass.folded[layer.index].map, &pass.folded[layer.index].bias);
    let EncoderTape { layers, token, candidate, shared, work: Work { branch, scratch, .. }, .. } = tape;
    let [m_query, m_own_query, m_value, m_own_value] = parts(d, da, map);
    let [query, own_query, value, own_value] = maps(pass);
    let Parts { token_query: tq, token_value: tv, query: q, value: v, .. } = shared;
    B::linear(query, token, m_query, &bias[..da], false, sized(tq, rows * da));
    B::linear(own_query, candidate, m_own_query, &[], false, sized(q, s * da));
    B::linear(value, token, m_value, &bias[d..], false, sized(tv, rows * d));
    B::linear(own_value, candidate, m_own_value, &[], false, sized(v, s * d));
    let shape = shape(pass, pass.dropout.at(layer.place));
    let probabilities = sized(&mut layers[layer.tape].probabilities, shape.probabilities());
    B::shared(shape, given(shared, token), probabilities, sized(branch, n * d), scratch);
}

pub(super) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    layer: Layer,
) {
    let (width, da) = (pass.plan().width, pass.plan().token);
    let (rows, s) = (pass.chunk.token_rows(), pass.chunk.source.len());
    let EncoderTape { layers, token, candidate, shared, work: Work { scratch, .. }, .. } = tape;
    let LayerTape { probabilities, .. } = &layers[layer.tape];
    let GradientTape { branch, shared: d_shared, token: d_token, folded, .. } = d;
    let Parts { token_query: tq, token_value: tv, query: q, value: v, .. } = d_shared;
    let (tq, tv) = (crate::tape::zeroed(tq, rows * da), crate::tape::zeroed(tv, rows * width));
    let (q, v) = (sized(q, s * da), sized(v, s * width));
    let given = given(shared, token);
    let mut d_parts = Parts {
        token_query: &mut *tq,
        token_key: &mut *d_token,
        token_value: &mut *tv,
        query: &mut *q,
        value: &mut *v,
    };
    B::shared_backward(
        shape(pass, pass.dropout.at(layer.place)),
        given,
        probabilities,
        branch,
        &mut d_parts,
        scratch,
    );
    let [m_query, _, m_value, _] = parts(width, da, &pass.folded[layer.index].map);
    let [query, own_query, value, own_value] = maps(pass);
    let (d_map, d_bias) = gradient(folded, layer);
    let (of_query, of_value) = d_map.split_at_mut(width * width);
    let (b_query, b_value) = d_bias.split_at_mut(width);
    B::linear_backward(query.adding(), token, m_query, &[], tq, d_token, of_query, &mut b_query[..da]);
    B::linear_backward(value.adding(), token, m_value, &[], tv, d_token, of_value, b_value);
    B::linear_backward(own_query, candidate, &[], &[], q, &mut [], &mut of_query[da..], &mut []);
    B::linear_backward(own_value, candidate, &[], &[], v, &mut [], &mut of_value[da..], &mut []);
}
