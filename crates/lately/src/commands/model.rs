//! `lately model`: parity with the reference, and what the registry holds.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use lately_model::{Precision, parity};

use crate::data_dir::DataDir;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare outputs and gradients with reference cases (compatibility mode). Exit 0 only if all are within bounds.
    Parity {
        /// Files made by the PyTorch reference, `.safetensors`.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// List the models of a data directory, with their aliases.
    List {
        /// Data directory.
        #[arg(long)]
        data: PathBuf,
    },
    /// Point an alias at a version: promotion, or a rollback.
    Promote {
        /// Version, as `list` shows it.
        version: String,
        /// Data directory.
        #[arg(long)]
        data: PathBuf,
        /// The alias.
        #[arg(long, default_value = "champion")]
        alias: String,
    },
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Parity { files } => compare(files),
        Command::List { data } => list(&DataDir::open(data)?),
        Command::Promote { version, data, alias } => {
            let registry = DataDir::open(data)?.registry()?;
            let version = version.parse()?;
            registry.set_alias(alias, &version)?;
            println!("{alias} is {version}");
            Ok(())
        }
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

fn list(dir: &DataDir) -> Result<()> {
    let registry = dir.registry()?;
    let aliases = registry.aliases()?;
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["version", "aliases", "encoder", "rows from, to (ms)", "bytes"]);
    for info in registry.versions()? {
        let names: Vec<&str> =
            aliases.iter().filter(|(_, v)| **v == info.version).map(|(name, _)| name.as_str()).collect();
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
