//! `mean`: the mean over a request's tokens; the candidate is not in it.

use lately_features::Schema;
use lately_kernels::Real;

use super::{EncoderPlan, Pass, tokens};
use crate::backend::Backend;
use crate::config::ModelConfig;
use crate::plan::Builder;
use crate::tape::{EncoderTape, GradientTape, sized};

pub(super) fn plan(b: &mut Builder, config: &ModelConfig, schema: &Schema) -> EncoderPlan {
    tokens::plan(b, config, schema, false)
}

pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>) {
    let (plan, chunk) = (pass.plan(), pass.chunk);
    let out = sized(&mut tape.work.sequence, chunk.source.len() * plan.output);
    B::mean_pool(&chunk.offsets, plan.token, &tape.token, out);
}

pub(super) fn backward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, d: &mut GradientTape<R>) {
    B::mean_pool_backward(&pass.chunk.offsets, pass.plan().token, &d.sequence, &mut d.token);
}
