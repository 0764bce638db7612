//! Experiments in the request path: who is in which variant, what it overrides, and when that is worth logging.
//!
//! A [`Book`] holds layers and experiments as they were declared, started, ramped and stopped; all that changes it is a
//! [`Change`], whoever asks for it. A layer deals people into places; its experiments have places of their own, so that
//! nobody is in two of one layer, and experiments of different layers override different things (Tang et al., KDD 2010,
//! "Overlapping experiment infrastructure"). `assign` is the hash, `plan` the book as a ranker uses it, `exposure` what
//! is logged.

mod assign;
mod book;
mod definition;
mod exposure;
mod plan;

pub use book::{Book, Change, Entry, State};
pub use definition::{ExperimentDefinition, ExperimentError, Overrides, VariantDefinition};
pub use exposure::Exposure;
pub(crate) use exposure::impression_variant;
pub use plan::check;
pub(crate) use plan::{Plan, Reach};
