//! `bst`: the Behaviour Sequence Transformer (arXiv 1905.06874) as the TransAct paper compares with it: items without
//! their action types, the candidate as one more token, post-norm layers.
//!
//! BST gives all encoded tokens on. Histories here differ in length, so the candidate's token, which comes first, and
//! the first K of the history are given on; `first_k = 0` gives all. Its positions are times before the request:
//! `age_buckets`. Its leaky ReLU is a ReLU here.

use lately_features::Schema;
use lately_kernels::Real;

use super::{EncoderPlan, Pass, outputs, tokens, transformer};
use crate::Gradients;
use crate::backend::Backend;
use crate::config::ModelConfig;
use crate::plan::Builder;
use crate::tape::{EncoderTape, GradientTape};

pub(super) fn plan(b: &mut Builder, config: &ModelConfig, schema: &Schema) -> EncoderPlan {
    let config = ModelConfig { action_types: false, ..config.clone() };
    let mut plan = tokens::plan(b, &config, schema, true);
    transformer::plan(b, "bst.layers", config.bst_layers, &config, &mut plan);
    plan.first_k = 1 + config.first_tokens(schema.sequence.length.into());
    plan.output = plan.width * plan.first_k;
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
