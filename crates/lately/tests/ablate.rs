//! `lately ablate` over a small world: the real binary, what it writes, and that an interrupted suite goes on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately::world::{SCHEMA, World, WorldConfig};
use serde_json::Value;
use tempfile::TempDir;

/// 3 January 2026 00:00 UTC.
const WORLD_END_MS: i64 = 1_767_398_400_000;

const SUITE: &str = r#"
title = "none and mean"
baseline = "none"
model = { affinity = false, cross_width = 16, hidden = [16] }
train = { batch_rows = 256, epochs = 1 }

[[configurations]]
name = "none"
model = { encoder = "none" }

[[configurations]]
name = "mean"
model = { encoder = "mean" }
paper = { click = 1.5, hide = "n.s.", absent = 2.0 }
paper_non_core = { click = -1.5 }
"#;

/// A data directory with 1 and 2 January 2026 of a small world, and a suite of two configurations in it.
fn small_world() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let store = DataDir::create(dir.path(), &format!("[schema]\n{SCHEMA}"))?.store()?;
    let world =
        World::new(WorldConfig { users: 30, items: 64, topics: 4, seed: 3, ..WorldConfig::default() })?;
    let before = WORLD_END_MS - 2 * 86_400_000;
    for events in [world.items(before), world.users(before), world.bootstrap(2, WORLD_END_MS)?] {
        store.append(events)?;
    }
    fs::write(dir.path().join("suite.toml"), SUITE)?;
    Ok(dir)
}

/// Runs `lately ablate` in a directory: its exit status and all that it said.
fn ablate(dir: &Path, arguments: &str) -> Result<(i32, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lately"));
    command.current_dir(dir).args(["ablate", "--data", "."]).args(arguments.split(' '));
    let output = command.output().context("cannot start the binary")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code().context("ended by a signal")?, String::from_utf8(said)?))
}

/// How often a text stands in another.
fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

const RUN: &str =
    "--suite suite.toml --to 2026-01-01 --seeds 2 --resamples 20 --json a.json --plot a.svg --table a.md";

#[test]
fn a_suite_is_compared_and_goes_on_where_it_stopped() -> Result<()> {
    let world = small_world()?;
    let (code, said) = ablate(world.path(), RUN)?;
    ensure!(code == 0 && count(&said, ": trained in ") == 4, "{said}");
    ensure!(said.contains("mean, seed 2: ") && said.contains("(3 of 4, at most "), "{said}");
    ensure!(said.contains("2 configurations x 2 seeds against `none`"), "{said}");
    let read = |name: &str| fs::read_to_string(world.path().join(name));
    let first: Value = serde_json::from_str(&read("a.json")?)?;
    has_the_numbers(&first)?;
    let table = read("a.md")?;
    ensure!(table.contains("| mean") && table.contains("+1.50 %") && table.contains("n.s."), "{table}");
    ensure!(count(&read("a.svg")?, "<circle") >= 3, "no lift is drawn");

    // One result is lost, as after a kill: it alone is trained again, to the same numbers.
    let lost = fs::read_dir(world.path().join("ablate"))?.next().context("nothing was kept")??;
    fs::remove_file(lost.path())?;
    let (code, said) = ablate(world.path(), RUN)?;
    ensure!(code == 0 && count(&said, ": trained in ") == 1 && count(&said, ": kept (") == 3, "{said}");
    let again: Value = serde_json::from_str(&read("a.json")?)?;
    ensure!(again["cells"] == first["cells"], "a resumed suite gives other numbers");
    let (code, said) = ablate(world.path(), &format!("{RUN} --fresh --against mean"))?;
    ensure!(code == 0 && count(&said, ": trained in ") == 4 && said.contains("against `mean`"), "{said}");
    Ok(())
}

