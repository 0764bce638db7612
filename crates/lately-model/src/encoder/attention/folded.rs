//! One head by folded weights.

use lately_kernels::folded::Shape as FoldedShape;
use lately_kernels::linear::Shape;
use lately_kernels::{Dropout, Real};

use super::{Layer, gradient};
use crate::backend::Backend;
use crate::encoder::Pass;
use crate::encoder::tokens::{collect, spread};
use crate::tape::{EncoderTape, GradientTape, LayerTape, Work, sized, zeroed};

fn shape<'a, R>(pass: &Pass<'a, R>, dropout: Dropout) -> FoldedShape<'a> {
    let (chunk, width) = (pass.chunk, pass.plan().width);
    FoldedShape { offsets: &chunk.offsets, width, masked: &chunk.masked, dropout }
}

pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, layer: Layer) {
    let (d, n) = (pass.plan().width, pass.chunk.expanded());
    let (map, bias) = (&pass.folded[layer.index].map, &pass.folded[layer.index].bias);
    let EncoderTape { layers, token, work: Work { stream, branch, scratch, token_projected, .. }, .. } = tape;
    let LayerTape { projected, probabilities, .. } = &mut layers[layer.tape];
    let projected = sized(projected, n * 2 * d);
    if layer.index > 0 {
        B::linear(Shape::new(n, d, 2 * d), stream, map, bias, false, projected);
    } else {
        // Before the candidate's token joins them, the tokens are projected once a request.
        let rows = pass.chunk.token_rows();
        let token_projected = sized(token_projected, rows * 2 * d);
        B::linear(Shape::new(rows, d, 2 * d), token, map, bias, false, token_projected);
        spread::<R, B>(pass, 2 * d, token_projected, &[], projected);
    }
    let shape = shape(pass, pass.dropout.at(layer.place));
    let probabilities = sized(probabilities, shape.probabilities());
    B::folded(shape, stream, projected, probabilities, sized(branch, n * d), scratch);
}

pub(super) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    layer: Layer,
) {
    let (width, n) = (pass.plan().width, pass.chunk.expanded());
    let map = &pass.folded[layer.index].map;
    let EncoderTape { layers, token: tokens, work: Work { stream: input, scratch, .. }, .. } = tape;
    let LayerTape { projected: qv, probabilities, .. } = &layers[layer.tape];
    let GradientTape { stream, branch, projected, token_projected, token, folded, .. } = d;
    let (d_map, d_bias) = gradient(folded, layer);
    let projected = sized(projected, n * 2 * width);
    let shape = shape(pass, pass.dropout.at(layer.place));
    B::folded_backward(shape, input, qv, probabilities, branch, projected, stream, scratch);
    if layer.index > 0 {
        let shape = Shape::new(n, width, 2 * width).adding();
        B::linear_backward(shape, input, map, &[], projected, stream, d_map, d_bias);
    } else {
        let rows = pass.chunk.token_rows();
        let token_projected = zeroed(token_projected, rows * 2 * width);
        collect::<R, B>(pass, (2 * width, 2 * width), projected, token_projected);
        let shape = Shape::new(rows, width, 2 * width).adding();
        B::linear_backward(shape, tokens, map, &[], token_projected, token, d_map, d_bias);
    }
}
