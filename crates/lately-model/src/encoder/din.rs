//! `din`: target attention of the Deep Interest Network (arXiv 1706.06978). A small network, the activation unit, looks
//! at each token beside the candidate and gives it a weight; the block is the weighted sum of the tokens. As in the
//! paper the weights are not brought to a sum of 1, so that many fitting actions speak louder than one. Its PReLU or
//! Dice is a ReLU here.

use lately_features::Schema;
use lately_kernels::linear::Shape;
use lately_kernels::{Real, target};

use super::{EncoderPlan, Pass, tokens};
use crate::Gradients;
use crate::backend::Backend;
use crate::config::ModelConfig;
use crate::plan::Builder;
use crate::tape::{EncoderTape, GradientTape, Work, sized};
use lately_kernels::buffer::Buffer;

/// The activation unit's values, T tokens of all segments; in the backward their gradients.
#[derive(Debug, Default)]
pub(crate) struct Unit<R> {
    /// T x inputs.
    pairs: Buffer<R>,
    /// T x `din_hidden`.
    hidden: Buffer<R>,
    /// T.
    weight: Buffer<R>,
}

impl<R: Real> Unit<R> {
    pub(crate) fn bytes(&self) -> usize {
        [&self.pairs, &self.hidden, &self.weight].map(Buffer::bytes).iter().sum()
    }
}

pub(super) fn plan(b: &mut Builder, config: &ModelConfig, schema: &Schema) -> EncoderPlan {
    let mut plan = tokens::plan(b, config, schema, false);
    plan.per_candidate = true;
    let inputs = target::pair_width((config.action_dim, schema.item_embedding_dim()));
    plan.unit =
        [b.linear("din.unit.0", config.din_hidden, inputs), b.linear("din.unit.1", 1, config.din_hidden)];
    plan
}

fn widths<R>(pass: &Pass<'_, R>) -> (usize, usize) {
    (pass.network.config.action_dim, pass.network.plan.item_dim)
}

/// Shapes of the unit's two maps.
fn shapes<R>(pass: &Pass<'_, R>) -> [Shape; 2] {
    let (n, hidden) = (pass.chunk.expanded(), pass.network.config.din_hidden);
    [Shape::new(n, target::pair_width(widths(pass)), hidden), Shape::new(n, hidden, 1)]
}

pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>) {
    let (plan, chunk) = (pass.plan(), pass.chunk);
    tokens::candidates(pass, pass.network.plan.item_dim, tape);
    let EncoderTape { token, candidate, unit, work: Work { sequence, .. }, .. } = tape;
    let (segments, [first, second]) = (tokens::segments(chunk), shapes(pass));
    let pairs = sized(&mut unit.pairs, first.rows * first.inputs);
    B::pairs(segments, widths(pass), token, candidate, pairs);
    let (w, b) = pass.network.linear(plan.unit[0]);
    let hidden = sized(&mut unit.hidden, first.rows * first.outputs);
    B::linear(first, pairs, w, b, true, hidden);
    let (w, b) = pass.network.linear(plan.unit[1]);
    let weight = sized(&mut unit.weight, second.rows);
    B::linear(second, hidden, w, b, false, weight);
    let out = sized(sequence, chunk.source.len() * plan.output);
    B::weighted(segments, plan.token, token, weight, out);
}

pub(super) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &EncoderTape<R>,
    d: &mut GradientTape<R>,
    gradients: &mut Gradients<R>,
) {
    let (plan, network) = (pass.plan(), pass.network);
    let (segments, [first, second]) = (tokens::segments(pass.chunk), shapes(pass));
    let GradientTape { unit: d_unit, token: d_token, sequence: dy, .. } = d;
    let d_weight = sized(&mut d_unit.weight, second.rows);
    B::weighted_backward(segments, plan.token, &tape.token, &tape.unit.weight, dy, d_token, d_weight);
    let d_hidden = sized(&mut d_unit.hidden, first.rows * first.outputs);
    let (dw, db) = gradients.pair(plan.unit[1]);
    let w = network.weight(plan.unit[1]);
    B::linear_backward(second, &tape.unit.hidden, w, &[], d_weight, d_hidden, dw, db);
    let d_pairs = sized(&mut d_unit.pairs, first.rows * first.inputs);
    let (dw, db) = gradients.pair(plan.unit[0]);
    let (w, x) = (network.weight(plan.unit[0]), &tape.unit.pairs);
    B::linear_backward(first, x, w, &tape.unit.hidden, d_hidden, d_pairs, dw, db);
    B::pairs_backward(segments, widths(pass), &tape.candidate, d_pairs, d_token);
}
