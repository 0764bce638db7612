//! The one definition of the ranking model: configuration, parameters, forward, backward, loss, checkpoint.
//!
//! Read in this order: [`config`] (what can be chosen), `plan` (parameters and where every input column stands),
//! `network` (forward, then backward, over [`Backend`]), `encoder` (the same for the user sequence, a file an encoder), [`model`] (what
//! other crates use), [`checkpoint`] (bytes) [`parity`] (agreement with the reference
//! cases) and [`official`] (weights of the official module).
//!
//! Serving and training run one forward: training keeps a tape of every layer, serving overwrites one.

pub mod accelerator;
mod admission;
mod affinity;
mod agreement;
pub mod backend;
pub mod calibration;
pub mod checkpoint;
mod chunk;
pub mod config;
pub mod device;
mod encoder;
pub mod engine;
mod error;
mod golden;
mod gradients;
mod memory;
pub mod model;
mod network;
mod normaliser;
pub mod objective;
pub mod official;
pub mod parity;
mod plan;
mod rate;
mod shard;
mod tape;
#[cfg(test)]
mod tests;
mod top;
pub mod training;
mod update;

pub use accelerator::{Accelerator, AcceleratorError, Scorer};
pub use admission::{Admission, AdmissionFit};
pub use agreement::rank_correlation;
pub use backend::{Backend, Cpu, CpuBf16, CpuRounded, Scalar};
pub use calibration::{Calibration, HeadCalibration};
pub use checkpoint::{CheckpointError, Manifest};
pub use config::{Encoder, Fusion, ModelConfig, Outputs, Precision, SequenceActions};
pub use engine::{Engine, EngineMemory, PartCache, ServingPrecision};
pub use error::ModelError;
pub use golden::Golden;
pub use gradients::{GradientOf, Gradients};
pub use model::{Model, probability};
pub use normaliser::{Normaliser, NormaliserFit};
pub use objective::{Lists, Objective};
pub use official::OfficialError;
pub use parity::{ParityError, ParityReport};
pub use plan::Parameter;
pub use tape::Scratch;
pub use update::AdamStep;
