//! The kernels, by emulation, against the CPU's engine; and their compilation for cards, where NVRTC is.

mod card;
mod compile;
mod emulation;
mod score;
mod train;
pub(crate) mod world;
