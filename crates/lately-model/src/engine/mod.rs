//! A model compiled for serving: weights folded and packed once, activations features x lanes ([`lately_kernels::lanes`]).
//!
//! - `request`: what all candidates of a request share in the first layer, once a request.
//! - `cache`: the same of a person's latest request.
//! - `encoder`, and `layer`: the encoder's layers, some candidates at a time, so that their activations stay in the first two caches.
//! - `top`: cross layers, MLP and heads, 64 rows at a time; what a row has from its request is multiplied once a request.
//! - `dense`: a packed linear map.
//!
//! A row's logits are summed in one order, so they are the same bits whatever is scored beside it and in whatever order.
//! Encoders that are no per-candidate one-head transformer over [token ; candidate] keep the form of training, a row at
//! a time.

mod cache;
mod dense;
mod encoder;
mod layer;
mod request;
mod top;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lately_features::FeatureBatch;
use lately_kernels::Dropout;
use lately_kernels::bf16::Isa;
use lately_kernels::buffer::Buffer;
use lately_kernels::lanes::{Activations, Bf16, F32, Format, Int8};
use serde::{Deserialize, Serialize};

use crate::backend::Cpu;
use crate::chunk::{Chunk, Limits, check};
use crate::memory;
use crate::shard::Piece;
use crate::tape::{EncoderTape, Folded, sized};
use crate::{Model, ModelError};
pub use cache::PartCache;
use encoder::EncoderWeights;
use top::TopWeights;

/// A model as it is served.
#[derive(Debug)]
pub struct Engine {
    model: Arc<Model>,
    weights: Weights,
    /// No other engine of this process has it.
    number: u64,
}

/// In what a served model multiplies. All sum in f32, or exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServingPrecision {
    /// As it was trained.
    #[default]
    F32,
    /// Factors rounded to bfloat16.
    Bf16,
    /// The top's factors rounded to whole numbers of 8 bits, the encoder's to bfloat16, where the machine multiplies those.
    Int8,
}

impl ServingPrecision {
    /// The fastest in which a ranking is hardly another one: bf16 where this machine has instructions for it, else f32.
    pub fn of_machine() -> Self {
        if Isa::best() == Isa::Portable { Self::F32 } else { Self::Bf16 }
    }

    /// Its name in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// Where shared parts are kept, and whose they are.
#[derive(Clone, Copy)]
struct Kept<'a> {
    cache: &'a PartCache,
    users: &'a [u64],
    engine: u64,
}

#[derive(Debug)]
enum Weights {
    F32(Compiled<F32, F32>),
    Bf16(Compiled<Bf16, Bf16>),
    Int8(Compiled<Bf16, Int8>),
    /// On machines without instructions for bfloat16.
    Int8AndF32(Compiled<F32, Int8>),
}

/// All weights, the encoder's in one format and the top's in another.
#[derive(Debug)]
struct Compiled<E: Format, T: Format> {
    formats: (E, T),
    /// Of an encoder that has a compiled form.
    encoder: Option<EncoderWeights<E::Word>>,
    top: TopWeights<T::Word>,
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
    fallbacks: u64,
}

impl EngineMemory {
    /// Candidates scored in it so far whose first attention took the plain path, as sums of shared exponentials were too
    /// small to be trusted: see [`lately_kernels::shared`].
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks
    }

    /// Bytes that it holds: after a call, what the largest calls so far needed.
    pub fn bytes(&self) -> usize {
        let Self { chunk, tape, piece, folded, rows_major, sequence, exact, words, fallbacks: _ } = self;
        memory::of_forward(chunk, tape, piece)
            + memory::of_folded(folded)
            + rows_major.bytes()
            + sequence.bytes()
            + exact.bytes()
            + words.bytes()
    }
}

impl<W: Copy + Default> Memory<W> {
    fn bytes(&self) -> usize {
        let Self { encoder: Encoding { request, encoder }, top } = self;
        request.bytes() + encoder.bytes() + top.bytes()
    }
}

/// The parts of it that depend on the formats.
#[derive(Debug, Default)]
struct Memory<W> {
    encoder: Encoding<W>,
    top: top::Memory<W>,
}

#[derive(Debug, Default)]
struct Encoding<W> {
    request: request::Memory<W>,
    encoder: encoder::Memory<W>,
}

/// Where the memory of a word's formats is.
trait Holds<W> {
    fn of(&mut self) -> &mut Memory<W>;
}

impl Holds<f32> for EngineMemory {
    fn of(&mut self) -> &mut Memory<f32> {
        &mut self.exact
    }
}

impl Holds<u32> for EngineMemory {
    fn of(&mut self) -> &mut Memory<u32> {
        &mut self.words
    }
}

