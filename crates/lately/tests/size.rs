//! `lately size` on small geometries: what it says, and that its figures follow from one another.

#[path = "support/run.rs"]
mod run;

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::run::{lately, small_world};

#[test]
fn a_size_is_told_by_what_one_of_each_takes() -> Result<()> {
    let out = tempfile::tempdir()?;
    let json = out.path().join("size.json");
    let read = || -> Result<Value> { Ok(serde_json::from_slice(&fs::read(&json)?)?) };
    let said = ["cores", "at 70 % utilisation", "impression record", "log a day", "network out"];
    let line = "size --preset nano --candidates 30 --seconds 0.1 --json {}";
    lately(line, &[&json])?.ended(0, &said)?;
    let measured = read()?;
    lately(&format!("{line} --candidates-per-second 5000 --requests-per-second 70"), &[&json])?
        .ended(0, &["given"])?;
    let given = read()?;
    // 2,100 candidates/s are 60 % of what 5,000 are at 70 %.
    let cores = given["need"]["cores"].as_f64().context("no cores")?;
    ensure!((cores - 0.6).abs() < 1e-9, "{given}");
    ensure!(
        alike(&measured["bytes"], &given["bytes"])
            && measured["speed"]["candidates_per_second"].as_f64() > Some(0.0)
    );

    let dir = small_world()?;
    lately("size --data {} --candidates 30 --seconds 0.1 --json {}", &[dir.path(), &json])?
        .ended(0, &said)?;
    let of_world = read()?;
    ensure!(of_world["bytes"]["entries"] == 128 && of_world["tokens"] == 46, "{of_world}");
    lately("size --preset nano --tokens 21 --seconds 0.1", &[])?.ended(1, &["at most 20"])?;
    let table = lately("size --table --candidates 4 --seconds 0 --precisions f32", &[])?;
    table.ended(0, &["| paper | f32 |", "| default | f32 |", "46 tokens"])?;
    ensure!(table.out.trim().lines().count() == 4, "{}", table.out);
    Ok(())
}

/// Whether all numbers are the same within 3 % and a byte: times in an answer have more digits at one time than at another.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| alike(a, b)))
        }
        _ => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1.0 + 0.03 * a.abs(),
            _ => a == b,
        },
    }
}
