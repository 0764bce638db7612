//! What the admin door needs of experiments; given by the composition root, as the server knows neither where the book is
//! kept nor how a report is made.

use std::sync::Arc;

use lately_rank::experiment::{Book, Change, ExperimentError};

/// Why the desk did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The change makes no sense; says what to do.
    #[error(transparent)]
    Refused(#[from] ExperimentError),
    /// It cannot be done as things are; says what to do.
    #[error("{0}")]
    Conflict(String),
    /// Storage or log failed.
    #[error("{0}")]
    Failed(String),
}

/// How an experiment stands, in the forms in which it is sent. Made by the composition root: the server does not know what
/// the numbers mean.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentReport {
    /// All numbers.
    pub json: serde_json::Value,
    /// The table for people.
    pub text: String,
}

/// A call of the desk.
type Call<A, B> = Arc<dyn Fn(A) -> Result<B, DeskError> + Send + Sync>;

/// Where experiments are looked at and changed. All calls block.
#[derive(Clone)]
pub struct ExperimentDesk {
    /// The book as it is kept.
    pub book: Call<(), Book>,
    /// Makes a change; the book after it, which this server goes by when it is returned.
    pub change: Call<Change, Book>,
    /// How the experiment of a name stands. The first call reads the whole log, a later one what came since.
    pub report: Call<String, ExperimentReport>,
}

impl std::fmt::Debug for ExperimentDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExperimentDesk").finish_non_exhaustive()
    }
}
