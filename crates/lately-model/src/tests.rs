//! The whole model: parity, finite differences, independence of the batch, checkpoints, official weights.

mod admission;
mod checkpoint;
mod device;
mod engine;
mod gradient;
mod official;
mod parity;
mod score;
mod speed;
pub(crate) mod world;
