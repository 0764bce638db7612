//! `lately embed`: item vectors, learned or given, and which of them training uses.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use lately_store::Version;
use lately_train::embed::{EmbedOptions, EmbeddingManifest, Histories, Method, learn};
use lately_train::{DateRange, Zone};

use super::train::write_json;
use crate::data_dir::DataDir;
use crate::embeddings::ACTIVE;
use crate::import::{DEFAULT_MAX_BAD, vectors};
use crate::log_source;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Learn the vectors of all items from what people did, and let training use them.
    Items(ItemsArgs),
    /// Take vectors that were made elsewhere, and let training use them: Parquet or JSON lines (columns of ids and
    /// of lists of numbers), npy with --ids, or safetensors.
    Import(ImportArgs),
    /// List the tables of vectors of a data directory.
    List {
        /// Data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Let training use a table; `-`: what items were sent with.
    Use {
        /// Version, as `list` shows it, or its beginning.
        version: String,
        /// Data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ItemsArgs {
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// How: ppmi, item2vec or residual.
    #[arg(long, default_value = "ppmi", value_parser = parse_method)]
    method: Method,
    /// Learn only from what happened before this calendar day, such as 2022-04-25: the first that a model is to be
    /// trained on. Default: from all.
    #[arg(long, alias = "to", value_name = "DAY")]
    before: Option<String>,
    /// Time zone of the day; default: the one in lately.toml.
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// Length of a vector, at most that of the schema's item embedding, which is the default; the rest is zeros.
    #[arg(long)]
    dim: Option<usize>,
    /// Seed of the start.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// An item with fewer occurrences is cold.
    #[arg(long, default_value_t = EmbedOptions::default().min_count)]
    min_count: u32,
    /// Keep the table without letting training use it.
    #[arg(long)]
    keep: bool,
    /// Write what was done as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The file.
    file: PathBuf,
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Text file with one id a line, in the order of the rows: for npy, and for safetensors without ids.
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Column or tensor of the ids.
    #[arg(long, value_name = "NAME", default_value = "id")]
    id: String,
    /// Column or tensor of the vectors.
    #[arg(long, value_name = "NAME", default_value = "vector")]
    vector: String,
    /// Bad rows that are tolerated; each is counted and shown with its line. One more, and nothing is kept.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_BAD)]
    max_bad: u64,
    /// Keep the table without letting training use it.
    #[arg(long)]
    keep: bool,
}

fn parse_method(text: &str) -> Result<Method, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` is no method: use ppmi, item2vec or residual"))
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Items(args) => items(args),
        Command::Import(args) => import(args),
        Command::List { data } => list(&DataDir::open(data)?),
        Command::Use { version, data } => choose(&DataDir::open(data)?, version),
    }
}

fn items(args: &ItemsArgs) -> Result<()> {
    let start = Instant::now();
    let dir = DataDir::open(&args.data)?;
    let zone = Zone::named(args.tz.as_deref().unwrap_or(&dir.config.data.time_zone))?;
    let range = match &args.before {
        Some(day) => {
            DateRange { end_ms: DateRange::days(Some(day), None, &zone)?.start_ms, ..DateRange::ALL }
        }
        None => DateRange::ALL,
    };
    let mut histories = Histories::new(&dir.schema, range, Histories::LIMIT);
    log_source::each(&dir, &mut |offset, event| Ok(histories.push(offset, &event)?))?;
    let (people, meetings) = histories.counts();
    let dim = args.dim.unwrap_or_else(|| dir.schema.item_embedding_dim());
    let (seed, min_count) = (args.seed, args.min_count);
    let options = EmbedOptions { dim, seed, min_count, ..EmbedOptions::default() };
    let table = learn(&mut histories, &dir.schema, args.method, &options)?;
    let method = serde_json::to_value(args.method)?;
    let method = method.as_str().unwrap_or_default();
    let settings = serde_json::to_value(&options)?;
    let manifest = EmbeddingManifest::new(&table, &dir.schema, method, settings, histories.range_ms());
    let version = dir.publish_embedding(&table, &manifest, !args.keep)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "learned {} vectors of {dim} numbers by {method} from {meetings} meetings of {people} people in {seconds:.1} s",
        table.items.len()
    );
    println!("kept {version}{}", if args.keep { "" } else { ": training uses it" });
    if let Some(path) = &args.json {
        let report = serde_json::json!({
            "version": version, "people": people, "meetings": meetings, "seconds": seconds, "manifest": manifest,
        });
        write_json(path, &report)?;
    }
    Ok(())
}

fn import(args: &ImportArgs) -> Result<()> {
    let dir = DataDir::open(&args.data)?;
    let (ids, id, vector) = (args.ids.clone(), args.id.clone(), args.vector.clone());
    let options = vectors::Options { ids, id, vector, max_bad: args.max_bad };
    let (table, report) = vectors::read(&args.file, &dir.schema, &options)?;
    println!("{} of {} rows taken, {} bad", report.items, report.rows, report.bad_count);
    if report.bad_count > 0 {
        println!("{}", report.bad_lines());
    }
    if table.items.is_empty() {
        bail!("{} holds no vector", args.file.display());
    }
    // Only the name: a path says where somebody's files are.
    let file = args.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let manifest =
        EmbeddingManifest::new(&table, &dir.schema, "import", serde_json::json!({ "file": file }), None);
    let version = dir.publish_embedding(&table, &manifest, !args.keep)?;
    println!("kept {version}{}", if args.keep { "" } else { ": training uses it" });
    Ok(())
}

fn list(dir: &DataDir) -> Result<()> {
    let registry = dir.embeddings()?;
    let active = registry.alias(ACTIVE)?;
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["version", "used", "method", "items", "cold items", "learned from, to (ms)"]);
    for info in registry.versions()? {
        let manifest: EmbeddingManifest = serde_json::from_value(info.manifest)?;
        let range = manifest.data_range_ms.map(|(first, last)| format!("{first}, {last}"));
        table.add_row([
            info.version.to_string(),
            if active.as_ref() == Some(&info.version) { ACTIVE.to_owned() } else { String::new() },
            manifest.method,
            manifest.items.to_string(),
            if manifest.cold { "from features" } else { "zeros" }.to_owned(),
            range.unwrap_or_default(),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn choose(dir: &DataDir, name: &str) -> Result<()> {
    let registry = dir.embeddings()?;
    if name == "-" {
        registry.remove_alias(ACTIVE)?;
        println!("training uses what items were sent with");
        return Ok(());
    }
    let versions = registry.versions()?.into_iter().map(|info| info.version);
    let found: Vec<Version> = versions.filter(|v| v.as_str().starts_with(name)).collect();
    let [version] = found.as_slice() else {
        bail!("{} versions begin with `{name}`: see `lately embed list`", found.len());
    };
    // One that does not fit the schema must not stop the next training.
    dir.embedding(version.as_str()).context("the table cannot be used")?;
    registry.set_alias(ACTIVE, version)?;
    println!("training uses {version}");
    Ok(())
}
