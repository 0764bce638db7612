//! The part of `lately model` that says which model serves: promote, challenge, roll back, look back, clean up.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use indicatif::HumanBytes;
use jiff::Timestamp;
use lately_store::registry::{AuditRecord, Change, Garbage, Removed};
use lately_store::{Registry, RegistryError, Version};
use lately_train::publish::{CHALLENGER, CHAMPION};

use crate::data_dir::DataDir;

/// Fewest digits that may stand for a version.
const SHORT: usize = 8;

#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// Version, as `list` shows it, or its first 8 or more digits, or an alias.
    version: String,
    /// Data directory.
    #[arg(long)]
    data: PathBuf,
    /// The alias.
    #[arg(long, default_value = CHAMPION)]
    alias: String,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also a version that was vetoed, or that was trained with another schema (which no server of this directory serves).
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Challenge {
    /// Version, its first 8 or more digits, or an alias.
    #[arg(required_unless_present = "none", conflicts_with = "none")]
    version: Option<String>,
    /// No challenger any more: running servers drop theirs.
    #[arg(long)]
    none: bool,
    /// Data directory.
    #[arg(long)]
    data: PathBuf,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also a version that was vetoed, or that was trained with another schema.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// Data directory.
    #[arg(long)]
    data: PathBuf,
    /// The alias.
    #[arg(long, default_value = CHAMPION)]
    alias: String,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also veto the version that is rolled back: nothing but `promote --force` brings it back.
    #[arg(long)]
    veto: bool,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Data directory.
    #[arg(long)]
    data: PathBuf,
    /// Print it as a JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Data directory.
    #[arg(long)]
    data: PathBuf,
    /// Newest versions that are kept; default: `[registry] keep`.
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Only print what would be removed.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn promote(args: &Promote) -> Result<()> {
    let dir = DataDir::open(&args.data)?;
    point(&dir, &args.alias, &args.version, args.reason.as_deref(), args.force)
}

pub(super) fn challenge(args: &Challenge) -> Result<()> {
    let dir = DataDir::open(&args.data)?;
    match &args.version {
        Some(version) => point(&dir, CHALLENGER, version, args.reason.as_deref(), args.force),
        None => {
            dir.registry()?.because(&by_hand(args.reason.as_deref())).remove_alias(CHALLENGER)?;
            println!("there is no {CHALLENGER}");
            Ok(())
        }
    }
}

fn point(dir: &DataDir, alias: &str, name: &str, reason: Option<&str>, force: bool) -> Result<()> {
    let registry = dir.registry()?.because(&by_hand(reason));
    let version = find(&registry, name)?;
    if force {
        registry.set_alias(alias, &version)?;
    } else {
        fits(dir, &registry, &version)?;
        registry.promote(alias, &version)?;
    }
    println!("{alias} is {version}");
    Ok(())
}

/// Refuses a version that no server of the directory would serve.
fn fits(dir: &DataDir, registry: &Registry, version: &Version) -> Result<()> {
    let info = registry.info(version)?.ok_or_else(|| RegistryError::Unknown(version.clone()))?;
    let hash = info.manifest.get("schema_hash").and_then(|hash| hash.as_str()).unwrap_or("none");
    ensure!(
        hash == dir.schema.hash(),
        "{version} was trained with the schema {hash}, {} has {}: train one with this schema, or add --force",
        dir.path.join("lately.toml").display(),
        dir.schema.hash()
    );
    Ok(())
}

/// The version that an alias, a version or its first digits name.
fn find(registry: &Registry, name: &str) -> Result<Version> {
    if let Ok(version) = name.parse() {
        return Ok(version);
    }
    if let Ok(Some(version)) = registry.alias(name) {
        return Ok(version);
    }
    let versions = registry.versions()?.into_iter().map(|info| info.version);
    let found: Vec<Version> =
        versions.filter(|v| name.len() >= SHORT && v.as_str().starts_with(name)).collect();
    match found.as_slice() {
        [version] => Ok(version.clone()),
        [] => bail!("`{name}` is no alias, and no version that is listed: see `lately model list`"),
        several => bail!("{} versions begin with `{name}`: write more of it", several.len()),
    }
}

pub(super) fn rollback(args: &Rollback) -> Result<()> {
    let reason = by_hand(args.reason.as_deref());
    let registry = DataDir::open(&args.data)?.registry()?.because(&reason);
    let (from, to) = registry.rollback(&args.alias)?;
    if args.veto {
        registry.veto(&from, &reason)?;
    }
    println!("{0} was {from}\n{0} is {to}", args.alias);
    Ok(())
}

fn by_hand(reason: Option<&str>) -> String {
    reason.map_or_else(|| "by hand".to_owned(), |reason| format!("by hand: {reason}"))
}

pub(super) fn history(args: &History) -> Result<()> {
    let trail = DataDir::open(&args.data)?.registry()?.audit()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&trail)?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["time (UTC)", "change", "version", "before", "reason"]);
    for record in &trail {
        table.add_row(row(record)?);
    }
    println!("{table}");
    Ok(())
}

fn row(record: &AuditRecord) -> Result<[String; 5]> {
    let time = Timestamp::from_millisecond(record.time_ms).context("a time of the audit trail")?;
    let short = |version: &Version| format!("{version:.12}");
    let (change, version, before) = match &record.change {
        Change::Publish { version } => ("published".to_owned(), short(version), String::new()),
        Change::Alias { alias, from, to } => {
            (alias.clone(), short(to), from.as_ref().map(short).unwrap_or_default())
        }
        Change::Rollback { alias, from, to } => (format!("{alias}, rolled back"), short(to), short(from)),
        Change::Unalias { alias, from } => (format!("no {alias}"), String::new(), short(from)),
        Change::Veto { version } => ("vetoed".to_owned(), short(version), String::new()),
        Change::Remove { version } => ("removed".to_owned(), short(version), String::new()),
    };
    let time = time.strftime("%Y-%m-%d %H:%M:%S").to_string();
    Ok([time, change, version, before, record.reason.clone().unwrap_or_default()])
}

pub(super) fn gc(args: &Gc) -> Result<()> {
    let dir = DataDir::open(&args.data)?;
    let keep = args.keep.unwrap_or(dir.config.registry.keep);
    let registry = dir.registry()?.because("lately model gc, by hand");
    let garbage = Garbage { keep, dry_run: args.dry_run, ..Garbage::default() };
    let Removed { versions, leftovers, bytes } = registry.gc(&garbage)?;
    let did = if args.dry_run { "would remove" } else { "removed" };
    versions.iter().for_each(|version| println!("{did} {version}"));
    leftovers.iter().for_each(|version| println!("{did} what a crash left of {version}"));
    let (count, left) = (versions.len(), leftovers.len());
    println!("{did} {count} versions and parts of {left} more, {}", HumanBytes(bytes));
    Ok(())
}