/// All that a comparison is about, consistent in itself.
fn has_the_numbers(json: &Value) -> Result<()> {
    ensure!(json["baseline"] == "none" && json["resamples"] == 20, "{json}");
    let trained = json["trained_on"]["range_ms"][1].as_i64();
    let tested = json["tested_on"]["range_ms"][0].as_i64();
    ensure!(trained < tested && tested >= Some(WORLD_END_MS - 86_400_000), "{trained:?} {tested:?}");
    for (at, name) in ["none", "mean"].iter().enumerate() {
        let configuration = &json["configurations"][at];
        ensure!(configuration["name"] == *name && configuration["model"]["encoder"] == *name);
        ensure!(configuration["seeds"] == serde_json::json!([1, 2]) && configuration["train"]["epochs"] == 1);
    }
    let cells = json["cells"].as_array().context("no cells")?;
    ensure!(cells.len() == 6, "3 heads, all and non-core: {}", cells.len());
    let cell = |head: &str, group: &str| {
        let found = cells.iter().find(|c| c["head"] == head && c["group"] == group);
        found.with_context(|| format!("no {head}, {group}"))
    };
    let (none, mean) = (&cell("click", "all")?["lines"][0], &cell("click", "all")?["lines"][1]);
    let seeds = |line: &Value| -> Result<Vec<f64>> {
        let seeds = line["metrics"]["auc"]["seeds"].as_array().context("no seeds")?;
        Ok(seeds.iter().filter_map(Value::as_f64).collect())
    };
    let value = |v: &Value| v["value"].as_f64().context("no value");
    let (own, base) = (seeds(mean)?, seeds(none)?);
    ensure!(own.len() == 2 && own[0] != own[1], "two seeds: {own:?}");
    let less = (own[0] + own[1] - base[0] - base[1]) / 2.0;
    ensure!((value(&mean["less"]["auc"])? - less).abs() < 1e-9, "{mean}");
    let (hit, other) = (value(&mean["metrics"]["hit_at_3"])?, value(&none["metrics"]["hit_at_3"])?);
    let lift = value(&mean["lift"])?;
    ensure!((lift - 100.0 * (hit / other - 1.0)).abs() < 1e-9, "{mean}");
    let (low, high) = (mean["lift"]["low"].as_f64(), mean["lift"]["high"].as_f64());
    ensure!(low < Some(lift) && Some(lift) < high, "{mean}");
    let proven = low > Some(0.0) || high < Some(0.0);
    let verdict = if !proven {
        "not_proven"
    } else if lift > 0.0 {
        "agrees"
    } else {
        "disagrees"
    };
    ensure!(mean["verdict"] == verdict && mean["claim"] == 1.5 && none["verdict"].is_null(), "{mean}");
    ensure!(cell("click", "non_core")?["lines"][1]["claim"] == -1.5);
    ensure!(cell("save", "all")?["lines"][1]["claim"].is_null(), "the suite says nothing of save");
    Ok(())
}

#[test]
fn what_cannot_be_compared_is_refused_before_training() -> Result<()> {
    let world = small_world()?;
    let refused = |arguments: &str, words: &str| -> Result<()> {
        let (code, said) = ablate(world.path(), arguments)?;
        ensure!(code == 1 && said.contains(words) && !said.contains("trained"), "{arguments}: {said}");
        Ok(())
    };
    refused("--suite absent --to 2026-01-01", "neither a suite of this program")?;
    refused("--suite suite.toml", "--test-from DAY or both")?;
    refused("--suite suite.toml --to 2026-01-02 --test-from 2026-01-01", "must follow those of training")?;
    refused("--suite suite.toml --to 2026-01-05", "no row to evaluate")?;
    refused("--suite suite.toml --to 2026-01-01 --against first", "no configuration `first`")?;
    let unknown = SUITE.replace("epochs = 1", "epoch = 1");
    fs::write(world.path().join("suite.toml"), unknown)?;
    refused("--suite suite.toml --to 2026-01-01", "unknown field `epoch`")
}
