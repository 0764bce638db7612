//! The one definition of the ranking model: configuration, parameters, forward, backward, loss, checkpoint.
//!
//! Read in this order: [`config`] (what can be chosen), `plan` (parameters and where every input column stands),
//! `network` (forward, then backward, over [`Backend`]), `encoder` (the same for the user sequence), [`model`] (what
//! other crates use), [`checkpoint`] (bytes) and [`parity`] (agreement with the reference cases).
//!
//! Serving and training run one forward: training keeps a tape of every layer, serving overwrites one.

mod admission;
mod affinity;
pub mod backend;
pub mod checkpoint;
mod chunk;
pub mod config;
mod encoder;
mod error;
mod gradients;
pub mod model;
mod network;
mod normaliser;
pub mod parity;
mod plan;
mod tape;
#[cfg(test)]
mod tests;

pub use admission::{Admission, AdmissionFit};
pub use backend::{Backend, Cpu, Scalar};
pub use checkpoint::{CheckpointError, Manifest};
pub use config::{Encoder, Fusion, ModelConfig};
pub use error::ModelError;
pub use gradients::{GradientOf, Gradients};
pub use model::Model;
pub use normaliser::{Normaliser, NormaliserFit};
pub use parity::{ParityError, ParityReport};
pub use plan::Parameter;
pub use tape::Scratch;
