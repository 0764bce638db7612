//! `lately eval`: how good a model is on a range of days, and against what.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use lately_model::{Encoder, Manifest, Model, checkpoint};
use lately_store::Registry;
use lately_train::chunks::Chunks;
use lately_train::predict::by_model;
use lately_train::publish::CHAMPION;
use lately_train::scores::{Scores, by_popularity};
use lately_train::{DateRange, EvalOptions, JoinOptions, Slice, evaluate, plot, table};

use super::train::{Days, train_and_publish, write_json};
use crate::data_dir::DataDir;
use crate::device::TrainingDevice;
use crate::learn::encoder_name;
use crate::log_source;

/// Rows of a chunk below which HIT@3 says nothing.
pub(super) const CHUNK_ROWS: usize = 4;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    days: Days,
    /// Model: an alias, or a version as `lately model list` shows it.
    #[arg(long, default_value = CHAMPION)]
    model: String,
    /// Compare with it, paired: `none` or `mean` (the same model with that encoder, trained on the same days; made
    /// now where the registry has none), `popularity`, an alias or a version. May be repeated.
    #[arg(long, value_name = "WHAT")]
    against: Vec<String>,
    /// Resamples of users for the intervals.
    #[arg(long, default_value_t = 200)]
    resamples: usize,
    /// Write all numbers as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Write a plot of AUC by history length, SVG.
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = DataDir::open(&args.days.data)?;
    let registry = dir.registry()?;
    let (model, manifest) = load(&dir, &registry, &args.model)?;
    let zone = args.days.zone(&dir.config)?;
    let tested = args.days.range(&zone)?;
    let trained = manifest
        .data_range_ms
        .map_or(DateRange::ALL, |(first, last)| DateRange { start_ms: first, end_ms: last + 1 });
    // One join serves both ranges: rows of the past for popularity and for a baseline that must be trained.
    let range = DateRange {
        start_ms: tested.start_ms.min(trained.start_ms),
        end_ms: tested.end_ms.max(trained.end_ms),
    };
    let vectors = dir.embedding(&manifest.embedding_version)?.map(|e| e.vectors);
    let dataset = log_source::dataset(&dir, JoinOptions { range, vectors, ..JoinOptions::default() })?;
    let (slice, past) = (dataset.slice(tested), dataset.slice(trained));
    if slice.rows() == 0 {
        bail!("no row between the days: {} has rows of other days", args.days.data.display());
    }
    if trained.end_ms > tested.start_ms {
        eprintln!("warning: the model was trained on rows of these days: the result flatters it");
    }
    let chunks = Chunks::of(&slice, &zone, CHUNK_ROWS);
    let threads = dir.config.train.threads;
    let name = format!("{} {}", encoder_name(model.config()), args.model);
    let mut scorers = vec![by_model(&name, &slice, &chunks, &model, threads)?];
    for what in &args.against {
        scorers.push(other(&dir, &registry, &manifest, what, (&slice, &past), &chunks)?);
    }
    let options = EvalOptions { resamples: args.resamples, threads, ..EvalOptions::default() };
    let report = evaluate(&slice, &chunks, &scorers, &options)?;
    println!("{}", table::table(&report));
    if let Some(path) = &args.json {
        let json = serde_json::json!({ "model": manifest, "report": report });
        write_json(path, &json)?;
    }
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::auc_by_history(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Scores of what is compared with.
fn other(
    dir: &DataDir,
    registry: &Registry,
    champion: &Manifest,
    what: &str,
    (slice, past): (&Slice<'_>, &Slice<'_>),
    chunks: &Chunks,
) -> Result<Scores> {
    let threads = dir.config.train.threads;
    let encoder = match what {
        "popularity" => return Ok(by_popularity(past, slice)),
        "none" => Encoder::None,
        "mean" => Encoder::Mean,
        version => {
            let (model, manifest) = load(dir, registry, version)?;
            manifest.check_embeddings(&champion.embedding_version)?;
            return Ok(by_model(version, slice, chunks, &model, threads)?);
        }
    };
    let mut wanted = champion.config.clone();
    wanted.encoder = encoder;
    let same = |m: &Manifest| {
        m.config == wanted
            && m.schema_hash == champion.schema_hash
            && m.schema == champion.schema
            && m.embedding_version == champion.embedding_version
            && m.data_range_ms == champion.data_range_ms
            && m.seed == champion.seed
    };
    for info in registry.versions()? {
        let Ok(manifest) = serde_json::from_value::<Manifest>(info.manifest) else { continue };
        if same(&manifest) {
            let (model, _) = checkpoint::from_bytes(&registry.load(&info.version)?)?;
            return Ok(by_model(what, slice, chunks, &model, threads)?);
        }
    }
    println!("the registry has no model without what is compared: training one on the same days");
    let mut train = dir.config.train.clone();
    train.seed = champion.seed;
    let device = TrainingDevice::open(train.device)?;
    let trained = train_and_publish(dir, past, wanted, train, device, None)?;
    let (_, trained) = trained.context("another process has the model")?;
    Ok(by_model(what, slice, chunks, &trained.model, threads)?)
}

fn load(dir: &DataDir, registry: &Registry, name: &str) -> Result<(Model, Manifest)> {
    let version = match registry.alias(name) {
        Ok(Some(version)) => version,
        _ => name.parse().with_context(|| {
            format!("`{name}` is neither an alias nor a version in {}: train first", dir.path.display())
        })?,
    };
    let (model, manifest) = checkpoint::from_bytes(&registry.load(&version)?)?;
    manifest.check_schema(&dir.schema)?;
    Ok((model, manifest))
}
