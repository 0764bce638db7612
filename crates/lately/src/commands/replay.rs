//! `lately replay`: whether served rankings can be made again from the log, to the bit of a probability.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use lately_features::Event;
use lately_model::ServingPrecision;
use lately_train::JoinOptions;
use lately_train::join::Joiner;
use lately_train::replay::{Logged, ReplayReport};

use super::train::write_json;
use crate::data_dir::DataDir;
use crate::device::replay_bound;
use crate::log_source;
use crate::replayed::{newest, of_version, versions};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Data directory; a server may have it open.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Newest rankings to make again.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Precision in which they were served: f32, bf16 or int8.
    #[arg(long, default_value = "f32")]
    precision: String,
    /// Largest difference of a probability that is none; default: 1e-6, or 0.02 where a GPU may have served.
    #[arg(long)]
    bound: Option<f64>,
    /// Write the figures as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let precision: ServingPrecision = serde_json::from_value(args.precision.clone().into())
        .with_context(|| format!("--precision {}: f32, bf16 or int8", args.precision))?;
    let dir = DataDir::open(&args.data)?;
    let bound = args.bound.unwrap_or_else(|| replay_bound(dir.config.rank.device));
    ensure!((0.0..=1.0).contains(&bound), "--bound {bound}: a difference of probabilities, 0 to 1");
    let registry = dir.registry()?;
    let vectors = dir.served_embedding(&registry)?.map(|e| e.vectors);
    let mut joiner = Joiner::new(&dir.schema, JoinOptions { vectors, ..JoinOptions::default() })?;
    let mut logged = HashMap::new();
    log_source::each(&dir, &mut |offset, event| {
        if let Event::Impression(impression) = &event {
            logged.extend(Logged::new(impression).map(|l| (offset, l)));
        }
        Ok(joiner.push(offset, event)?)
    })?;
    let dataset = joiner.finish();
    let slice = newest(&dataset, &logged, args.requests);
    if slice.requests.is_empty() {
        bail!("no ranking of a model is in the log of {}: rank something first", args.data.display());
    }
    let of = |version: String| {
        let report = of_version(&registry, &slice, &logged, precision, &version, bound)?;
        Ok((version, report))
    };
    let reports = versions(&slice, &logged).into_iter().map(of).collect::<Result<BTreeMap<_, _>>>()?;
    println!("{}", table(&reports, bound));
    if let Some(path) = &args.json {
        write_json(path, &serde_json::to_value(&reports)?)?;
    }
    let differ: Vec<&str> = reports.iter().filter(|(_, r)| !r.holds()).map(|(v, _)| v.as_str()).collect();
    if !differ.is_empty() {
        bail!("what was served cannot be made again from the log for {}", differ.join(", "));
    }
    Ok(())
}

fn table(reports: &BTreeMap<String, ReplayReport>, bound: f64) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    let beyond = format!("items beyond {bound:.0e}");
    table.set_header(["version", "requests", "items", "largest |dp|", &beyond, "unknown items"]);
    for (version, r) in reports {
        table.add_row([
            version[..version.len().min(12)].to_owned(),
            r.requests.to_string(),
            r.rows.to_string(),
            format!("{:.1e}", r.worst),
            r.beyond.to_string(),
            r.unknown.to_string(),
        ]);
    }
    table
}
