//! The house's rules, checked: who may use whom, where `unsafe` stands, how long files and functions are, and what
//! must not be left lying about.
//!
//! Each part prints what it saw and returns what is wrong.

mod edges;
mod sizes;
mod source;
mod text;

use crate::error::TaskError;
use crate::workspace;

/// Prints the report; an error if any rule is broken.
pub(crate) fn run() -> Result<(), TaskError> {
    let packages = workspace::packages()?;
    let files = workspace::files()?;
    let sources = source::read_all(&files)?;
    let mut problems = edges::check(&packages, &edges::print);
    problems.extend(source::check(&sources));
    sizes::print(&sources);
    problems.extend(source::crate_roots(&packages)?);
    problems.extend(text::check(&files)?);
    for problem in &problems {
        println!("PROBLEM {problem}");
    }
    if problems.is_empty() {
        println!("tidy: {} files, no problem", files.len());
        return Ok(());
    }
    Err(TaskError::Untidy(problems.len()))
}
