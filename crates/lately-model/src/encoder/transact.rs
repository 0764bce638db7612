//! `transact`: a post-norm transformer over [action ; item ; candidate] (arXiv 2306.00248), of which the first K
//! encoded tokens and a linear map of the maximum are given on; `outputs` chooses among them. With the candidate appended its token comes first, so
//! that it is given on too, however long the history is; attention does not look at places, so the order is free.

use lately_features::Schema;
use lately_kernels::Real;

use super::{EncoderPlan, Pass, outputs, tokens, transformer};
use crate::Gradients;
use crate::backend::Backend;
use crate::config::{Fusion, ModelConfig};
use crate::plan::Builder;
use crate::tape::{EncoderTape, GradientTape};

pub(super) fn plan(b: &mut Builder, config: &ModelConfig, schema: &Schema) -> EncoderPlan {
    let appended = config.fusion == Fusion::Append;
    let mut plan = tokens::plan(b, config, schema, appended);
    plan.width = config.token_width(schema.item_embedding_dim());
    plan.per_candidate = config.fusion != Fusion::None;
    transformer::plan(b, "transact.encoder.layers", config.layers, config, &mut plan);
    let (first, max) = config.compression(schema.sequence.length.into());
    plan.pool = max.then(|| b.linear("transact.pool", plan.width, plan.width));
    plan.first_k = first + usize::from(appended);
    plan.output = plan.width * (plan.first_k + usize::from(max));
    plan
}

pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, keep: bool) {
    tokens::expand::<R, B>(pass, tape);
    transformer::forward::<R, B>(pass, tape, keep);
    outputs::forward::<R, B>(pass, tape);
}

pub(super) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    gradients: &mut Gradients<R>,
) {
    outputs::backward::<R, B>(pass, tape, d, gradients);
    transformer::backward::<R, B>(pass, tape, d, gradients);
}
