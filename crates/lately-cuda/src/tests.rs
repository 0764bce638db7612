//! The kernels, by emulation, against the CPU's engine; and their compilation for cards, where NVRTC is.

mod card;
mod compile;
mod emulation;
mod score;
pub(crate) mod world;
