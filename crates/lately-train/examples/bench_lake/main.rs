//! Measures the lake: 10 million logged candidates are joined and compacted, and its layout is held against one record a
//! candidate.
//!
//! The schema is that of the synthetic world (items of 32 numbers, three heads) with sequences of 100. 2,000 users with 100
//! actions each are shown 200 of 20,000 items (the popular more often) 50,000 times in a day; of each page 20 are seen, 3 % of
//! all clicked, 0.5 % saved, 0.2 % hidden, after seconds to an hour; every item changes once in the day. The log is a real
//! store on disk, made by a process of its own, so that the peak of memory is that of join and compaction.

mod flat;
mod log;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use lately_features::Schema;
use lately_store::objects::Directory;
use lately_store::{Store, StoreLimits};
use lately_train::{Lake, LakeConfig};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Records that are read from the store at once, as `lately join` does.
const PAGE: usize = 512;

#[derive(Debug, Parser)]
struct Args {
    /// Requests.
    #[arg(long, default_value_t = 50_000)]
    requests: usize,
    /// Candidates of each.
    #[arg(long, default_value_t = 200)]
    candidates: usize,
    /// Users.
    #[arg(long, default_value_t = 2_000)]
    users: usize,
    /// Items.
    #[arg(long, default_value_t = 20_000)]
    items: usize,
    /// Joins and compactions of the same log.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Requests that are written as one record a candidate.
    #[arg(long, default_value_t = 40)]
    sample: usize,
    /// Where the log is made and kept; default: a temporary directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only makes the log in `--dir`.
    #[arg(long, hide = true)]
    make: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn schema() -> Result<Arc<Schema>, Failure> {
    let text = include_str!("../../../lately/src/world/world.toml");
    let text =
        text.replace("sequence = { length = 50, stored = 128 }", "sequence = { length = 100, stored = 256 }");
    Ok(Arc::new(Schema::from_toml(&text)?))
}

fn run(args: &Args) -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.as_deref().unwrap_or(temporary.path());
    let (log, schema) = (dir.join("log"), schema()?);
    if args.make {
        return log::make(&log, &schema, args);
    }
    if !log.exists() {
        let numbers = [args.requests, args.candidates, args.users, args.items].map(|n| n.to_string());
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["--make", "--dir"]).arg(dir);
        for (name, number) in ["--requests", "--candidates", "--users", "--items"].iter().zip(&numbers) {
            child.args([name, number.as_str()]);
        }
        if !child.status()?.success() {
            return Err("the log was not made".into());
        }
    }
    let name = format!("{} requests of {} candidates", args.requests, args.candidates);
    let (mut join, mut compact, mut both) = (Vec::new(), Vec::new(), Vec::new());
    let lake = dir.join("lake");
    for _ in 0..args.rounds {
        if lake.exists() {
            std::fs::remove_dir_all(&lake)?;
        }
        let (candidates, [joined, compacted]) = once(&log, &lake, &schema)?;
        join.push(candidates / joined);
        compact.push(candidates / compacted);
        both.push(candidates / (joined + compacted));
    }
    series(&format!("join, {name}"), "rows/s", &join);
    series(&format!("compaction, {name}"), "rows/s", &compact);
    series(&format!("join and compaction, {name}"), "rows/s", &both);
    series("peak of memory of join and compaction", "MiB", &[peak_mib()?]);
    flat::compare(&lake, &schema, args.sample)
}

/// Joins and compacts once: candidates, and seconds of both.
fn once(log: &Path, lake: &Path, schema: &Arc<Schema>) -> Result<(f64, [f64; 2]), Failure> {
    let store = Store::open(log, schema.clone(), StoreLimits::default())?;
    let objects = Arc::new(Directory::open(lake)?);
    let start = Instant::now();
    let mut lake =
        Lake::open(objects, schema, &LakeConfig { reader_grace_seconds: 0, ..LakeConfig::default() })?;
    let now = log::START_MS + 30 * 86_400_000;
    let advanced = lake.advance(&mut |from| store.read(from, PAGE), now)?;
    let joined = start.elapsed().as_secs_f64();
    let maintained = lake.maintain(now)?;
    let compacted = start.elapsed().as_secs_f64() - joined;
    lake.maintain(now)?; // removes what was replaced
    eprintln!("{advanced:?}\n{maintained:?}\njoin {joined:.1} s, compaction {compacted:.1} s");
    Ok((advanced.candidates as f64, [joined, compacted]))
}

/// The most memory that this process ever held.
fn peak_mib() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in the status")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

pub(crate) fn series(name: &str, unit: &str, samples: &[f64]) {
    println!("{}", serde_json::json!({ "name": name, "unit": unit, "samples": samples }));
}
