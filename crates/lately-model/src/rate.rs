//! The rate tower: how much a user clicks and saves at all, from what does not depend on the candidate. Its logits are
//! added to those of the rest, which then need not learn the user's rate and can tell the items of a list apart: a user
//! who clicks much is shown other items, so that a model without it gives those items a part of the user's rate.
//!
//! Ours, not the paper's; docs/model.md has the measurements. Inputs are each action type's share of the sequence and of
//! its last ten tokens, the sequence's length, and the user's features; one hidden layer. The list term of the loss
//! ([`crate::Objective`]) leaves it out, as it cannot change an order.

use lately_features::FeatureBatch;
use lately_kernels::Real;
use lately_kernels::linear::Shape;

use crate::Gradients;
use crate::backend::Backend;
use crate::chunk::Chunk;
use crate::network::Network;
use crate::tape::{GradientTape, TopTape, sized};
use lately_kernels::buffer::Buffer;

/// Added to a length before it divides a count: a short history says little.
const WHOLE_PRIOR: f32 = 5.0;
/// The same for the last ten.
const RECENT_PRIOR: f32 = 3.0;
/// Tokens that count as recent.
const RECENT: usize = 10;

/// Its two linear maps, and the columns of the user's features among the inputs.
#[derive(Debug, Clone)]
pub(crate) struct RatePlan {
    pub(crate) hidden: usize,
    pub(crate) head: usize,
    pub(crate) user: std::ops::Range<usize>,
}

/// Numbers that say what the sequence holds: two for each action type, and its length.
pub(crate) fn summary_width(actions: usize) -> usize {
    2 * actions + 1
}

/// What the tower's backward needs.
#[derive(Debug, Default)]
pub(crate) struct RateTape<R> {
    inputs: Buffer<R>,
    hidden: Buffer<R>,
    logits: Buffer<R>,
}

impl<R: Real> RateTape<R> {
    pub(crate) fn bytes(&self) -> usize {
        [&self.inputs, &self.hidden, &self.logits].map(Buffer::bytes).iter().sum()
    }
}

/// Adds the tower's logits to `top.logits`; `top.order` keeps those without it.
pub(crate) fn forward<R: Real, B: Backend<R>>(
    network: &Network<R>,
    batch: &FeatureBatch,
    chunk: &Chunk,
    top: &mut TopTape<R>,
) {
    let Some(plan) = &network.plan.rate else { return };
    let TopTape { rows_major, rate, logits, order, .. } = top;
    sized(order, logits.len()).copy_from_slice(logits);
    let rows = chunk.rows.len();
    let width = self::width(network, plan);
    let inputs = sized(&mut rate.inputs, rows * width);
    self::inputs(network, plan, batch, chunk, rows_major, inputs);
    let ((w, b), (v, c)) = (network.linear(plan.hidden), network.linear(plan.head));
    let hidden = sized(&mut rate.hidden, rows * b.len());
    B::linear(Shape::new(rows, width, b.len()), inputs, w, b, true, hidden);
    let out = sized(&mut rate.logits, rows * c.len());
    B::linear(Shape::new(rows, b.len(), c.len()), hidden, v, c, false, out);
    logits.iter_mut().zip(out).for_each(|(z, r)| *z += *r);
}

/// Width of the tower's inputs.
pub(crate) fn width<R>(network: &Network<R>, plan: &RatePlan) -> usize {
    summary_width(network.plan.actions) + plan.user.len()
}

/// The tower's inputs, rows x [`width`], from those of the rest, rows x inputs.
pub(crate) fn inputs<R: Real>(
    network: &Network<R>,
    plan: &RatePlan,
    batch: &FeatureBatch,
    chunk: &Chunk,
    rows_major: &[R],
    out: &mut [R],
) {
    let wide = rows_major.chunks_exact(network.plan.inputs);
    let rows = out.chunks_exact_mut(width(network, plan));
    for ((row, request), wide) in rows.zip(&chunk.request).zip(wide) {
        input(network, batch, chunk, *request, &wide[plan.user.clone()], row);
    }
}

/// The same of one request of the chunk, whose user's columns are `user`.
pub(crate) fn input<R: Real>(
    network: &Network<R>,
    batch: &FeatureBatch,
    chunk: &Chunk,
    request: u32,
    user: &[R],
    out: &mut [R],
) {
    let summary = summary_width(network.plan.actions);
    summarise(batch, chunk.tokens_of(request), &mut out[..summary]);
    out[summary..].copy_from_slice(user);
}

/// Shares of the action types over all tokens (newest first) and over the newest, then the length.
pub(crate) fn summarise<R: Real>(batch: &FeatureBatch, tokens: &[u32], out: &mut [R]) {
    out.fill(R::ZERO);
    let actions = out.len() / 2;
    let whole = R::from_f32(1.0 / (tokens.len() as f32 + WHOLE_PRIOR));
    let recent = R::from_f32(1.0 / (tokens.len().min(RECENT) as f32 + RECENT_PRIOR));
    for (i, token) in tokens.iter().enumerate() {
        let action = usize::from(batch.token_action[*token as usize]);
        out[action] += whole;
        if i < RECENT {
            out[actions + action] += recent;
        }
    }
    out[2 * actions] = R::from_f32((1.0 + tokens.len() as f32).ln() / 3.0);
}

/// From `d.rate`, the gradient of the tower's logits, to its parameters; that of the user's features is added to
/// `d.rows_major`.
pub(crate) fn backward<R: Real, B: Backend<R>>(
    network: &Network<R>,
    rows: usize,
    top: &TopTape<R>,
    d: &mut GradientTape<R>,
    gradients: &mut Gradients<R>,
) {
    let Some(plan) = &network.plan.rate else { return };
    let summary = summary_width(network.plan.actions);
    let (width, rate) = (summary + plan.user.len(), &top.rate);
    let (hidden, heads) = (network.linear(plan.hidden).1.len(), network.plan.heads);
    let d_hidden = sized(&mut d.rate_hidden, rows * hidden);
    let (dw, db) = gradients.pair(plan.head);
    let (shape, w) = (Shape::new(rows, hidden, heads), network.weight(plan.head));
    B::linear_backward(shape, &rate.hidden, w, &[], &mut d.rate, d_hidden, dw, db);
    let d_inputs = sized(&mut d.rate_inputs, rows * width);
    let (dw, db) = gradients.pair(plan.hidden);
    let (shape, w) = (Shape::new(rows, width, hidden), network.weight(plan.hidden));
    B::linear_backward(shape, &rate.inputs, w, &rate.hidden, d_hidden, d_inputs, dw, db);
    let wide = d.rows_major.chunks_exact_mut(network.plan.inputs);
    for (wide, row) in wide.zip(d_inputs.chunks_exact(width)) {
        wide[plan.user.clone()].iter_mut().zip(&row[summary..]).for_each(|(a, b)| *a += *b);
    }
}
