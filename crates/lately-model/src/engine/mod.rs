//! A model compiled for serving: weights folded and packed once, activations features x lanes ([`lately_kernels::lanes`]).
//!
//! - `request`: what all candidates of a request share in the first layer, once a request.
//! - `encoder`: the encoder's layers, some candidates at a time, so that their activations stay in the first two caches.
//! - `top`: cross layers, MLP and heads, 64 rows at a time; what a row has from its request is multiplied once a request.
//! - `dense`: a packed linear map.
//!
//! A row's logits are summed in one order, so they are the same bits whatever is scored beside it and in whatever order.
//! Encoders that are no per-candidate one-head transformer over [token ; candidate] keep the form of training, a row at
//! a time.

mod dense;
mod encoder;
mod request;
mod top;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lately_features::FeatureBatch;
use lately_kernels::Dropout;
use lately_kernels::buffer::Buffer;
use lately_kernels::lanes::{Bf16, F32, Format};

use crate::backend::Cpu;
use crate::chunk::{Chunk, Limits, check};
use crate::shard::Piece;
use crate::tape::{EncoderTape, Folded, sized};
use crate::{Model, ModelError, Precision};
use encoder::EncoderWeights;
use top::TopWeights;

/// A model as it is served.
#[derive(Debug)]
pub struct Engine {
    model: Arc<Model>,
    weights: Weights,
    /// Candidates whose attention took the plain path.
    fallbacks: AtomicU64,
}

#[derive(Debug)]
enum Weights {
    F32(Compiled<F32>),
    Bf16(Compiled<Bf16>),
}

/// All weights in one format.
#[derive(Debug)]
struct Compiled<F: Format> {
    format: F,
    /// Of an encoder that has a compiled form.
    encoder: Option<EncoderWeights<F::Word>>,
    top: TopWeights<F::Word>,
}

/// Working memory of [`Engine::score`]: one a thread. It grows to what the largest call needs and is then reused.
#[derive(Debug, Default)]
pub struct EngineMemory {
    chunk: Chunk,
    tape: EncoderTape<f32>,
    /// Of encoders without a compiled form.
    piece: Piece<f32>,
    folded: Vec<Folded<f32>>,
    rows_major: Buffer<f32>,
    sequence: Buffer<f32>,
    exact: Memory<f32>,
    words: Memory<u32>,
}

/// The part of it that depends on the format.
#[derive(Debug, Default)]
struct Memory<W> {
    request: request::Memory<W>,
    encoder: encoder::Memory<W>,
    top: top::Memory<W>,
}

impl Engine {
    /// Packs a model's weights; about as many bytes again as they have in this precision.
    pub fn new(model: Arc<Model>, precision: Precision) -> Self {
        let weights = match precision {
            Precision::F32 => Weights::F32(Compiled::new(F32, &model)),
            Precision::Bf16 => Weights::Bf16(Compiled::new(Bf16::default(), &model)),
        };
        Self { model, weights, fallbacks: AtomicU64::new(0) }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// In what its products multiply.
    pub fn precision(&self) -> Precision {
        match self.weights {
            Weights::F32(_) => Precision::F32,
            Weights::Bf16(_) => Precision::Bf16,
        }
    }

    /// Candidates so far whose first attention took the plain path, as sums of shared exponentials were too small to be
    /// trusted: see [`lately_kernels::shared`].
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    /// Logits N x H of a batch, row-major, calibrated where the model has a calibration, as [`Model::score`].
    ///
    /// A row's logits are the same bits whatever else is in the batch.
    ///
    /// # Errors
    /// Where the batch does not fit the schema or holds numbers that are not finite.
    pub fn score(&self, batch: &FeatureBatch, memory: &mut EngineMemory) -> Result<Vec<f32>, ModelError> {
        let model = &*self.model;
        let batch = &*model.admission.apply(batch);
        check(&model.network.plan, batch)?;
        let mut logits = Vec::with_capacity(batch.rows() * model.heads());
        match &self.weights {
            Weights::F32(weights) => self.run(weights, batch, memory, |m| &mut m.exact, &mut logits),
            Weights::Bf16(weights) => self.run(weights, batch, memory, |m| &mut m.words, &mut logits),
        }
        if let Some(calibration) = &model.calibration {
            calibration.apply(&mut logits);
        }
        Ok(logits)
    }

    fn run<F: Format>(
        &self,
        weights: &Compiled<F>,
        batch: &FeatureBatch,
        memory: &mut EngineMemory,
        own: impl Fn(&mut EngineMemory) -> &mut Memory<F::Word>,
        logits: &mut Vec<f32>,
    ) {
        let network = &self.model.network;
        let mut words = std::mem::take(own(memory));
        let mut row = 0;
        while row < batch.rows() {
            let EngineMemory { chunk, tape, piece, folded, rows_major, sequence, .. } = &mut *memory;
            chunk.fill(&network.plan, batch, row..batch.rows(), Limits::SCORE, &[]);
            let rows = chunk.rows.clone();
            let inputs = sized(rows_major, rows.len() * network.plan.inputs);
            match &weights.encoder {
                Some(encoder) => {
                    let sequence = sized(sequence, rows.len() * network.plan.encoder.output);
                    let fallbacks =
                        encoder.forward(weights.format, network, batch, chunk, tape, &mut words, sequence);
                    self.fallbacks.fetch_add(fallbacks, Ordering::Relaxed);
                    network.inputs::<Cpu>(batch, chunk, sequence, inputs);
                }
                None => {
                    crate::encoder::fold::<f32, Cpu>(network, folded);
                    // The product crate's order of sums depends on the number of rows: what is computed at once must not
                    // depend on a row's company.
                    let width = network.plan.inputs;
                    for some in apart(chunk, network.plan.encoder.per_candidate) {
                        let inputs = &mut inputs[some.start * width..some.end * width];
                        let some = rows.start + some.start..rows.start + some.end;
                        network.rows::<Cpu>(batch, some, piece, inputs, (Dropout::default(), folded));
                    }
                }
            }
            weights.top.forward(weights.format, network, batch, chunk, inputs, &mut words.top, logits);
            row = rows.end;
        }
        *own(memory) = words;
    }
}

/// Rows of the chunk that are encoded at once: each alone, or those of a request where they share the encoder's output.
fn apart(chunk: &Chunk, per_candidate: bool) -> impl Iterator<Item = Range<usize>> + '_ {
    let same = move |a: &u32, b: &u32| !per_candidate && a == b;
    let mut from = 0;
    chunk.request.chunk_by(same).map(move |rows| {
        from += rows.len();
        from - rows.len()..from
    })
}

impl<F: Format> Compiled<F> {
    fn new(format: F, model: &Model) -> Self {
        let network = &model.network;
        Self { format, encoder: EncoderWeights::new(format, network), top: TopWeights::new(format, network) }
    }
}
