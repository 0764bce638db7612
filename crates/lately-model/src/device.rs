//! What an engine on another device takes from a model: weights folded for serving, and the numbers of a batch's rows
//! before anything is multiplied.
//!
//! All that is a feature is made here, by the very functions of training, so that no device computes one anew: tokens,
//! the candidates' part of them, and every column of the top's inputs but the encoder's. What is left is algebra.

use std::borrow::Cow;
use std::ops::Range;

use lately_features::FeatureBatch;
use lately_kernels::Dropout;
use lately_kernels::buffer::Buffer;
use lately_kernels::linear::Shape;

use crate::backend::{Backend, Cpu};
use crate::chunk::{Chunk, Limits, check};
use crate::config::Encoder;
use crate::encoder::{Pass, fold, tokens};
use crate::network::Network;
use crate::plan::LayerIds;
use crate::rate::{self, RatePlan};
use crate::tape::{EncoderTape, Folded, sized};
use crate::{Model, ModelError};

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

/// All weights that serving multiplies with, in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct ServingParts {
    /// Width of the top's inputs: the encoder's output first.
    pub inputs: usize,
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

/// Memory of [`Staging::fill`]; it grows to what the largest call needs and is then reused.
#[derive(Debug, Default)]
pub struct Staging {
    chunk: Chunk,
    tape: EncoderTape<f32>,
    inputs: Buffer<f32>,
    rate: [Buffer<f32>; 3],
    requests: Vec<StagedRequest>,
}

/// A request of a [`Staged`] stretch of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedRequest {
    /// Its rows, from the first one of the stretch.
    pub rows: Range<usize>,
    /// Its tokens among `Staged::tokens`.
    pub tokens: Range<usize>,
    /// Its tokens among `Staged::masked`; empty where none is masked.
    pub masked: Range<usize>,
}

/// Some rows of a batch, and what an engine multiplies for them.
#[derive(Debug)]
pub struct Staged<'a> {
    /// Their requests, in order.
    pub requests: &'a [StagedRequest],
    /// Tokens x token width: [action ; item]. None where there is no transformer.
    pub tokens: &'a [f32],
    /// Whether a token may not be looked at.
    pub masked: &'a [bool],
    /// Rows x candidate width.
    pub candidates: &'a [f32],
    /// Rows x the top's inputs. The encoder's columns, which come first, hold anything.
    pub inputs: &'a [f32],
    /// Requests x heads, to be added to the logits of their rows; empty where there is no rate tower.
    pub rate: &'a [f32],
}

impl Staging {
    /// Stages a range of rows of an [`admitted`] batch, not empty.
    pub fn fill(&mut self, model: &Model, batch: &FeatureBatch, rows: Range<usize>) -> Staged<'_> {
        let network = &model.network;
        let plan = &network.plan;
        let Self { chunk, tape, inputs, rate, requests } = self;
        chunk.fill(plan, batch, rows, Limits::NONE, &[]);
        if network.config.encoder != Encoder::None {
            let pass = Pass { network, batch, chunk, dropout: Dropout::default(), folded: &[] };
            tokens::forward::<f32, Cpu>(&pass, tape);
            tokens::candidates(&pass, plan.encoder.candidate(), tape);
        }
        fill_requests(chunk, requests);
        if network.config.encoder == Encoder::None {
            requests.iter_mut().for_each(|r| r.tokens = 0..0);
        }
        let inputs = sized(inputs, chunk.rows.len() * plan.inputs);
        network.features::<Cpu>(batch, chunk, inputs);
        let rate = match &plan.rate {
            Some(plan) => rate_logits(network, plan, batch, chunk, requests, inputs, rate),
            None => &[],
        };
        let (tokens, candidates): (&[f32], &[f32]) = match network.config.encoder {
            Encoder::None => (&[], &[]),
            _ => (&tape.token, &tape.candidate),
        };
        Staged { requests, tokens, masked: &chunk.masked, candidates, inputs, rate }
    }
}

/// The chunk's requests that have rows.
fn fill_requests(chunk: &Chunk, requests: &mut Vec<StagedRequest>) {
    requests.clear();
    let mut row = 0;
    for rows in chunk.request.chunk_by(|a, b| a == b) {
        let at = rows[0] as usize - chunk.requests.start;
        let tokens = chunk.starts[at] as usize..chunk.starts[at + 1] as usize;
        let first = chunk.offsets[chunk.segment[row] as usize] as usize;
        let masked = if chunk.masked.is_empty() { 0..0 } else { first..first + tokens.len() };
        requests.push(StagedRequest { rows: row..row + rows.len(), tokens, masked });
        row += rows.len();
    }
}

/// The rate tower's logits, a row a request: nothing of them depends on the candidate.
fn rate_logits<'a>(
    network: &Network<f32>,
    plan: &RatePlan,
    batch: &FeatureBatch,
    chunk: &Chunk,
    requests: &[StagedRequest],
    rows_major: &[f32],
    [inputs, hidden, logits]: &'a mut [Buffer<f32>; 3],
) -> &'a [f32] {
    let width = rate::width(network, plan);
    let inputs = sized(inputs, requests.len() * width);
    for (request, out) in requests.iter().zip(inputs.chunks_exact_mut(width)) {
        let row = &rows_major[request.rows.start * network.plan.inputs..][..network.plan.inputs];
        rate::input(network, plan, batch, chunk, request.rows.start, row, out);
    }
    let ((w, b), (v, c)) = (network.linear(plan.hidden), network.linear(plan.head));
    let hidden = sized(hidden, requests.len() * b.len());
    Cpu::linear(Shape::new(requests.len(), width, b.len()), inputs, w, b, true, hidden);
    let logits = sized(logits, requests.len() * c.len());
    Cpu::linear(Shape::new(requests.len(), b.len(), c.len()), hidden, v, c, false, logits);
    logits
}
