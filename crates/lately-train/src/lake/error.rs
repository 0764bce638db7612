//! Why a lake cannot be opened, advanced or read.

use lately_features::codec::CodecError;
use lately_store::objects::ObjectError;
use parquet::errors::ParquetError;

use super::config::LakeConfigError;
use crate::join::JoinError;

/// Why a lake cannot be opened, advanced or read.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] LakeConfigError),
    /// An object cannot be read or written.
    #[error("the lake's objects: {0}")]
    Objects(#[from] ObjectError),
    /// The join refuses.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Its rows are of another schema.
    #[error(
        "the lake holds rows of schema {there}, the directory has {here}: `lately join --rebuild` makes it again"
    )]
    Schema {
        /// Hash of the lake's.
        there: String,
        /// Hash of the current one.
        here: String,
    },
    /// A newer build wrote it.
    #[error("{name} was written by a newer build: use that one")]
    Newer {
        /// The manifest.
        name: String,
    },
    /// No manifest can be read.
    #[error(
        "{name} is damaged and so is the one before it: `lately join --rebuild` makes the lake again from the log"
    )]
    Manifest {
        /// The newest.
        name: String,
    },
    /// The state cannot be read.
    #[error("{name} is damaged ({why}): `lately join --rebuild` makes the lake again from the log")]
    State {
        /// The object.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Another process committed.
    #[error(
        "manifest {number} was written by another process: one at a time may advance a lake; open it again"
    )]
    Taken {
        /// Its number.
        number: u64,
    },
    /// What was in memory may differ from what is written.
    #[error("a commit failed before: open the lake again")]
    Broken,
    /// A file could not be written.
    #[error("a Parquet file could not be written: {0}")]
    Write(#[from] ParquetError),
    /// A value has no bytes.
    #[error("the state could not be written: {0}")]
    Encode(#[from] CodecError),
    /// A file went while it was read.
    #[error("{0} was removed while it was read: read again")]
    Gone(String),
}
