//! `lately bench serve`: a server under load that does not wait for its answers.
//!
//! Read in this order: `arrivals` (when requests are sent), [`users`] and `workload` (who asks for what), `drive` (how
//! they are sent, in open and closed loop) over `client`, `record` (what is kept of them), `phase` (one rate, with
//! events beside it), `capacity`, `overload` and `swaps` (phases with a conclusion), `run` (all of them in order) and
//! `report`, `verdict`, `plot`. [`preset`] and `made` make a data directory to serve, `source` chooses between that and
//! a real one, `server` starts it.
//!
//! Latency counts from the time at which a request was to be sent, so that what waits because the server stalls is in
//! the percentiles too.

mod arrivals;
mod capacity;
mod client;
mod drive;
pub(crate) mod made;
mod overload;
mod phase;
pub(crate) mod plot;
pub mod preset;
mod record;
pub(crate) mod report;
mod run;
mod server;
mod source;
mod swaps;
pub mod users;
mod verdict;
pub(crate) mod workload;

pub use preset::Preset;
pub(crate) use run::{Chosen, Times, run};
pub(crate) use source::{Subject, SubjectOptions};
pub use users::History;
