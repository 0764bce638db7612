//! `lately ablate`: a named set of configurations, each trained with several seeds, compared on later days.
//!
//! [`suite`] reads what is compared, [`runs`] trains and measures (or finds what an earlier run left, [`kept`]),
//! [`results`] is what is written down. The numbers are [`lately_train::ablation`]'s.

pub mod kept;
pub mod results;
pub mod runs;
pub mod suite;

pub use runs::{Bench, Outcome, run};
pub use suite::{Entry, Suite};
