//! The transformer's layers, post-norm: x = norm(x + attention(x)), x = norm(x + ffn(x)).

use lately_kernels::Real;
use lately_kernels::add_norm::Shape as NormShape;
use lately_kernels::linear::Shape;

use super::Pass;
use super::attention::{self, Layer};
use super::tokens::{self, collect};
use crate::Gradients;
use crate::backend::Backend;
use crate::config::ModelConfig;
use crate::plan::Builder;
use crate::tape::{EncoderTape, GradientTape, LayerTape, Work, at_least, sized};

/// Places of dropout in a layer; a layer's masks start at `layer * PLACES`.
const PLACES: u64 = 4;

/// Declares `layers` layers, named `name.0`, `name.1`, ..., on the plan's tokens.
pub(super) fn plan(
    b: &mut Builder,
    name: &str,
    layers: usize,
    config: &ModelConfig,
    plan: &mut super::EncoderPlan,
) {
    plan.folds = config.attention_heads == 1;
    plan.layers = (0..layers).map(|i| b.layer(&format!("{name}.{i}"), plan.width, config.ffn)).collect();
}

/// From `tape.token`, `tape.candidate` and `tape.work.stream` to the encoded tokens in `tape.work.stream`.
pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, keep: bool) {
    let layers = &pass.plan().layers;
    at_least(&mut tape.layers, if keep { layers.len() } else { 1 });
    for (index, ids) in layers.iter().enumerate() {
        let place = index as u64 * PLACES;
        layer::<R, B>(pass, tape, Layer { index, tape: if keep { index } else { 0 }, ids: *ids, place });
    }
}

/// From `d.stream` to `d.token` and the parameters.
pub(super) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    gradients: &mut Gradients<R>,
) {
    let plan = pass.plan();
    for (index, ids) in plan.layers.iter().enumerate().rev() {
        let layer = Layer { index, tape: index, ids: *ids, place: index as u64 * PLACES };
        layer_backward::<R, B>(pass, tape, d, layer, gradients);
    }
    collect::<R, B>(pass, (plan.width, plan.token), &d.stream, &mut d.token);
}

fn layer<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, layer: Layer) {
    let (network, d, ffn, n) =
        (pass.network, pass.plan().width, pass.network.config.ffn, pass.chunk.expanded());
    let norm = |i: u64| NormShape { width: d, dropout: pass.dropout.at(layer.place + i) };
    let bias = |id: usize| network.linear(id).1;
    attention::forward::<R, B>(pass, tape, layer);
    let EncoderTape { layers, work: Work { stream, branch, middle, .. }, .. } = tape;
    let LayerTape { normed1, rstd1, hidden, normed2, rstd2, .. } = &mut layers[layer.tape];
    let ids = layer.ids;
    let (g, b) = network.linear(ids.norm1);
    let (normed, rstd) = (sized(normed1, n * d), sized(rstd1, n));
    B::add_norm(norm(1), stream, branch, bias(ids.out_proj), g, b, normed, rstd, sized(middle, n * d));
    let (w, b) = network.linear(ids.linear1);
    B::linear(Shape::new(n, d, ffn), middle, w, b, true, sized(hidden, n * ffn));
    B::dropout(pass.dropout.at(layer.place + 2), 0, hidden);
    B::linear(Shape::new(n, ffn, d), hidden, network.weight(ids.linear2), &[], false, branch);
    let (g, b) = network.linear(ids.norm2);
    let (normed, rstd) = (sized(normed2, n * d), sized(rstd2, n));
    B::add_norm(norm(3), middle, branch, bias(ids.linear2), g, b, normed, rstd, sized(stream, n * d));
}

/// A layer's input again, in `tape.work.stream`.
fn input<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, layer: Layer) {
    let Some(before) = layer.index.checked_sub(1) else { return tokens::expand::<R, B>(pass, tape) };
    let (g, b) = pass.network.linear(pass.plan().layers[before].norm2);
    let EncoderTape { layers, work, .. } = tape;
    let out = sized(&mut work.stream, pass.chunk.expanded() * pass.plan().width);
    B::add_norm_output(pass.plan().width, &layers[before].normed2, g, b, out);
}

/// In: `d.stream`, the gradient of the layer's output. Out: `d.stream`, that of its input.
fn layer_backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    layer: Layer,
    gradients: &mut Gradients<R>,
) {
    let (network, width, ffn, n) =
        (pass.network, pass.plan().width, pass.network.config.ffn, pass.chunk.expanded());
    let norm = |i: u64| NormShape { width, dropout: pass.dropout.at(layer.place + i) };
    let GradientTape { stream, sum, branch, hidden, .. } = d;
    let EncoderTape { layers, work: Work { middle, .. }, .. } = &mut *tape;
    let (t, ids) = (&layers[layer.tape], layer.ids);
    let (g, b) = network.linear(ids.norm1);
    let middle = sized(middle, n * width);
    B::add_norm_output(width, &t.normed1, g, b, middle);
    let w = |id: usize| network.weight(id);
    let (sum, branch) = (sized(sum, n * width), sized(branch, n * width));
    let [d_bias, dg, db] = gradients.three([ids.linear2 + 1, ids.norm2, ids.norm2 + 1]);
    B::add_norm_backward(norm(3), &t.normed2, &t.rstd2, w(ids.norm2), stream, sum, branch, d_bias, dg, db);
    let hidden = sized(hidden, n * ffn);
    let (dw, _) = gradients.pair(ids.linear2);
    B::linear_backward(
        Shape::new(n, ffn, width),
        &t.hidden,
        w(ids.linear2),
        &[],
        branch,
        hidden,
        dw,
        &mut [],
    );
    B::dropout(pass.dropout.at(layer.place + 2), 0, hidden);
    let (dw, db) = gradients.pair(ids.linear1);
    let shape = Shape::new(n, width, ffn).adding();
    B::linear_backward(shape, middle, w(ids.linear1), &t.hidden, hidden, sum, dw, db);
    let [d_bias, dg, db] = gradients.three([ids.out_proj + 1, ids.norm1, ids.norm1 + 1]);
    B::add_norm_backward(norm(1), &t.normed1, &t.rstd1, w(ids.norm1), sum, stream, branch, d_bias, dg, db);
    if attention::wants_input(pass, layer) {
        input::<R, B>(pass, tape, layer);
    }
    attention::backward::<R, B>(pass, tape, d, layer, gradients);
}
