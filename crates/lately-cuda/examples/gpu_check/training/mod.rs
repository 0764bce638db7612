//! Training on a card against training on the CPU, and how fast it is.
//!
//! `rows` has batches with labels, `learning` the model that learns on the card or on the CPU, `correctness` compares losses
//! and gradients, `curve` whole runs, `timings` measures, `parts` sorts what the card's events say, `work` counts products,
//! `export` writes the case that PyTorch trains on too, `table` shows all of it.

pub(crate) mod correctness;
pub(crate) mod curve;
pub(crate) mod export;
mod learning;
mod parts;
mod rows;
pub(crate) mod table;
pub(crate) mod timings;
mod work;

pub(crate) use learning::{Learning, learner};

/// Threads that work for a measurement on the host.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
