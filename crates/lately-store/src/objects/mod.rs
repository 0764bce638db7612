//! Bytes under names: where training rows and models are kept, on the local disk or elsewhere.
//!
//! The promise: an object is there whole or not at all, whoever crashes; what a call returned is durable and seen by every
//! later call of any process. Of two that [`Objects::create`] or [`Objects::swap`] one name at once, one wins.

mod directory;
mod resolve;
#[cfg(feature = "s3")]
mod s3;

use std::fmt;

pub use directory::Directory;
pub use resolve::open;
#[cfg(feature = "s3")]
pub use s3::S3;

/// Longest name, bytes.
pub const MAX_NAME_BYTES: usize = 512;

/// Why an object cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The name might lead elsewhere.
    #[error(
        "`{0}` is not a name of an object: use parts of a-z, A-Z, 0-9, `-`, `_`, `=` and `.`, none beginning with a dot, \
         joined by `/`, {MAX_NAME_BYTES} bytes at most"
    )]
    Name(String),
    /// A URI that cannot be opened.
    #[error("`{uri}` cannot be opened: {reason}")]
    Uri {
        /// It, without a password.
        uri: String,
        /// What is wrong.
        reason: String,
    },
    /// Storage elsewhere refuses or does not answer.
    #[error("{place}: {reason}")]
    Remote {
        /// Which object.
        place: String,
        /// What it said.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("{place}: {source}")]
    Io {
        /// Which object or directory.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// An object, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// When it was written, ms since 1970 UTC, by the clock of where it is kept.
    pub written_ms: i64,
}

/// Bytes under names. Share it by `Arc`; all methods block.
pub trait Objects: Send + Sync + fmt::Debug {
    /// Writes an object, in the place of a former one.
    ///
    /// # Errors
    /// [`ObjectError`]; the former one is then there, or the new one, never a mixture.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), ObjectError>;

    /// Writes an object where there is none yet; returns whether it did.
    ///
    /// # Errors
    /// As [`Objects::put`].
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, ObjectError>;

    /// Writes an object in the place of one that holds exactly `from` (`None`: of none); returns whether it did.
    ///
    /// # Errors
    /// As [`Objects::put`].
    fn swap(&self, name: &str, from: Option<&[u8]>, to: &[u8]) -> Result<bool, ObjectError>;

    /// The bytes of an object; `None` where there is none.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectError>;

    /// All objects whose name begins with `prefix`, by name.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError>;

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn delete(&self, name: &str) -> Result<(), ObjectError>;

    /// Removes what a crash left unfinished, which is no object; an engine that leaves nothing has nothing to do.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn sweep(&self) -> Result<(), ObjectError> {
        Ok(())
    }
}

/// Refuses what is no name: an engine joins names to a path or a URL.
pub(crate) fn check_name(name: &str) -> Result<(), ObjectError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=' | b'.');
    let part = |p: &str| !p.is_empty() && !p.starts_with('.') && p.bytes().all(allowed);
    if name.len() <= MAX_NAME_BYTES && name.split('/').all(part) {
        return Ok(());
    }
    Err(ObjectError::Name(name.chars().take(80).collect()))
}