impl Engine {
    /// Packs a model's weights; about as many bytes again as they have in this precision.
    pub fn new(model: Arc<Model>, precision: ServingPrecision) -> Self {
        let bf16 = Bf16::default();
        let weights = match precision {
            ServingPrecision::F32 => Weights::F32(Compiled::new((F32, F32), &model)),
            ServingPrecision::Bf16 => Weights::Bf16(Compiled::new((bf16, bf16), &model)),
            ServingPrecision::Int8 if Isa::best() == Isa::Portable => {
                Weights::Int8AndF32(Compiled::new((F32, Int8::default()), &model))
            }
            ServingPrecision::Int8 => Weights::Int8(Compiled::new((bf16, Int8::default()), &model)),
        };
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { model, weights, number }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// In what its products multiply.
    pub fn precision(&self) -> ServingPrecision {
        match self.weights {
            Weights::F32(_) => ServingPrecision::F32,
            Weights::Bf16(_) => ServingPrecision::Bf16,
            Weights::Int8(_) | Weights::Int8AndF32(_) => ServingPrecision::Int8,
        }
    }

    /// Bytes of its packed weights, beside those of the model.
    pub fn bytes(&self) -> usize {
        fn of<E: Format, T: Format>(weights: &Compiled<E, T>) -> usize {
            weights.encoder.as_ref().map_or(0, EncoderWeights::bytes) + weights.top.bytes()
        }
        match &self.weights {
            Weights::F32(weights) => of(weights),
            Weights::Bf16(weights) => of(weights),
            Weights::Int8(weights) => of(weights),
            Weights::Int8AndF32(weights) => of(weights),
        }
    }

    /// Multiply-adds of the products that scoring a candidate takes beside so many tokens: what is left of them after folding
    /// and sharing. An encoder without a compiled form is not counted.
    pub fn multiply_adds(&self, tokens: usize) -> usize {
        fn of<E: Activations, T: Format>(weights: &Compiled<E, T>, tokens: usize) -> usize {
            weights.encoder.as_ref().map_or(0, |e| e.multiply_adds(tokens)) + weights.top.multiply_adds()
        }
        match &self.weights {
            Weights::F32(weights) => of(weights, tokens),
            Weights::Bf16(weights) => of(weights, tokens),
            Weights::Int8(weights) => of(weights, tokens),
            Weights::Int8AndF32(weights) => of(weights, tokens),
        }
    }

    /// Logits N x H of a batch, row-major, calibrated where the model has a calibration, as [`Model::score`].
    ///
    /// A row's logits are the same bits whatever else is in the batch.
    ///
    /// # Errors
    /// Where the batch does not fit the schema or holds numbers that are not finite.
    pub fn score(&self, batch: &FeatureBatch, memory: &mut EngineMemory) -> Result<Vec<f32>, ModelError> {
        self.score_kept(batch, None, memory)
    }

    /// The same bits as [`Engine::score`], with what a person's requests share taken from `cache`, or put there. `users`: a
    /// number for the person of each request of the batch.
    ///
    /// # Errors
    /// As there, and where a request has no user.
    pub fn score_cached(
        &self,
        batch: &FeatureBatch,
        users: &[u64],
        cache: &PartCache,
        memory: &mut EngineMemory,
    ) -> Result<Vec<f32>, ModelError> {
        ModelError::length("users", batch.requests(), users.len())?;
        self.score_kept(batch, Some(Kept { cache, users, engine: self.number }), memory)
    }

    fn score_kept(
        &self,
        batch: &FeatureBatch,
        kept: Option<Kept<'_>>,
        memory: &mut EngineMemory,
    ) -> Result<Vec<f32>, ModelError> {
        let model = &*self.model;
        let batch = &*model.admission.apply(batch);
        check(&model.network.plan, batch)?;
        let mut logits = Vec::with_capacity(batch.rows() * model.heads());
        match &self.weights {
            Weights::F32(weights) => self.run(weights, batch, kept, memory, &mut logits),
            Weights::Bf16(weights) => self.run(weights, batch, kept, memory, &mut logits),
            Weights::Int8(weights) => self.run(weights, batch, kept, memory, &mut logits),
            Weights::Int8AndF32(weights) => self.run(weights, batch, kept, memory, &mut logits),
        }
        if let Some(calibration) = &model.calibration {
            calibration.apply(&mut logits);
        }
        Ok(logits)
    }

    fn run<E: Activations, T: Format>(
        &self,
        weights: &Compiled<E, T>,
        batch: &FeatureBatch,
        kept: Option<Kept<'_>>,
        memory: &mut EngineMemory,
        logits: &mut Vec<f32>,
    ) where
        EngineMemory: Holds<E::Word> + Holds<T::Word>,
    {
        let network = &self.model.network;
        let mut encoding = std::mem::take(&mut Holds::<E::Word>::of(memory).encoder);
        let mut top = std::mem::take(&mut Holds::<T::Word>::of(memory).top);
        let (of_encoder, of_top) = weights.formats;
        let mut row = 0;
        while row < batch.rows() {
            let EngineMemory { chunk, tape, piece, folded, rows_major, sequence, fallbacks, .. } =
                &mut *memory;
            chunk.fill(&network.plan, batch, row..batch.rows(), Limits::SCORE, &[]);
            let rows = chunk.rows.clone();
            let inputs = sized(rows_major, rows.len() * network.plan.inputs);
            match &weights.encoder {
                Some(encoder) => {
                    let sequence = sized(sequence, rows.len() * network.plan.encoder.output);
                    *fallbacks += encoder.forward(
                        of_encoder,
                        network,
                        batch,
                        chunk,
                        tape,
                        kept,
                        &mut encoding,
                        sequence,
                    );
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
            weights.top.forward(of_top, network, batch, chunk, inputs, &mut top, logits);
            row = rows.end;
        }
        Holds::<E::Word>::of(memory).encoder = encoding;
        Holds::<T::Word>::of(memory).top = top;
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

impl<E: Activations, T: Format> Compiled<E, T> {
    fn new(formats: (E, T), model: &Model) -> Self {
        let network = &model.network;
        let (encoder, top) = (EncoderWeights::new(formats.0, network), TopWeights::new(formats.1, network));
        Self { formats, encoder, top }
    }
}
