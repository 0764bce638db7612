//! `lately model`: parity with the reference, official weights, and what the registry holds.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use lately_model::{Manifest, Precision, checkpoint, official, parity};
use lately_store::Registry;
use lately_train::publish::publish;

use super::promotion::{self, Challenge, Gc, History, Promote, Rollback};
use crate::data_dir::DataDir;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare outputs and gradients with reference cases (compatibility mode). Exit 0 only if all are within bounds.
    Parity {
        /// Files made by the PyTorch reference, `.safetensors`.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Publish the weights of the official TransAct module as a model of a data directory, in compatibility mode.
    Import(Import),
    /// Write a model in compatibility mode as safetensors with the official names.
    Export {
        /// Version or alias.
        version: String,
        /// Data directory.
        #[arg(long)]
        data: PathBuf,
        /// The file to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// List the models of a data directory, with their aliases.
    List {
        /// Data directory.
        #[arg(long)]
        data: PathBuf,
    },
    /// Point an alias at a version; by default the champion, which running servers then serve.
    Promote(Promote),
    /// Name the version that servers score in the shadow of the champion, or none.
    Challenger(Challenge),
    /// Point an alias back at the version that it named before; once more, and it goes further back.
    Rollback(Rollback),
    /// Print what was published, promoted, rolled back, vetoed and removed, when and why.
    History(History),
    /// Remove old versions that nothing names and no rollback leads to, and what crashes left.
    Gc(Gc),
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The state dict as `.safetensors`.
    file: PathBuf,
    /// Data directory, whose schema has the module's actions in their order, the padding first.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Attention heads (`nhead`), which no tensor tells; default: the file's metadata, then lately.toml.
    #[arg(long)]
    attention_heads: Option<usize>,
    /// First tokens given on (`latest_n_emb`); default: the file's metadata, then lately.toml.
    #[arg(long)]
    first_k: Option<usize>,
    /// Seed of the layers that the file does not hold.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Alias that then names the model; default: none.
    #[arg(long)]
    alias: Option<String>,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Parity { files } => compare(files),
        Command::Import(args) => import(args),
        Command::Export { version, data, out } => export(&DataDir::open(data)?.registry()?, version, out),
        Command::List { data } => list(&DataDir::open(data)?),
        Command::Promote(args) => promotion::promote(args),
        Command::Challenger(args) => promotion::challenge(args),
        Command::Rollback(args) => promotion::rollback(args),
        Command::History(args) => promotion::history(args),
        Command::Gc(args) => promotion::gc(args),
    }
}

fn compare(files: &[PathBuf]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "case",
        "",
        "TransAct output",
        "logits",
        "served logits",
        "gradients",
        "worst gradient",
        "within bounds",
    ]);
    let mut failed = 0;
    for file in files {
        for (name, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
            let report = parity::run(file, precision).with_context(|| format!("{}", file.display()))?;
            let holds = report.holds(precision);
            failed += usize::from(!holds);
            table.add_row([
                file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default(),
                name.to_owned(),
                format!("{:.2e}", report.transact),
                format!("{:.2e}", report.logits),
                format!("{:.2e}", report.served),
                format!("{:.2e}", report.gradients),
                report.worst_gradient.clone(),
                if holds { "yes".to_owned() } else { "NO".to_owned() },
            ]);
        }
    }
    println!("{table}");
    println!("largest relative differences; bounds: outputs 1e-4, gradients 1e-3, in bf16 both 1e-2");
    if failed > 0 {
        bail!("{failed} of {} comparisons are out of bounds", 2 * files.len());
    }
    Ok(())
}

fn import(args: &Import) -> Result<()> {
    let dir = DataDir::open(&args.into)?;
    let path = args.file.display();
    let bytes = fs::read(&args.file).with_context(|| format!("cannot read {path}"))?;
    let given = official::Given { attention_heads: args.attention_heads, first_k: args.first_k };
    let imported = official::import(&bytes, &dir.schema, &dir.config.model, given, args.seed)
        .with_context(|| format!("{path}"))?;
    let manifest = Manifest::new(&imported.model, &dir.schema, args.seed);
    let version = publish(&dir.registry()?, &imported.model, &manifest, args.alias.as_deref())?;
    if !imported.untrained.is_empty() {
        println!("not in the file, at their random start: {}", imported.untrained.join(", "));
    }
    println!("imported {path} as {version}");
    Ok(())
}

fn export(registry: &Registry, name: &str, out: &Path) -> Result<()> {
    let version = match registry.alias(name) {
        Ok(Some(version)) => version,
        _ => name.parse().with_context(|| format!("`{name}` is neither an alias nor a version"))?,
    };
    let (model, _) = checkpoint::from_bytes(&registry.load(&version)?)?;
    fs::write(out, official::export(&model)?).with_context(|| format!("cannot write {}", out.display()))?;
    println!("exported {version} to {}", out.display());
    Ok(())
}

fn list(dir: &DataDir) -> Result<()> {
    let registry = dir.registry()?;
    let (aliases, trail) = (registry.aliases()?, registry.audit()?);
    let vetoed: HashSet<_> = trail.iter().filter_map(|r| r.change.vetoed()).collect();
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["version", "aliases", "encoder", "rows from, to (ms)", "bytes"]);
    for info in registry.versions()? {
        let mut names: Vec<&str> =
            aliases.iter().filter(|(_, v)| **v == info.version).map(|(name, _)| name.as_str()).collect();
        names.extend(vetoed.contains(&info.version).then_some("vetoed"));
        let text = |path: &str| {
            info.manifest.pointer(path).map(|v| v.to_string().replace('"', "")).unwrap_or_default()
        };
        table.add_row([
            info.version.to_string(),
            names.join(", "),
            text("/config/encoder"),
            text("/data_range_ms"),
            info.bytes.to_string(),
        ]);
    }
    println!("{table}");
    Ok(())
}
