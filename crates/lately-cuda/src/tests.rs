//! The kernels, by emulation, against the CPU's engine; and their compilation for cards, where NVRTC is.

mod compile;
mod score;
mod world;
