//! Experiments of a data directory: where the book is kept, and how running servers go by it.
//!
//! `ledger` keeps the book beside the models, so that all servers of a registry share it; `desk` makes a server go by it,
//! with a model slot for each alias that a variant names. What a variant is: `lately_rank::experiment`.

mod desk;
mod ledger;

pub(crate) use desk::{Desk, watch};
pub use ledger::{Ledger, LedgerError};
