//! From a segment's encoded tokens to one row: [Linear(max over tokens) ; first K tokens], all zeros for an empty
//! segment.

use lately_kernels::Real;
use lately_kernels::columns::{self, Block};
use lately_kernels::linear::Shape;

use super::Pass;
use crate::Gradients;
use crate::backend::Backend;
use crate::tape::{EncoderTape, GradientTape, Work, sized, zeroed};

/// From `tape.work.stream` to `tape.work.sequence`.
pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>) {
    let (plan, chunk) = (pass.plan(), pass.chunk);
    let (d, s) = (plan.width, chunk.source.len());
    let first = d * usize::from(plan.pool.is_some());
    let EncoderTape { pooled, argmax, work: Work { stream, pool_out, sequence, .. }, .. } = tape;
    let sequence = sized(sequence, s * plan.output);
    B::first_k(&chunk.offsets, d, plan.first_k, stream, sequence, plan.output, first);
    let Some(pool) = plan.pool else { return };
    let pooled = sized(pooled, s * d);
    B::max_pool(&chunk.offsets, d, stream, pooled, sized(argmax, s * d));
    let (w, b) = pass.network.linear(pool);
    let out = sized(pool_out, s * d);
    B::linear(Shape::new(s, d, d), pooled, w, b, false, out);
    chunk.empty_segments().for_each(|s| out[s * d..(s + 1) * d].fill(R::ZERO));
    let block = Block { source: chunk.identity(s), width: d, stride: plan.output, offset: 0 };
    columns::place(block, out, sequence);
}

/// From `d.sequence` to `d.stream`.
pub(super) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &EncoderTape<R>,
    d: &mut GradientTape<R>,
    gradients: &mut Gradients<R>,
) {
    let (plan, chunk) = (pass.plan(), pass.chunk);
    let (w, s) = (plan.width, chunk.source.len());
    let first = w * usize::from(plan.pool.is_some());
    let stream = zeroed(&mut d.stream, chunk.expanded() * w);
    B::first_k_backward(&chunk.offsets, w, plan.first_k, &d.sequence, plan.output, first, stream);
    let Some(pool) = plan.pool else { return };
    let out = sized(&mut d.pool, s * w);
    for (out, row) in out.chunks_exact_mut(w).zip(d.sequence.chunks_exact(plan.output)) {
        out.copy_from_slice(&row[..w]);
    }
    chunk.empty_segments().for_each(|s| out[s * w..(s + 1) * w].fill(R::ZERO));
    let pooled = sized(&mut d.pooled, s * w);
    let (dw, db) = gradients.pair(pool);
    let weight = pass.network.weight(pool);
    B::linear_backward(Shape::new(s, w, w), &tape.pooled, weight, &[], out, pooled, dw, db);
    B::max_pool_backward(w, &tape.argmax, pooled, stream);
}
