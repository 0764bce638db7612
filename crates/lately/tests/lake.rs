//! `lately join` as people run it: killed at any moment it loses and repeats nothing, and other tools read what it
//! wrote. `LATELY_KILLS=25` sets the number of kills of each kind, `LATELY_PYTHON` a Python with duckdb, pandas, pyarrow
//! and polars.

#[path = "support/run.rs"]
mod run;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately::log_source;
use lately_train::{DateRange, JoinOptions};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::run::{lately, small_world};

/// Many small commits, several of the whole state, and nothing that is kept for readers.
const SETTINGS: &str = "\n[lake]\ncommit_candidates = 150\nsnapshot_records = 700\nreader_grace_seconds = 0\nmin_wait_seconds = 1\n";

#[test]
fn a_join_killed_at_any_moment_loses_and_repeats_nothing() -> Result<()> {
    let kills: usize = std::env::var("LATELY_KILLS").map_or(Ok(5), |n| n.parse())?;
    let dir = small_world()?;
    let path = dir.path();
    let toml = path.join("lately.toml");
    fs::write(&toml, fs::read_to_string(&toml)? + SETTINGS)?;
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let lake = path.join("lake");
    let nothing = |_: &Path| Ok(());
    let (joined, restarts) = killed(path, &["--no-maintenance"], kills, &mut random, &|| {
        if lake.exists() {
            fs::remove_dir_all(&lake)?
        }
        nothing(&lake)
    })?;
    check(path).context("after kills of joins")?;
    let parts = path.join("parts");
    copy(&lake, &parts)?;
    let (maintained, again) = killed(path, &[], kills, &mut random, &|| {
        fs::remove_dir_all(&lake)?;
        copy(&parts, &lake)
    })?;
    check(path).context("after kills of compactions")?;
    println!(
        "{joined} kills in joins, {maintained} in compactions; ran to the end between them {restarts} and {again} times"
    );
    Ok(())
}

/// Kills `lately join` at random moments until it was killed so many times; where it ends before, begins anew. Then lets
/// it end. Gives the number of kills and of beginnings.
fn killed(
    path: &Path,
    options: &[&str],
    kills: usize,
    random: &mut ChaCha8Rng,
    anew: &dyn Fn() -> Result<()>,
) -> Result<(usize, usize)> {
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lately"));
        command.args(["join", "--data"]).arg(path).args(options).stdout(Stdio::null());
        command
    };
    let start = Instant::now();
    ensure!(command().status()?.success(), "the undisturbed run failed");
    let whole = start.elapsed();
    anew()?;
    let (mut done, mut ended) = (0, 0);
    while done < kills {
        let mut child = command().spawn()?;
        std::thread::sleep(whole.mul_f64(random.random_range(0.0..1.0)));
        if child.try_wait()?.is_some() {
            ended += 1;
            ensure!(ended < 50 * kills, "it always ends before it is killed");
            anew()?;
            continue;
        }
        child.kill()?;
        child.wait()?;
        done += 1;
    }
    ensure!(command().status()?.success(), "the run after the kills failed");
    Ok((done, ended))
}

/// The lake holds what the join of the whole log gives, and no object that its last two manifests do not name.
fn check(path: &Path) -> Result<()> {
    let dir = DataDir::open(path)?;
    let got = dir.lake_reader()?.read(DateRange::ALL, None)?;
    let want = log_source::dataset(&dir, JoinOptions::default())?;
    ensure!(got.requests.len() == want.requests.len(), "{} of {}", got.requests.len(), want.requests.len());
    ensure!(got.all().fingerprint() == want.all().fingerprint(), "rows differ");
    let mut named = BTreeSet::new();
    let mut there = BTreeSet::new();
    let lake = path.join("lake");
    walk(&lake, &mut |file| {
        let name = file.strip_prefix(&lake)?.to_string_lossy().into_owned();
        match name.starts_with("manifests/") {
            true => names(&serde_json::from_slice(&fs::read(file)?)?, &mut named),
            false if name.starts_with('.') => {}
            false => drop(there.insert(name)),
        }
        Ok(())
    })?;
    let orphans: Vec<_> = there.difference(&named).collect();
    ensure!(orphans.is_empty(), "no manifest names {orphans:?}");
    Ok(())
}

/// All that a manifest calls `name`.
fn names(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            out.extend(fields.get("name").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| names(field, out));
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, out)),
        _ => {}
    }
}

fn walk(dir: &Path, on_file: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, on_file)? } else { on_file(&path)? }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    walk(from, &mut |file| {
        let place = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(place.parent().context("it has a folder")?)?;
        fs::copy(file, &place)?;
        Ok(())
    })
}

#[test]
fn other_tools_read_what_the_documentation_says() -> Result<()> {
    let python = std::env::var("LATELY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = Command::new(&python).args(["-c", "import duckdb, pandas, polars, pyarrow"]).output();
    if !import.is_ok_and(|run| run.status.success()) {
        println!("SKIPPED: {python} has no duckdb, pandas, polars and pyarrow; set LATELY_PYTHON");
        return Ok(());
    }
    let dir = small_world()?;
    let report = dir.path().join("report.json");
    lately("join --data {} --json {}", &[dir.path(), &report])?.ended(0, &["candidates", "click"])?;
    let report: Value = serde_json::from_slice(&fs::read(report)?)?;
    let docs = include_str!("../../../docs/lake.md");
    let blocks = docs.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut script: String = blocks.filter(|block| !block.starts_with("# not run")).collect();
    script = script.replace("DIR/lake", &dir.path().join("lake").to_string_lossy());
    script += "
import pyarrow.parquet
polars_rows = shown.collect().height
arrow_rows = sum(pyarrow.parquet.ParquetFile(name).metadata.num_rows for name in requests)
duckdb_requests = duckdb.sql('select count(*) from read_parquet($requests)', params={'requests': requests}).fetchall()[0][0]
print('REQUESTS', len(frame), arrow_rows, duckdb_requests)
print('CANDIDATES', len(candidates), len(rows), polars_rows)
";
    let run = Command::new(&python).args(["-c", &script]).output()?;
    let (out, err) = (String::from_utf8(run.stdout)?, String::from_utf8(run.stderr)?);
    ensure!(run.status.success(), "{out}\n{err}");
    let of = |key: &str| report["summary"][key].as_u64().context("a count is missing");
    let (requests, candidates) = (of("rows")?, of("candidates")?);
    for line in [
        format!("REQUESTS {requests} {requests} {requests}"),
        format!("CANDIDATES {candidates} {candidates} {candidates}"),
    ] {
        ensure!(out.contains(&line), "{line}: {out}");
    }
    Ok(())
}
