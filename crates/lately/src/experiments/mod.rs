//! Experiments of a data directory: where the book is kept, and how running servers go by it.
//!
//! `ledger` keeps the book beside the models, so that all servers of a registry share it; `desk` makes a server go by it,
//! with a model slot for each alias that a variant names; `readout` reads the log into reports. What a variant is:
//! `lately_rank::experiment`; what a report's numbers mean: `lately_experiment`.

mod desk;
mod ledger;
mod readout;

pub(crate) use desk::{Desk, watch};
pub use ledger::{Ledger, LedgerError};
pub(crate) use readout::Readouts;
