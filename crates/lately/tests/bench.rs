//! `lately bench serve` on a small model: every phase runs, nothing fails, and the figures fit together. No absolute
//! time is looked at, as machines that test are busy.

#[path = "support/process.rs"]
mod process;
#[path = "support/run.rs"]
mod run;

use std::fs;

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use serde_json::Value;

use crate::process::Served;
use crate::run::{lately, small_world};

/// Bounds that a busy machine and a debug build keep: what is tested is not speed.
const PATIENT: &str = "--max-lag-ms 100000 --deadline-ms 5000";

#[test]
fn a_quick_run_goes_through_all_phases() -> Result<()> {
    let out = tempfile::tempdir()?;
    let (json, plot) = (out.path().join("run.json"), out.path().join("curve.svg"));
    let small = "--preset nano --users 50 --items 100 --candidates 20";
    let phases = "--quick --curve --steady --overload 3x --swaps 4";
    let line = format!("bench serve {small} {phases} {PATIENT} --json {{}} --plot {{}}");
    lately(&line, &[&json, &plot])?.ended(0, &["unloaded median", "capacity", "p99.9", "holds:"])?;
    let report: Value = serde_json::from_slice(&fs::read(&json)?)?;
    let phase = |name: &str| {
        let all = report["phases"].as_array().into_iter().flatten();
        all.clone().find(|p| p["name"] == name).with_context(|| format!("no phase {name}: {report}"))
    };
    for name in ["one at a time", "capacity", "curve 25 %", "curve 100 %", "steady 70 %", "overload"] {
        is_sound(phase(name)?)?;
    }
    for name in ["one at a time", "curve 25 %", "steady 70 %", "swaps"] {
        let rankings = &phase(name)?["rankings"];
        for bad in ["error", "timeout"] {
            ensure!(rankings["outcomes"][bad].is_null(), "{name}: {rankings}");
        }
    }
    let events = &phase("steady 70 %")?["events"];
    ensure!(events["requests"].as_u64() > Some(20) && events["outcomes"]["error"].is_null(), "{events}");
    ensure!(report["swaps"]["done"] == 4 && phase("swaps")?["mixed"] == 0, "{report}");
    ensure!(report["swaps"]["probes"].as_u64() > Some(0), "no answer was checked: {}", report["swaps"]);
    ensure!(report["overload"]["factor"] == 3.0 && report["invalid"] == serde_json::json!([]), "{report}");
    if cfg!(target_os = "linux") {
        ensure!(phase("overload")?["server"]["rss_most"].as_u64() > Some(1 << 20), "{report}");
    }
    ensure!(fs::read_to_string(&plot)?.contains("<svg"), "no plot");
    Ok(())
}

/// Each request is counted once, percentiles rise, the series holds what the whole holds.
fn is_sound(phase: &Value) -> Result<()> {
    let rankings = &phase["rankings"];
    let outcomes = rankings["outcomes"].as_object().context("no outcomes")?;
    let counted: u64 = outcomes.values().filter_map(|o| o["count"].as_u64()).sum();
    ensure!(counted > 0 && Some(counted) == rankings["requests"].as_u64(), "{phase}");
    let series = phase["series"].as_array().context("no series")?;
    let in_series: u64 = series
        .iter()
        .flat_map(|s| s["outcomes"].as_object())
        .flat_map(|o| o.values())
        .filter_map(Value::as_u64)
        .sum();
    ensure!(in_series == counted, "{in_series} in the series: {phase}");
    let latency =
        ["p50", "p90", "p99", "p999", "max"].map(|q| rankings["latency"][q].as_f64().unwrap_or(-1.0));
    ensure!(latency[0] > 0.0 && latency.is_sorted(), "{phase}");
    let good = outcomes.get("ok").and_then(|o| o["count"].as_u64()).unwrap_or(0) as f64;
    let rate = good / phase["seconds"].as_f64().context("no time")?;
    ensure!((rate - rankings["goodput"].as_f64().unwrap_or(-1.0)).abs() < 1e-6, "{phase}");
    Ok(())
}

#[test]
fn a_real_directory_is_loaded_in_a_copy_and_a_running_server_by_its_address() -> Result<()> {
    let dir = small_world()?;
    let before = DataDir::open(dir.path())?.store()?.next_offset();
    let phases = "--quick --steady 30% --for 500ms --capacity 20 --candidates 30";
    lately(&format!("bench serve --data {{}} {phases} {PATIENT}"), &[dir.path()])?
        .ended(0, &["steady 30 %"])?;
    ensure!(DataDir::open(dir.path())?.store()?.next_offset() == before, "the real log has grown");

    let server = Served::start(dir.path())?;
    let in_use = lately(&format!("bench serve --data {{}} {phases} {PATIENT}"), &[dir.path()])?;
    in_use.ended(1, &["in use by another process", "--url"])?;
    // It has no model: every answer is degraded, and says so.
    let line =
        format!("bench serve --url {} --data {{}} {phases} {PATIENT} --events-per-second 20", server.base);
    lately(&line, &[dir.path()])?.ended(0, &["x degraded: [\"no_model\""])?;
    server.kill()?;
    ensure!(DataDir::open(dir.path())?.store()?.next_offset() > before, "nothing was sent to the server");
    Ok(())
}

#[test]
fn a_run_that_shows_nothing_fails() -> Result<()> {
    let small =
        "bench serve --preset nano --users 5 --items 20 --candidates 20 --quick --steady --capacity 20";
    // Nothing is sent without any lag.
    lately(&format!("{small} --max-lag-ms 0"), &[])?
        .ended(1, &["the figures are invalid", "p99 of the lag"])?;
    // Half of what is said to be the capacity can never give nine tenths of it.
    let half = "bench serve --preset nano --users 5 --items 20 --candidates 20 --quick --capacity 400 --overload 0.5x";
    lately(&format!("{half} {PATIENT} --assert"), &[])?
        .ended(1, &["FAILS: overload: goodput", "not held: overload: goodput"])?;
    lately(&format!("{small} --set rank.treads=1"), &[])?.ended(1, &["treads"])?;
    lately("bench serve --preset nano --candidates 30 --items 20 --users 5", &[])?
        .ended(1, &["30 candidates of 20 items"])?;
    Ok(())
}

/// The binary with arguments, in a temporary directory of its own, so that what it leaves can be seen.
#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_run_leaves_neither_a_server_nor_a_directory() -> Result<()> {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let temporary = tempfile::tempdir()?;
    let mut child = Command::new(env!("CARGO_BIN_EXE_lately"))
        .args("bench serve --preset nano --users 5 --items 20 --candidates 20".split(' '))
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(child.stderr.take().context("no output")?);
    let mut line = String::new();
    while !line.starts_with("warm-up") {
        line.clear();
        ensure!(said.read_line(&mut line)? > 0, "the run ended before it began");
    }
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let server: u32 = fs::read_to_string(children)?.trim().parse().context("not one server")?;
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    ensure!(child.wait()?.code() == Some(130), "it did not end as interrupted");
    let left: Vec<_> = fs::read_dir(temporary.path())?.collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    let state = fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
    ensure!(state.is_empty() || state.contains(") Z "), "the server lives on: {state}");
    Ok(())
}
