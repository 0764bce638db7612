//! `lately join`: the log of a data directory becomes training rows in Parquet, joined with what followed.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args as ClapArgs;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use lately_train::Lake;
use lately_train::lake::{Advanced, LakeSummary, Maintained};
use serde_json::json;

use super::train::write_json;
use crate::data_dir::DataDir;
use crate::log_source::Log;
use crate::wire_up::now_ms;

/// Records that are read at once: each may be an impression of 2,000 items, and a few pages are in memory.
const PAGE: usize = 512;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Data directory; a server may have it open.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Drop all files and make them again from the first record of the log.
    #[arg(long)]
    rebuild: bool,
    /// Join only: do not compact, thin or drop files.
    #[arg(long)]
    no_maintenance: bool,
    /// Write the figures as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = DataDir::open(&args.data)?;
    let mut lake = match args.rebuild {
        true => Lake::rebuild(dir.lake_objects()?, &dir.schema, &dir.config.lake)?,
        false => dir.lake()?,
    };
    let log = Log::open(&dir)?;
    if let Some(address) = log.address() {
        println!("the directory is being served: reading the log from http://{address}");
    }
    let start = Instant::now();
    let mut read = |from| log.read(from, PAGE).map_err(ReadError);
    let advanced = lake.advance(&mut read, now_ms())?;
    let joined = start.elapsed().as_secs_f64();
    let maintained = match args.no_maintenance {
        true => Maintained::default(),
        false => lake.maintain(now_ms())?,
    };
    let seconds = [joined, start.elapsed().as_secs_f64() - joined];
    let summary = lake.summary();
    print(&summary, &advanced, &maintained, seconds);
    if let Some(path) = &args.json {
        let [join, maintain] = seconds;
        let all = json!({
            "advanced": advanced, "maintained": maintained, "summary": summary,
            "join_seconds": join, "maintain_seconds": maintain,
        });
        write_json(path, &all)?;
    }
    Ok(())
}

/// What the log's reader said, as one error.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct ReadError(anyhow::Error);

fn print(summary: &LakeSummary, advanced: &Advanced, maintained: &Maintained, [join, maintain]: [f64; 2]) {
    let Advanced { events, rows, candidates, corrections, commits, .. } = advanced;
    println!(
        "joined {events} log records: {rows} requests of {candidates} candidates and {corrections} corrections, \
         {commits} commits in {join:.1} s"
    );
    if *maintained != Maintained::default() {
        let Maintained { hours, files, rows, dropped, forgotten, quarantined } = maintained;
        println!(
            "maintained {hours} hours: {files} files of {rows} requests written again, {dropped} dropped, \
             {forgotten} users forgotten, {quarantined} objects moved aside, in {maintain:.1} s"
        );
    }
    println!(
        "the lake holds {} requests of {} candidates in {} files, {:.1} MB ({:.1} bytes a candidate); {} requests wait, \
         {:.0} s each",
        summary.rows,
        summary.candidates,
        summary.files,
        summary.bytes as f64 / 1e6,
        summary.bytes as f64 / summary.candidates.max(1) as f64,
        summary.open_requests,
        summary.wait_seconds
    );
    println!("{}", delays(summary));
    for name in &summary.quarantined {
        println!("in quarantine: {name}; `lately join --rebuild` makes its rows again");
    }
}

/// How long each action type takes to come.
fn delays(summary: &LakeSummary) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["action", "joined", "p50 s", "p90 s", "p99 s", "later than the wait", "after the row"]);
    for (d, late) in summary.delays.iter().zip(&summary.late_positives) {
        let seconds = |s: f64| format!("{s:.1}");
        table.add_row([
            d.action.clone(),
            d.count.to_string(),
            seconds(d.p50_seconds),
            seconds(d.p90_seconds),
            seconds(d.p99_seconds),
            format!("{:.2} %", 100.0 * d.later),
            late.to_string(),
        ]);
    }
    table
}
