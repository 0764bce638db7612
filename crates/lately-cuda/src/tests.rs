//! The kernels, by emulation, against the CPU's engine; their compilation for cards, where NVRTC is; and groups of members.

mod card;
mod compile;
mod emulation;
mod items;
mod learn;
mod meeting;
mod nccl;
mod peers;
mod score;
mod train;
pub(crate) mod world;
