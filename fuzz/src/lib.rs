//! Fuzz targets for all bytes that come from outside, and a driver that needs nothing but stable Rust.
//!
//! Read in this order: [`target`] (what a target is and the list of them), [`mutate`] (how an input is changed),
//! [`driver`] (the loop, its growing corpus and what counts as a failure).
//!
//! ```text
//! cargo xtask fuzz                                  every target, 10 s each
//! cargo xtask fuzz --target schema --seconds 600 --seed 7
//! cargo xtask fuzz --target schema --input FILE     one stored input again
//! cargo xtask fuzz --target schema --trace          finds an input that aborts the process
//! ```
//!
//! The same seed gives the same inputs in the same order; the time limit only decides how many of them run. An input
//! that fails is written to `fuzz/failures/`; once the bug is mended, move it to `fuzz/corpus/TARGET/`, from where
//! every later run replays it first.

pub mod driver;
pub mod mutate;
pub mod target;

pub use driver::{Failure, Limits, Report, run, run_one};
pub use target::{TARGETS, Target, Verdict};
