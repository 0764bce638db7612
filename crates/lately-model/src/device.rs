//! What an engine on another device takes from a model: weights folded for serving, and the numbers of a batch's rows
//! before anything is multiplied.
//!
//! All that is a feature is made here, by the very functions of training, so that no device computes one anew: a request's
//! tokens and columns once a request, an item's columns and its part of a token once for as long as the device keeps them.
//! What is left is algebra: the encoder, the products, and the affinity of an item to tokens ([`AffinityParts`]).

use std::borrow::Cow;
use std::ops::Range;

use lately_features::FeatureBatch;

use crate::backend::Cpu;
use crate::chunk::check;
use crate::config::Encoder;
use crate::encoder::fold;
use crate::network::Network;
use crate::plan::LayerIds;
use crate::tape::Folded;
use crate::{Model, ModelError, affinity};

mod staging;

pub use staging::{ItemStaging, Staged, StagedItems, StagedRequest, Staging, TokenKind};

/// Smallest trusted sum of shared exponentials, see [`lately_kernels::shared::GUARD`].
pub const GUARD: f32 = lately_kernels::shared::GUARD;

/// A linear map `y = W x + b`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearParts {
    /// Outputs x inputs, row-major.
    pub weight: Vec<f32>,
    /// One an output.
    pub bias: Vec<f32>,
}

impl LinearParts {
    fn of(network: &Network<f32>, id: usize) -> Self {
        let (weight, bias) = network.linear(id);
        Self { weight: weight.to_vec(), bias: bias.to_vec() }
    }

    /// Rows of the weight.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Columns of the weight.
    pub fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len().max(1)
    }
}

/// One post-norm layer over tokens of width d, attention folded as in [`lately_kernels::fold`].
#[derive(Debug, Clone, PartialEq)]
pub struct LayerParts {
    /// 2d x d: queries (with the logit's factor) over values. The tokens are their own keys.
    pub attention: LinearParts,
    /// d, added to what attention gives.
    pub out_bias: Vec<f32>,
    /// Gamma and beta, d each.
    pub norm1: [Vec<f32>; 2],
    /// d to the feed-forward width, then ReLU.
    pub linear1: LinearParts,
    /// Back to d.
    pub linear2: LinearParts,
    /// Gamma and beta, d each.
    pub norm2: [Vec<f32>; 2],
}

/// A one-head transformer over [token ; candidate].
#[derive(Debug, Clone, PartialEq)]
pub struct TransformerParts {
    /// Width of a token's part, of d.
    pub token: usize,
    /// Width of the candidate's part, the rest of d.
    pub candidate: usize,
    /// First encoded tokens that are given on, after the maximum.
    pub first_k: usize,
    /// Width of the output: d (first_k + 1 where there is a maximum).
    pub output: usize,
    /// At least one.
    pub layers: Vec<LayerParts>,
    /// The linear map of the maximum over tokens, whose result comes first in the output.
    pub pool: Option<LinearParts>,
}

/// How the user sequence enters.
#[derive(Debug, Clone, PartialEq)]
pub enum EncoderParts {
    /// Not at all.
    None,
    /// By a transformer whose first layer candidates share, see [`lately_kernels::shared`].
    Transformer(TransformerParts),
    /// In a way that has no compiled form.
    Other,
}

/// How near a candidate is to what the user did, by type of action: columns of the top's inputs that depend on both.
///
/// For each type in order: the largest and the mean cosine, both times `scale`, of the candidate's embedding and those of
/// the type's recent tokens, then the same over all of its tokens; 0 where there is none. Embeddings without a length are
/// left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AffinityParts {
    /// Types of actions.
    pub actions: usize,
    /// Factor on cosines.
    pub scale: f32,
}

impl AffinityParts {
    /// Columns a type.
    pub const VALUES: usize = affinity::VALUES;

    /// All of its columns.
    pub fn width(&self) -> usize {
        Self::VALUES * self.actions
    }
}

/// All weights that serving multiplies with, in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct ServingParts {
    /// Width of the top's inputs: the encoder's output, affinity, the request's columns, the item's columns.
    pub inputs: usize,
    /// The request's columns among them: what all rows of a request share. The item's follow, up to the last.
    pub request: Range<usize>,
    /// The affinity of an item to tokens, whose columns come right before the request's.
    pub affinity: Option<AffinityParts>,
    /// Most tokens of a request, by the schema.
    pub length: usize,
    /// The encoder.
    pub encoder: EncoderParts,
    /// From the inputs to the cross layers' width.
    pub project: Option<LinearParts>,
    /// Cross layers: `x = x0 * (W x + b) + x`.
    pub cross: Vec<LinearParts>,
    /// Hidden layers, each with a ReLU.
    pub mlp: Vec<LinearParts>,
    /// The heads.
    pub head: LinearParts,
}

impl ServingParts {
    /// Of a model.
    pub fn of(model: &Model) -> Self {
        let network = &model.network;
        let plan = &network.plan;
        let all = |ids: &[usize]| ids.iter().map(|id| LinearParts::of(network, *id)).collect();
        Self {
            inputs: plan.inputs,
            request: plan.request_columns(),
            affinity: plan
                .affinity
                .then_some(AffinityParts { actions: plan.actions, scale: affinity::SCALE }),
            length: model.length,
            encoder: EncoderParts::of(network),
            project: plan.project.map(|id| LinearParts::of(network, id)),
            cross: all(&plan.cross),
            mlp: all(&plan.mlp),
            head: LinearParts::of(network, plan.head),
        }
    }
}

impl EncoderParts {
    fn of(network: &Network<f32>) -> Self {
        let plan = &network.plan.encoder;
        if network.config.encoder == Encoder::None {
            return Self::None;
        }
        // The same question as of the CPU's compiled form (`engine/encoder.rs`).
        let candidate = plan.width.saturating_sub(plan.token);
        let fits = plan.folds && plan.per_candidate && !plan.appended && candidate > 0;
        if !fits || plan.layers.is_empty() {
            return Self::Other;
        }
        let mut folded: Vec<Folded<f32>> = Vec::new();
        fold::<f32, Cpu>(network, &mut folded);
        let layers =
            plan.layers.iter().zip(&folded).map(|(ids, folded)| LayerParts::of(network, *ids, folded));
        Self::Transformer(TransformerParts {
            token: plan.token,
            candidate,
            first_k: plan.first_k,
            output: plan.output,
            layers: layers.collect(),
            pool: plan.pool.map(|id| LinearParts::of(network, id)),
        })
    }
}

impl LayerParts {
    fn of(network: &Network<f32>, ids: LayerIds, folded: &Folded<f32>) -> Self {
        let both = |id: usize| [network.weight(id).to_vec(), network.weight(id + 1).to_vec()];
        Self {
            attention: LinearParts { weight: folded.map.to_vec(), bias: folded.bias.to_vec() },
            out_bias: network.weight(ids.out_proj + 1).to_vec(),
            norm1: both(ids.norm1),
            linear1: LinearParts::of(network, ids.linear1),
            linear2: LinearParts::of(network, ids.linear2),
            norm2: both(ids.norm2),
        }
    }
}

/// A batch as a model takes it: admitted values only, and of the model's schema.
///
/// # Errors
/// Where the batch does not fit the schema or holds numbers that are not finite.
pub fn admitted<'a>(model: &Model, batch: &'a FeatureBatch) -> Result<Cow<'a, FeatureBatch>, ModelError> {
    let batch = model.admission.apply(batch);
    check(&model.network.plan, &batch)?;
    Ok(batch)
}
