//! `lately retrain`: turns of learning in a process of their own, beside a server or without one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args as ClapArgs;

use super::demo::parse_time;
use super::train::write_json;
use crate::data_dir::DataDir;
use crate::interrupt::Interrupt;
use crate::retrain::{Kind, Learner};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Data directory; a server may have it open, whose own retraining must then be off: one process advances a lake.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Take turns at this interval, such as 60s or 6h, until Ctrl-C. Default: one turn.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    every: Option<Duration>,
    /// Train from new on the window, whatever [retrain] says.
    #[arg(long, conflicts_with = "incremental")]
    full: bool,
    /// Go on from the champion, whatever [retrain] says.
    #[arg(long)]
    incremental: bool,
    /// Write the last turn as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = DataDir::open(&args.data)?;
    let interrupt = Interrupt::install()?;
    let kind = match (args.full, args.incremental) {
        (true, _) => Some(Kind::Full),
        (_, true) => Some(Kind::Incremental),
        _ => None,
    };
    let mut learner = Learner::beside(&dir)?;
    loop {
        let begun = Instant::now();
        let turn = learner.turn(kind)?;
        println!("{turn}");
        if let Some(path) = &args.json {
            write_json(path, &serde_json::to_value(&turn)?)?;
        }
        let Some(every) = args.every else { return Ok(()) };
        if interrupt.wait(Some(every.saturating_sub(begun.elapsed()))) {
            return Ok(());
        }
    }
}
