//! The user sequence: each encoder is one file that turns a person's tokens into one block of the inputs.
//!
//! Such a file has three functions. `plan` declares parameters and sizes, `forward` fills `tape.work.sequence` (segments x
//! its output), `backward` goes from `d.sequence` back and leaves the gradient of the tokens in `d.token`. What they
//! share: `tokens` (making them, the candidate's part, and their tables' gradients), `transformer` (the layers, with
//! `attention` in its three forms) and `outputs` (from encoded tokens to a row).

use lately_features::{FeatureBatch, Schema};
use lately_kernels::{Dropout, Real};

use crate::Gradients;
use crate::backend::Backend;
use crate::chunk::Chunk;
use crate::config::{Encoder, ModelConfig};
use crate::network::Network;
use crate::plan::{Builder, LayerIds};
use crate::tape::{EncoderTape, Folded, GradientTape, zeroed};

mod age;
mod attention;
mod bst;
mod din;
mod mean;
mod outputs;
pub(crate) mod tokens;
mod transact;
mod transformer;

pub(crate) use age::bucket;
pub(crate) use attention::fold::{fold, room, unfold};
pub(crate) use din::Unit;

/// Sizes and parameters of an encoder.
#[derive(Debug, Clone, Default)]
pub(crate) struct EncoderPlan {
    /// Whether its segments are candidates (else requests).
    pub(crate) per_candidate: bool,
    /// Whether the candidate is one more token, the first of each segment.
    pub(crate) appended: bool,
    /// Width of a request's token, [action ; item].
    pub(crate) token: usize,
    /// Width of an encoder token; `token` plus the candidate's part.
    pub(crate) width: usize,
    /// Width of the output.
    pub(crate) output: usize,
    /// Action types that are no tokens; empty for none.
    pub(crate) left_out: Vec<bool>,
    /// Whether tokens carry their action type.
    pub(crate) typed: bool,
    /// Action types that a token may carry at once; 1 for the strongest alone.
    pub(crate) slots: usize,
    /// Embeddings of the action types (untyped: one for all), then the appended candidate's row; with several slots
    /// the row of no action, which is the candidate's too, comes first.
    pub(crate) action_table: usize,
    /// That row.
    pub(crate) candidate_row: u32,
    /// Table of the tokens' surfaces.
    pub(crate) surface_table: Option<usize>,
    /// Table of the tokens' ages and its rows.
    pub(crate) age_table: Option<(usize, usize)>,
    pub(crate) layers: Vec<LayerIds>,
    /// Whether their attention has one head, so that its weights fold.
    pub(crate) folds: bool,
    /// First encoded tokens that are given on, an appended candidate's among them.
    pub(crate) first_k: usize,
    /// The two linear maps of the activation unit of `din`.
    pub(crate) unit: [usize; 2],
    /// The linear map after the maximum.
    pub(crate) pool: Option<usize>,
}

impl EncoderPlan {
    /// Width of the candidate's part of an encoder token.
    pub(crate) fn candidate(&self) -> usize {
        self.width - self.token
    }
}

/// One chunk on its way through an encoder.
#[derive(Debug)]
pub(crate) struct Pass<'a, R> {
    pub(crate) network: &'a Network<R>,
    pub(crate) batch: &'a FeatureBatch,
    pub(crate) chunk: &'a Chunk,
    pub(crate) dropout: Dropout,
    /// Of every layer, where its weights fold.
    pub(crate) folded: &'a [Folded<R>],
}

impl<R> Pass<'_, R> {
    pub(crate) fn plan(&self) -> &EncoderPlan {
        &self.network.plan.encoder
    }
}

/// Declares the parameters of the configured encoder.
pub(crate) fn plan(b: &mut Builder, config: &ModelConfig, schema: &Schema) -> EncoderPlan {
    match config.encoder {
        Encoder::None => EncoderPlan::default(),
        Encoder::Mean => mean::plan(b, config, schema),
        Encoder::Din => din::plan(b, config, schema),
        Encoder::Bst => bst::plan(b, config, schema),
        Encoder::Transact => transact::plan(b, config, schema),
    }
}

/// Fills `tape.work.sequence` (segments x the encoder's output). With `keep` every layer's activations stay.
pub(crate) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, keep: bool) {
    if pass.network.config.encoder == Encoder::None {
        return;
    }
    tokens::forward::<R, B>(pass, tape);
    match pass.network.config.encoder {
        Encoder::None => {}
        Encoder::Mean => mean::forward::<R, B>(pass, tape),
        Encoder::Din => din::forward::<R, B>(pass, tape),
        Encoder::Bst => bst::forward::<R, B>(pass, tape, keep),
        Encoder::Transact => transact::forward::<R, B>(pass, tape, keep),
    }
}

/// From `d.sequence` to the parameters.
pub(crate) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    gradients: &mut Gradients<R>,
) {
    zeroed(&mut d.token, tape.token.len());
    match pass.network.config.encoder {
        Encoder::None => return,
        Encoder::Mean => mean::backward::<R, B>(pass, d),
        Encoder::Din => din::backward::<R, B>(pass, tape, d, gradients),
        Encoder::Bst => bst::backward::<R, B>(pass, tape, d, gradients),
        Encoder::Transact => transact::backward::<R, B>(pass, tape, d, gradients),
    }
    tokens::backward::<R, B>(pass, &d.token, gradients);
}
