//! The whole model: parity, finite differences, independence of the batch, checkpoints.

mod admission;
mod checkpoint;
mod gradient;
mod parity;
mod score;
mod speed;
pub(crate) mod world;
