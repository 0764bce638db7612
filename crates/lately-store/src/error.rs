//! Why the store refuses or fails.

use std::path::PathBuf;
use std::sync::Arc;

use lately_features::EventError;
use lately_features::codec::CodecError;

/// Why the store refuses or fails. Clones are cheap: one failure is told to every caller that waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another part of this one, has the directory open.
    #[error("{} is in use by another process: stop it, or choose another data directory", .0.display())]
    Locked(PathBuf),
    /// The declared action types do not continue the stored ones.
    #[error(
        "action type {position} is `{declared}` in the schema and `{stored}` in the data: a sequence holds positions \
         in this list, so append new types at its end and never rename, reorder or remove any"
    )]
    Vocabulary {
        /// Position in the list, from 0.
        position: usize,
        /// Name in the data.
        stored: String,
        /// Name in the schema; `(none)` where the list is shorter.
        declared: String,
    },
    /// The queue in front of the log was full for as long as a caller may wait.
    #[error("the log's queue was full for {waited_ms} ms: send less, or again later; event ids count once")]
    Overloaded {
        /// How long the caller waited, ms.
        waited_ms: u64,
    },
    /// A write or fsync failed before; what is on disk is unknown, so nothing more is taken.
    #[error(
        "the log stopped after a failed write ({0}): check the disk and restart; what was acknowledged is safe"
    )]
    Poisoned(Arc<str>),
    /// An event does not fit the schema; nothing of its append was written.
    #[error("event {index}: {source}")]
    Refused {
        /// Its place in the list that was given, from 0.
        index: usize,
        /// What is wrong with it.
        source: EventError,
    },
    /// The files contradict each other.
    #[error("the data directory is damaged: {0}; restore it from a copy")]
    Damaged(Arc<str>),
    /// A stored record cannot be read.
    #[error("{place}: {source}")]
    Record {
        /// Which record.
        place: Arc<str>,
        /// What is wrong with it.
        source: CodecError,
    },
    /// An event cannot be written as bytes.
    #[error("an event cannot be encoded: {0}")]
    Encode(CodecError),
    /// The storage engine failed to read or to open.
    #[error("storage engine: {0}")]
    Engine(Arc<fjall::Error>),
    /// A thread of the store could not be started.
    #[error("cannot start the log's writer thread: {0}; raise the limit of threads")]
    Thread(Arc<std::io::Error>),
    /// The store is closing.
    #[error("the store is closing")]
    Closed,
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        Self::Engine(Arc::new(error))
    }
}

impl StoreError {
    pub(crate) fn record(place: impl Into<Arc<str>>) -> impl FnOnce(CodecError) -> Self {
        let place = place.into();
        move |source| Self::Record { place, source }
    }
}
