//! `lately doctor`: how a data directory is, what is wrong, and what to do about it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;

use super::train::write_json;
use crate::doctor::{Status, examine};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Data directory; a server may have it open.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Hours of the log, before its newest record, that are looked at; default: lately.toml's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=720))]
    hours: Option<u32>,
    /// Newest rankings of those hours to make again from the log.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Write all numbers as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let page = examine(&args.data, args.hours, args.requests);
    println!("{page}");
    if let Some(path) = &args.json {
        write_json(path, &serde_json::to_value(&page)?)?;
    }
    match page.count(Status::Fail) {
        0 => Ok(()),
        1 => bail!("one check failed"),
        n => bail!("{n} checks failed"),
    }
}
