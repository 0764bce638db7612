//! `lately train`: the log of a data directory becomes a published model.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use lately_features::Schema;
use lately_model::{Encoder, ModelConfig, checkpoint};
use lately_store::Registry;
use lately_train::publish::CHAMPION;
use lately_train::{Dataset, DateRange, JoinOptions, Slice, TrainConfig, TrainDevice, Zone};

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::device::{TrainingDevice, seat};
use crate::embeddings::Embedding;
use crate::learn::{Plan, Trained, champion, encoder_name, learn_together};
use crate::log_source;

/// Which rows of a data directory.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Days {
    /// Data directory.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// First calendar day, such as 2022-04-25; default: all before `--to`.
    #[arg(long, value_name = "DAY")]
    pub from: Option<String>,
    /// Last calendar day, included; default: all after `--from`.
    #[arg(long, value_name = "DAY")]
    pub to: Option<String>,
    /// Time zone of the days; default: the one in lately.toml.
    #[arg(long, value_name = "ZONE")]
    pub tz: Option<String>,
}

impl Days {
    pub(crate) fn zone(&self, config: &Config) -> Result<Zone> {
        Ok(Zone::named(self.tz.as_deref().unwrap_or(&config.data.time_zone))?)
    }

    pub(crate) fn range(&self, zone: &Zone) -> Result<DateRange> {
        Ok(DateRange::days(self.from.as_deref(), self.to.as_deref(), zone)?)
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    days: Days,
    /// Encoder of the user sequence: none, mean, din, bst or transact; default: the one in lately.toml.
    #[arg(long, value_parser = parse_encoder)]
    encoder: Option<Encoder>,
    /// Go on from the champion, with the rows that came since and a sample of those before ([train.incremental]); it takes
    /// its shape. The window to sample from is that of `--from`.
    #[arg(long, conflicts_with = "encoder")]
    incremental: bool,
    /// Passes over the rows; default: lately.toml's.
    #[arg(long)]
    epochs: Option<u32>,
    /// Seed of weights, order and masks; default: lately.toml's.
    #[arg(long)]
    seed: Option<u64>,
    /// Alias that then names the model; `-` for none. A server that follows it swaps the model in.
    #[arg(long, default_value = CHAMPION)]
    alias: String,
    /// Most memory that training may take, rows included, such as 2GiB; it is refused where it cannot keep to it.
    /// Default: lately.toml's.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// On what it trains: cpu, cuda, or auto (a CUDA device where there is one with kernels for the model, else the CPU);
    /// default: lately.toml's. Several processes, each with a CUDA device, train together where torchrun starts them.
    #[arg(long, value_parser = parse_device)]
    device: Option<TrainDevice>,
    /// Write what was done as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

fn parse_device(text: &str) -> Result<TrainDevice, String> {
    serde_json::from_value(text.into()).map_err(|_| "auto, cuda or cpu".to_owned())
}

fn parse_encoder(text: &str) -> Result<Encoder, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` is no encoder: use {}", Encoder::NAMES))
}

/// Bytes of a size such as 512MiB, 1.5GiB or 1000000.
fn parse_size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit.trim() {
        "" | "B" => 1u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(format!("`{text}` is no size: write it like 2GiB, 512MiB or in bytes")),
    };
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 => Ok((number * unit as f64) as u64),
        _ => Err(format!("`{text}` is no size: write it like 2GiB, 512MiB or in bytes")),
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = DataDir::open(&args.days.data)?;
    let zone = args.days.zone(&dir.config)?;
    let mut model = dir.config.model.clone();
    let mut train = dir.config.train.clone();
    model.encoder = args.encoder.unwrap_or(model.encoder);
    if args.incremental {
        train = train.incremental();
    }
    train.epochs = args.epochs.unwrap_or(train.epochs);
    train.seed = args.seed.unwrap_or(train.seed);
    train.memory_bytes = args.memory.unwrap_or(train.memory_bytes);
    train.device = args.device.unwrap_or(train.device);
    // Before the join: what cannot be had must not cost it.
    let device = TrainingDevice::at(train.device, seat()?)?;
    let range = args.days.range(&zone)?;
    let dataset =
        if device.members() > 1 { rows_of_member(&dir, range, &device)? } else { rows(&dir, range)? };
    train.zone = zone;
    let alias = Some(args.alias.as_str()).filter(|alias| *alias != "-");
    let trained = match args.incremental {
        true => go_on(&dir, &dataset, train, device, alias)?,
        false => train_and_publish(&dir, &dataset.all(), model, train, device, alias)?,
    };
    // Of several processes one has the model, and tells.
    let Some((version, trained)) = trained else { return Ok(()) };
    if let Some(path) = &args.json {
        let json = serde_json::json!({
            "version": version,
            "join": dataset.stats,
            "train": trained.report,
            "manifest": trained.manifest,
        });
        write_json(path, &json)?;
    }
    Ok(())
}

/// Trains from the champion's weights on what came since it was trained, and publishes the result.
fn go_on(
    dir: &DataDir,
    dataset: &Dataset,
    train: TrainConfig,
    device: TrainingDevice,
    alias: Option<&str>,
) -> Result<Option<(String, Trained)>> {
    let registry = dir.registry()?;
    let version =
        champion(&registry)?.context("there is no champion to go on from: train without --incremental")?;
    let (start, manifest) = checkpoint::from_bytes(&registry.load(&version)?)?;
    manifest.check_schema(&dir.schema)?;
    manifest.check_embeddings(&dataset.embedding_version)?;
    let (_, seen_ms) = manifest.data_range_ms.context("the champion does not say what it was trained on")?;
    let slice = dataset.all().since(seen_ms, train.incremental.replay, train.seed);
    if slice.iter().all(|r| r.time_ms <= seen_ms) {
        bail!("no row has come since the champion was trained: there is nothing to learn");
    }
    let state = dir.path.join("training").join("incremental.state");
    let model = manifest.config.clone();
    let (start, parent) = (Some(&start), Some(version));
    let plan = Plan { model, train, device, start, parent, state: Some(&state) };
    finish(&registry, &plan, &slice, alias)
}

/// Joins the directory's log into the rows of a range of time.
pub(crate) fn rows(dir: &DataDir, range: DateRange) -> Result<Dataset> {
    joined(dir, range, true, log_source::dataset)
}

/// The same in one of several processes that train together: the first tells what it found.
fn rows_of_member(dir: &DataDir, range: DateRange, device: &TrainingDevice) -> Result<Dataset> {
    joined(dir, range, device.leads(), log_source::dataset_in_turn)
}

fn joined(
    dir: &DataDir,
    range: DateRange,
    tell: bool,
    join: fn(&DataDir, JoinOptions) -> Result<Dataset>,
) -> Result<Dataset> {
    let start = Instant::now();
    let embedding = dir.active_embedding()?;
    let vectors = embedding.as_ref().map(|e| e.vectors.clone());
    let dataset = join(dir, JoinOptions { range, vectors, ..JoinOptions::default() })?;
    if !tell {
        return Ok(dataset);
    }
    describe(&dataset, &dir.schema, start);
    if let Some(embedding) = embedding {
        describe_vectors(&dataset, &embedding);
    }
    Ok(dataset)
}

/// Says which vectors the rows have, and warns of rows whose own outcomes those were learned from.
fn describe_vectors(dataset: &Dataset, embedding: &Embedding) {
    let manifest = &embedding.manifest;
    println!(
        "  item vectors {:.12} by {}, of {} items",
        dataset.embedding_version, manifest.method, manifest.items
    );
    let last = manifest.data_range_ms.map_or(i64::MIN, |(_, last)| last);
    let seen = dataset.requests.iter().filter(|r| r.time_ms <= last).count();
    if seen > 0 {
        eprintln!(
            "warning: the item vectors were learned from what followed {seen} of {} requests: training trusts them too \
             much; learn them with `lately embed items --before` the first day of training",
            dataset.requests.len()
        );
    }
}

fn describe(dataset: &Dataset, schema: &Schema, start: Instant) {
    let stats = &dataset.stats;
    let positives: Vec<String> = schema
        .heads
        .iter()
        .zip(&stats.positives)
        .map(|(head, n)| format!("{} {:.2} %", head.name, 100.0 * *n as f64 / stats.rows.max(1) as f64))
        .collect();
    println!(
        "joined {} log records into {} rows of {} requests, {:.1} tokens a request ({}) in {:.1} s",
        stats.events,
        stats.rows,
        stats.requests,
        stats.tokens as f64 / stats.requests.max(1) as f64,
        positives.join(", "),
        start.elapsed().as_secs_f64(),
    );
    let lost = stats.late_actions + stats.unjoined_actions;
    if lost > 0 || stats.degraded > 0 {
        println!(
            "  left out: {} actions outside of their window, {} without an impression, {} degraded impressions",
            stats.late_actions, stats.unjoined_actions, stats.degraded,
        );
    }
}

/// Trains on the rows, resuming a killed run of the same rows and settings, and publishes the model. `None`: by another process
/// of those that train together.
pub(crate) fn train_and_publish(
    dir: &DataDir,
    slice: &Slice<'_>,
    model: ModelConfig,
    train: TrainConfig,
    device: TrainingDevice,
    alias: Option<&str>,
) -> Result<Option<(String, Trained)>> {
    let registry = dir.registry()?;
    let state = dir.path.join("training").join(format!("{}.state", encoder_name(&model)));
    let parent = champion(&registry)?;
    let plan = Plan { model, train, device, start: None, parent, state: Some(&state) };
    finish(&registry, &plan, slice, alias)
}

fn finish(
    registry: &Registry,
    plan: &Plan<'_>,
    slice: &Slice<'_>,
    alias: Option<&str>,
) -> Result<Option<(String, Trained)>> {
    let (leads, members) = (plan.device.leads(), plan.device.members());
    let mut began = |device: &str| match members {
        1 => println!("training on {device}"),
        _ if leads => println!("training on {device}, the first of {members} processes"),
        _ => {}
    };
    let Some(trained) = learn_together(slice, plan, leads, &mut began)? else { return Ok(None) };
    let version = trained.publish(registry, alias)?.to_string();
    let report = &trained.report;
    println!(
        "trained {} on {} requests: {} steps, {} rows in {:.1} s ({:.0} rows/s){}",
        encoder_name(&plan.model),
        report.requests,
        report.steps,
        report.rows,
        report.seconds,
        report.rows as f64 * (report.steps - report.resumed_at) as f64
            / report.steps.max(1) as f64
            / report.seconds,
        if report.resumed_at > 0 {
            format!(", resumed at step {}", report.resumed_at)
        } else {
            String::new()
        },
    );
    println!("published {version}{}", alias.map(|a| format!(" as {a}")).unwrap_or_default());
    Ok(Some((version, trained)))
}

pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(value)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_are_read_in_binary_units() {
        assert_eq!(
            ["2GiB", "1.5 MiB", "700", "64KiB"].map(parse_size),
            [2 << 30, 3 << 19, 700, 64 << 10].map(Ok)
        );
        for bad in ["", "2GB", "GiB", "-1GiB", "0", "1.2.3MiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
