//! `lately experiment report`.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use lately_experiment::Readout;

use crate::data_dir::DataDir;
use crate::experiments::{Ledger, design, effects};
use crate::log_source::Log;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The experiment.
    name: String,
    /// Data directory; a server may have it open.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print all numbers as JSON in the place of the table.
    #[arg(long)]
    json: bool,
    /// Write the lifts of primary metrics and guardrails over the days as a picture, SVG.
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let dir = DataDir::open(&args.data)?;
    let book = Ledger::open(&dir)?.read()?;
    let design = design(book.get(&args.name)?, &dir.schema, &dir.config.experiments.readout)?;
    let mut readout = Readout::new(design)?;
    let log = Log::open(&dir)?;
    log.each(&mut |_, event| {
        readout.observe(&event);
        Ok(())
    })?;
    let report = readout.report();
    if let Some(path) = &args.plot {
        fs::write(path, effects(&report)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => report.to_string(),
    };
    // A reader who has seen enough, as `head` does, is no reason to panic.
    std::io::stdout().write_all(text.as_bytes()).context("cannot write the report")
}
