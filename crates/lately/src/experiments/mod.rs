//! Experiments of a data directory: where the book is kept, and how running servers go by it.
//!
//! `ledger` keeps the book beside the models, so that all servers of a registry share it; `desk` makes a server go by it,
//! with a model slot for each alias that a variant names; `readout` reads the log into reports, `plot` draws one, `past` says
//! what a plan must know, and `other_weights` what other weights would have earned. What a variant is:
//! `lately_rank::experiment`; what the numbers mean: `lately_experiment`.

mod desk;
mod ledger;
mod other_weights;
mod past;
mod plot;
mod readout;

pub(crate) use desk::{Desk, watch};
pub use ledger::{Ledger, LedgerError};
pub(crate) use other_weights::{Judged, OtherWeights};
pub(crate) use past::past;
pub(crate) use plot::effects;
pub(crate) use readout::{Readouts, design};
