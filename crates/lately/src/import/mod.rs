//! Logs of others become Lately's events: KuaiRand, Polis, and any table through a mapping.
//!
//! Each importer reads in two steps. `read` parses every file and counts what is bad; nothing has been written yet, so
//! an import that is refused leaves nothing behind. `emit` then hands the events over in the order in which they
//! would have been ingested, in chunks: users, items, and the rest by time. A bad row is named with its file and
//! line, never stops the import before `max_bad`, and never joins it.

mod emitter;
pub mod generic;
pub mod kuairand;
pub mod polis;
mod report;
mod table;
pub mod vectors;

use std::path::PathBuf;

use lately_features::{Event, EventError, IdError, SchemaError};

pub use report::{BadRow, ImportReport};

/// Any error of the caller's, from the sink.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Takes the events, a chunk at a time, in ingest order.
pub type Sink<'a> = dyn FnMut(Vec<Event>) -> Result<(), BoxError> + 'a;

/// Learns item vectors: from lists of item numbers below the second argument, to that many rows of
/// [`VECTOR_DIM`] numbers.
pub type Embed<'a> = dyn Fn(&[Vec<u32>], usize) -> Vec<f32> + 'a;

/// Length of the item vectors that the importers learn.
pub const VECTOR_DIM: usize = 32;

/// Bad rows that an import tolerates unless told otherwise.
pub const DEFAULT_MAX_BAD: u64 = 100;

/// Why an import stops.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// None of the accepted names is in the directory.
    #[error("{dir} holds none of {names}: point to the directory with the data set's files")]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// The names that would do.
        names: String,
    },
    /// A file cannot be opened or read.
    #[error("{file}: cannot be read after line {line}: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Lines read so far.
        line: u64,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file has another form than expected: no header, a column is missing, no Parquet.
    #[error("{file}: {reason}")]
    Format {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The mapping is refused.
    #[error("mapping {file}: {reason}")]
    Mapping {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the key.
        reason: String,
    },
    /// More bad rows than allowed; nothing was imported.
    #[error("{} bad rows, {max} are allowed and nothing was imported: correct the file or raise --max-bad\n{}",
        report.bad_count, report.bad_lines())]
    TooManyBad {
        /// The limit.
        max: u64,
        /// What had been read, with the first bad rows.
        report: Box<ImportReport>,
    },
    /// `embed` returned another number of values than items x [`VECTOR_DIM`].
    #[error("item vectors: {got} numbers for {items} items of {VECTOR_DIM}: train them with that length")]
    Vectors {
        /// Number of items.
        items: usize,
        /// Numbers returned.
        got: usize,
    },
    /// A generated id is refused.
    #[error("id: {0}")]
    Id(#[from] IdError),
    /// A generated event is not of the schema.
    #[error("event: {0}")]
    Event(#[from] EventError),
    /// The importer's schema is refused.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The sink failed; what it had taken before is imported.
    #[error("writing the events: {0}")]
    Sink(#[source] BoxError),
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    /// A directory of the real data sets; says so where it is absent.
    pub(super) fn real_data(name: &str) -> Option<PathBuf> {
        let base = std::env::var_os("LATELY_DATA").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
            PathBuf::from,
        );
        let dir = base.join(name);
        if dir.is_dir() {
            return Some(dir);
        }
        println!("skipped: {} is absent (set LATELY_DATA)", dir.display());
        None
    }
}
