//! `lately experiment`: declare, start, ramp, stop, which a running server follows within seconds; and read, plan, and judge
//! other weights from the log.

mod off_policy;
mod power;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use jiff::Timestamp;
use lately_rank::experiment::{Change, Entry, ExperimentDefinition};

use crate::data_dir::DataDir;
use crate::experiments::Ledger;

/// What can be done with experiments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List them.
    List(Data),
    /// Declare one from a TOML or JSON file, or declare a draft anew.
    Declare(Declare),
    /// Put people in.
    Start(Ramp),
    /// Change the share of its people.
    Ramp(Ramp),
    /// How one stands: people, lifts, and whether to believe them.
    Report(report::Args),
    /// End one for all.
    Stop(Named),
    /// Forget a draft or a stopped one.
    Remove(Named),
    /// Keep a share of the people out of all experiments.
    Holdout(Holdout),
    /// How many people and days it takes to find an effect.
    Power(power::Args),
    /// What other weights of the value model would have earned, from lists whose first places were shuffled.
    OffPolicy(off_policy::Args),
}

#[derive(Debug, Args)]
pub(crate) struct Data {
    /// Data directory.
    #[arg(long)]
    data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Declare {
    /// The definition; `-` reads JSON from standard input.
    file: PathBuf,
    /// Data directory.
    #[arg(long)]
    data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The experiment.
    name: String,
    /// Data directory.
    #[arg(long)]
    data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Ramp {
    /// The experiment.
    name: String,
    /// Share of its people, above 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    ramp: f64,
    /// Data directory.
    #[arg(long)]
    data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Holdout {
    /// Share of the people, 0 to below 1.
    share: f64,
    /// Data directory.
    #[arg(long)]
    data: PathBuf,
}

pub(super) fn run(command: &Command) -> Result<()> {
    match command {
        Command::List(args) => list(&args.data),
        Command::Declare(args) => change(&args.data, &Change::Declare(definition(&args.file)?)),
        Command::Start(Ramp { name, ramp, data }) => {
            change(data, &Change::Start { name: name.clone(), ramp: *ramp })
        }
        Command::Ramp(Ramp { name, ramp, data }) => {
            change(data, &Change::Ramp { name: name.clone(), ramp: *ramp })
        }
        Command::Stop(Named { name, data }) => change(data, &Change::Stop { name: name.clone() }),
        Command::Remove(Named { name, data }) => change(data, &Change::Remove { name: name.clone() }),
        Command::Holdout(Holdout { share, data }) => change(data, &Change::Holdout { share: *share }),
        Command::Report(args) => report::run(args),
        Command::Power(args) => power::run(args),
        Command::OffPolicy(args) => off_policy::run(args),
    }
}

/// Makes a change and shows the book after it.
fn change(data: &Path, change: &Change) -> Result<()> {
    Ledger::open(&DataDir::open(data)?)?.change(change)?;
    list(data)
}

fn definition(file: &Path) -> Result<ExperimentDefinition> {
    if file.as_os_str() == "-" {
        return Ok(serde_json::from_reader(std::io::stdin().lock())?);
    }
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let parsed = match file.extension().is_some_and(|e| e == "json") {
        true => serde_json::from_str(&text).map_err(anyhow::Error::from),
        false => toml::from_str(&text).map_err(anyhow::Error::from),
    };
    parsed.with_context(|| format!("{} is no definition of an experiment", file.display()))
}

fn list(data: &Path) -> Result<()> {
    let book = Ledger::open(&DataDir::open(data)?)?.read()?;
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["experiment", "layer", "places", "state", "ramp", "variants", "since"]);
    table.add_rows(book.experiments.iter().map(row));
    println!("{table}");
    println!("{:.1} % of the people are in no experiment", 100.0 * book.holdout);
    Ok(())
}

fn row(entry: &Entry) -> [String; 7] {
    let definition = &entry.definition;
    let variants: Vec<_> = definition.variants.iter().map(|v| format!("{} {}", v.name, v.share)).collect();
    let when = entry.stopped_ms.or(entry.started_ms).map(Timestamp::from_millisecond);
    [
        definition.name.clone(),
        definition.layer.clone(),
        format!("{:.3}-{:.3}", entry.places.0, entry.places.1),
        entry.state.name().to_owned(),
        format!("{:.0} %", 100.0 * entry.ramp),
        variants.join(", "),
        when.and_then(Result::ok).map_or_else(String::new, |t| format!("{t:.0}")),
    ]
}
