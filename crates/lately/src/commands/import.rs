//! `lately import`: logged data of others into a data directory.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use lately_features::Event;
use lately_store::Store;
use lately_train::embed::{EmbedOptions, ppmi_svd};

use crate::data_dir::DataDir;
use crate::demo::demo_toml;
use crate::import::{BoxError, DEFAULT_MAX_BAD, Embed, ImportError, ImportReport, Sink, VECTOR_DIM};
use crate::import::{generic, kuairand, polis};
use crate::wire_up::now_ms;
use crate::world::{World, WorldConfig};

#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// Data directory to import into; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Bad rows that are tolerated; each is counted and shown with its line. One more, and nothing is imported.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_BAD)]
    max_bad: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// KuaiRand's official CSV files, gzip or plain.
    Kuairand {
        /// Directory with the files.
        source: PathBuf,
        #[command(flatten)]
        target: Target,
    },
    /// Exports of Polis conversations: votes.csv and comments.csv, gzip or plain.
    Polis {
        /// Directory with the files.
        source: PathBuf,
        /// Share of a conversation's votes from which its statements' vectors are learned.
        #[arg(long, default_value_t = 0.2)]
        embed_share: f64,
        #[command(flatten)]
        target: Target,
    },
    /// The synthetic world's own past, to try things on without anybody's data.
    World {
        /// Days of it; they end today.
        #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u32).range(1..=366))]
        days: u32,
        /// How fast fashions and tastes move on; 0: not at all.
        #[arg(long, default_value_t = 1.0)]
        drift: f64,
        /// People.
        #[arg(long, default_value_t = 1_000)]
        users: usize,
        /// Everything follows from it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Data directory to write to; made if it does not exist.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Any CSV, JSONL or Parquet files, through a mapping; see docs/import.md.
    Table {
        /// The mapping, a TOML file.
        mapping: PathBuf,
        /// A lately.toml with the schema, copied into the data directory.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        target: Target,
    },
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Kuairand { source, target } => {
            let read =
                kuairand::read(source, kuairand::Options { max_bad: target.max_bad, ..Default::default() })?;
            let toml = format!("{}\n[schema]\n{}", KUAIRAND, kuairand::SCHEMA);
            write(target, &toml, |sink| read.emit(&embed(), sink))
        }
        Command::Polis { source, embed_share, target } => {
            if !(0.0..=1.0).contains(embed_share) {
                bail!("--embed-share is {embed_share}: it must be from 0 to 1");
            }
            let options = polis::Options { max_bad: target.max_bad, embed_share: *embed_share };
            let read = polis::read(source, options)?;
            let toml = format!("{}\n[schema]\n{}", POLIS, read.schema_toml());
            write(target, &toml, |sink| read.emit(&embed(), sink))
        }
        Command::World { days, drift, users, seed, into } => {
            if !(0.0..=10.0).contains(drift) {
                bail!("--drift is {drift}: it must be from 0 to 10");
            }
            world(
                WorldConfig { users: *users, seed: *seed, drift: *drift, ..WorldConfig::default() },
                *days,
                into,
            )
        }
        Command::Table { mapping, config, target } => {
            let toml = std::fs::read_to_string(config)
                .with_context(|| format!("cannot read {}", config.display()))?;
            let schema = crate::config::Config::parse(&toml, config)?.schema;
            let read = generic::read(mapping, &schema, target.max_bad)?;
            write(target, &toml, |sink| read.emit(sink))
        }
    }
}

/// Writes days of a world that end at the last midnight.
fn world(config: WorldConfig, days: u32, into: &Path) -> Result<()> {
    const DAY_MS: i64 = 86_400_000;
    let dir = DataDir::create(into, &demo_toml())?;
    let store = dir.store()?;
    if store.next_offset() > 0 {
        bail!("{} holds {} records already: choose an empty directory", into.display(), store.next_offset());
    }
    let end = now_ms().div_euclid(DAY_MS) * DAY_MS;
    let start = end - i64::from(days) * DAY_MS;
    let world = World::new(config)?;
    for events in [world.items(start), world.users(start), world.bootstrap(days, end)?] {
        store.append(events).context("writing the world's past")?;
    }
    println!("{} log records of {days} days in {}", store.next_offset(), into.display());
    Ok(())
}

/// Head of the `lately.toml` that an import of KuaiRand writes.
const KUAIRAND: &str = include_str!("kuairand.toml");
/// Head of the `lately.toml` that an import of Polis writes.
const POLIS: &str = include_str!("polis.toml");

/// Item vectors from the order of each user's history.
fn embed() -> Box<Embed<'static>> {
    Box::new(|sequences, items| {
        ppmi_svd(sequences, items, &EmbedOptions { dim: VECTOR_DIM, ..EmbedOptions::default() })
    })
}

fn write(
    target: &Target,
    toml: &str,
    emit: impl FnOnce(&mut Sink<'_>) -> Result<ImportReport, ImportError>,
) -> Result<()> {
    let start = Instant::now();
    let dir = DataDir::create(&target.into, toml)?;
    let store = dir.store()?;
    if store.next_offset() > 0 {
        bail!(
            "{} holds {} records already: import into an empty directory",
            target.into.display(),
            store.next_offset()
        );
    }
    let report = append_all(&store, emit)?;
    println!("{report}");
    let seconds = start.elapsed().as_secs_f64();
    println!("{} log records in {} ({seconds:.1} s)", store.next_offset(), target.into.display());
    Ok(())
}

/// Appends what an importer emits.
pub(crate) fn append_all(
    store: &Store,
    emit: impl FnOnce(&mut Sink<'_>) -> Result<ImportReport, ImportError>,
) -> Result<ImportReport> {
    // The sink's own error type is erased by the importer; keep the first one to show it whole.
    let failed = RefCell::new(None);
    let mut sink = |events: Vec<Event>| -> Result<(), BoxError> {
        store.append(events).map(drop).map_err(|error| {
            let text = error.to_string();
            *failed.borrow_mut() = Some(error);
            text.into()
        })
    };
    let report = emit(&mut sink);
    match failed.into_inner() {
        Some(error) => Err(error).context("the import stopped; delete the directory and repeat it"),
        None => Ok(report?),
    }
}
