//! `lately decay`: what a model loses by standing still, and what retraining gives back.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use lately_model::Encoder;
use lately_train::EvalOptions;
use lately_train::decay::{self, Arm, DecayOptions};

use super::train::{Days, rows, write_json};
use crate::data_dir::DataDir;
use crate::learn::encoder_name;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    days: Days,
    /// Last day of training of the first model; default: the last day of the first window.
    #[arg(long, value_name = "DAY")]
    freeze: Option<String>,
    /// Days that a training from new reads.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=366))]
    window: u32,
    /// Passes over the rows of a training from new; default: lately.toml's.
    #[arg(long)]
    epochs: Option<u32>,
    /// Leave out the comparison without the sequence.
    #[arg(long)]
    sequence_only: bool,
    /// Resamples of users for the intervals.
    #[arg(long, default_value_t = 200)]
    resamples: usize,
    /// Write all numbers as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Write the curves, SVG.
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = DataDir::open(&args.days.data)?;
    let zone = args.days.zone(&dir.config)?;
    let dataset = rows(&dir, args.days.range(&zone)?)?;
    if dataset.requests.is_empty() {
        bail!("no row between the days: {} has rows of other days", args.days.data.display());
    }
    let mut train = dir.config.train.clone();
    train.zone = zone;
    train.epochs = args.epochs.unwrap_or(train.epochs);
    let own = Arm { name: encoder_name(&dir.config.model), model: dir.config.model.clone() };
    let mut none = Arm { name: "none".to_owned(), model: dir.config.model.clone() };
    none.model.encoder = Encoder::None; // which takes the affinities to the latest actions away too
    let with_none = !args.sequence_only && own.model.encoder != Encoder::None;
    let options = DecayOptions {
        arms: [Some(own), with_none.then_some(none)].into_iter().flatten().collect(),
        freeze: args.freeze.clone(),
        window_days: args.window as usize,
        eval: EvalOptions { resamples: args.resamples, threads: train.threads, ..EvalOptions::default() },
        train,
    };
    let report = decay::run(&dataset, &options, &mut |line| eprintln!("{line}"))?;
    println!("{}\n{}\n", decay::days(&report), decay::ages(&report));
    if report.heads.iter().flat_map(|h| &h.days).any(|d| d.cells.iter().any(|c| c.lift_of_first.is_some())) {
        println!("{}\n", decay::gap(&report));
    }
    println!("{}", decay::cost(&report));
    if let Some(path) = &args.json {
        write_json(path, &serde_json::to_value(&report)?)?;
    }
    if let Some(path) = &args.plot {
        std::fs::write(path, decay::curves(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
