//! What `scripts/gpu_check.sh` runs on a machine with a card: whether the kernels give the scores, losses and gradients of the
//! CPU, and how fast they are. **None of it has been run on a card yet**; on a CPU `--stand-in` proves the checks themselves.
//!
//! `inputs` has the models and batches, `place` puts a model on the card, `agreement` compares, `correctness` and `timings`
//! are the two parts of serving, `export` writes the case that PyTorch scores too, `training` has the same of training,
//! `cases` what all comparisons tell, `results` puts everything into one table.

mod agreement;
mod cases;
mod correctness;
mod export;
mod inputs;
mod place;
mod results;
mod timings;
mod training;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

use place::Place;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
struct Args {
    /// Scores and trains on the CPU in bf16 instead of a card: proves the checks, and says nothing of a card.
    #[arg(long)]
    stand_in: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Compares scores with the CPU's; ends with 1 where one does not agree.
    Correctness {
        /// Folder with reference cases (.safetensors).
        #[arg(long, value_name = "DIR")]
        golden: Option<PathBuf>,
        /// One small case alone, for compute-sanitizer.
        #[arg(long)]
        small: bool,
        /// Results as JSON.
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
    /// Measures.
    Timings {
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Results as JSON.
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
    /// Writes weights, inputs and the CPU's logits in f32 for PyTorch.
    Export {
        /// The file.
        path: PathBuf,
    },
    /// Compares losses and gradients with the CPU's, and whole runs; ends with 1 where one does not agree.
    Training {
        /// One small case alone, for compute-sanitizer.
        #[arg(long)]
        small: bool,
        /// Results as JSON.
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
    /// Measures training steps.
    TrainingTimings {
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Results as JSON.
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
    /// Writes weights, batches and the CPU's first loss in f32 for PyTorch.
    TrainingExport {
        /// The file.
        path: PathBuf,
    },
    /// Prints one table of a folder's results, and writes them to its results.json.
    Table {
        /// The folder.
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gpu_check: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let place = || if args.stand_in { Ok(Place::StandIn) } else { Place::open() };
    match &args.what {
        What::Correctness { golden, small, json } => {
            let report = correctness::run(&place()?, golden.as_deref(), *small)?;
            write(json.as_deref(), &report)?;
            report.verdict()
        }
        What::Timings { seconds, json } => {
            let report = timings::run(&place()?, *seconds)?;
            print!("{report}");
            write(json.as_deref(), &report)
        }
        What::Export { path } => export::write(path),
        What::Training { small, json } => {
            // After every case, so that one that hangs leaves those before it.
            let keep = |report: &_| write(json.as_deref(), report);
            training::correctness::run(&place()?, *small, &keep)?.verdict()
        }
        What::TrainingTimings { seconds, json } => {
            let keep = |report: &_| write(json.as_deref(), report);
            training::timings::run(&place()?, *seconds, &keep)
        }
        What::TrainingExport { path } => training::export::write(&place()?, path),
        What::Table { folder } => results::table(folder),
    }
}

fn write(path: Option<&Path>, value: &impl Serialize) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, serde_json::to_string_pretty(value)? + "\n")
        .map_err(|e| format!("{}: {e}", path.display()).into())
}
