//! Why a chore failed.

use std::path::PathBuf;

/// Why a chore failed; the words say what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// A program could not be started.
    #[error("cannot start `{program}`: {source}; install it or put it in PATH")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program ended with a failure.
    #[error("`{command}` failed ({status}){output}")]
    Failed {
        /// As it was called.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote to stderr, if that was caught.
        output: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A Rust file is not Rust.
    #[error("{path}:{line}: not Rust: {message}")]
    Rust {
        /// Which, from the workspace's root.
        path: String,
        /// Where.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// A program's output is not what it should be.
    #[error("{what}: {message}")]
    Output {
        /// Whose output.
        what: String,
        /// What is wrong.
        message: String,
    },
    /// A step of a chore failed; the step has said why.
    #[error("stopped at step `{name}`; run it again: {again}")]
    Step {
        /// Which.
        name: &'static str,
        /// The command that repeats it alone.
        again: String,
    },
    /// The tidy rules are broken.
    #[error("tidy: {0} problems, listed above")]
    Untidy(usize),
    /// It cannot be done here, which is no failure of what is checked.
    #[error("skipped: {0}")]
    Skip(String),
    /// No such step, bench and the like.
    #[error("{0}")]
    Unknown(String),
}
