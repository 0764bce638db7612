//! The project's own chores: `cargo xtask {test,ci,tidy,kernels,fuzz,bench}`.
//!
//! Read [`mod@steps`] (what a chore made of steps looks like), [`mod@test`] (the list of all that must pass),
//! [`mod@tidy`] (the house's rules) and [`mod@bench`] (how a measurement is made and kept).

mod bench;
mod error;
mod kernels;
mod skipped;
mod steps;
mod test;
mod tidy;
mod workspace;

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use crate::error::TaskError;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own chores")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Everything that must pass, in order; stops at the first failure.
    Test(test::Options),
    /// The same with the settings of CI: the lock file must be current, and all failing tests are named.
    Ci(test::Options),
    /// Checks crate edges, `unsafe`, sizes and left-overs.
    Tidy,
    /// Compiles every CUDA kernel, for which no card is needed.
    Kernels,
    /// Runs the fuzz targets; see `cargo xtask fuzz --help`.
    #[command(disable_help_flag = true)]
    Fuzz {
        /// Passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs bench programs and keeps their numbers with date, machine and commit under benchsuite/runs.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Test(options) => test::run(&options, false),
        Task::Ci(options) => test::run(&options, true),
        Task::Tidy => tidy::run(),
        Task::Kernels => kernels::run(),
        Task::Fuzz { args } => fuzz(&args),
        Task::Bench(options) => bench::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz(args: &[String]) -> Result<(), TaskError> {
    let program = workspace::build(&["--bin", "lately-fuzz"])?.join("lately-fuzz");
    workspace::status(Command::new(program).args(args).current_dir(workspace::root()))
}
