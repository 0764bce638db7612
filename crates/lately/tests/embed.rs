//! Item vectors through the real binary: learned, used by training, named by models, and refused where they differ.

#[path = "support/process.rs"]
mod process;
#[path = "support/run.rs"]
mod run;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use serde_json::Value;

use crate::process::Served;
use crate::run::{WORLD_END_MS, lately, small_world};

/// Runs a command that writes JSON to `json`; returns it.
fn with_json(command: &str, data: &Path, json: &Path) -> Result<Value> {
    lately(&format!("{command} --data {{}} --json {{}}"), &[data, json])?.ended(0, &[])?;
    Ok(serde_json::from_slice(&fs::read(json)?)?)
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {value}"))
}

#[test]
fn vectors_are_learned_listed_used_and_named_by_the_model() -> Result<()> {
    let (dir, out) = (small_world()?, tempfile::tempdir()?);
    let (data, json) = (dir.path(), out.path().join("out.json"));
    let before = "embed items --before 2026-01-02";
    let first = with_json(&format!("{before} --method residual --min-count 1"), data, &json)?;
    let last = first["manifest"]["data_range_ms"][1].as_i64();
    ensure!(last < Some(WORLD_END_MS - 86_400_000), "learned from the day itself: {last:?}");
    ensure!(first["manifest"]["items"].as_u64() > Some(10) && first["manifest"]["cold"] == true, "{first}");
    let second = with_json(&format!("{before} --method ppmi --keep"), data, &json)?;
    let (first, second) = (text(&first, "/version")?, text(&second, "/version")?);
    ensure!(first != second, "two methods, one version");
    let list = lately("embed list --data {}", &[data])?;
    list.ended(0, &[first, second, "residual", "ppmi", "from features"])?;
    ensure!(list.out.lines().any(|l| l.contains(first) && l.contains("active")), "{}", list.out);

    // What a model is evaluated with is what it was trained with, whichever table is active meanwhile.
    let trained = with_json("train --from 2026-01-02 --to 2026-01-02 --epochs 1", data, &json)?;
    ensure!(text(&trained, "/manifest/embedding_version")? == first, "{trained}");
    lately(&format!("embed use {} --data {{}}", &second[..12]), &[data])?.ended(0, &["uses", second])?;
    let eval = "eval --data {} --from 2026-01-02 --resamples 5 --json {}";
    lately(eval, &[data, &json])?.ended(0, &["click"])?;
    let again = lately("train --data {} --epochs 1 --alias challenger", &[data])?;
    again.ended(0, &[&second[..12], "were learned from what followed"])?;
    let refused = lately(&format!("{eval} --against challenger"), &[data, &json])?;
    refused.ended(1, &["was trained on the item vectors", first, second])?;

    lately("embed use - --data {}", &[data])?.ended(0, &["what items were sent with"])?;
    let plain = with_json("train --from 2026-01-02 --epochs 1 --alias plain", data, &json)?;
    ensure!(text(&plain, "/manifest/embedding_version")?.is_empty(), "{plain}");
    lately("embed use zz --data {}", &[data])?.ended(1, &["0 versions begin with `zz`", "embed list"])?;
    lately("embed items --data {} --dim 4096", &[data])?.ended(1, &["do not fit"])
}

#[test]
fn given_vectors_are_imported_or_refused() -> Result<()> {
    let (dir, out) = (small_world()?, tempfile::tempdir()?);
    let (data, file) = (dir.path(), out.path().join("given.jsonl"));
    let dim = DataDir::open(data)?.schema.item_embedding_dim();
    let row = |id: &str, dim: usize| format!("{{\"id\": \"{id}\", \"vector\": {:?}}}\n", vec![0.5; dim]);
    fs::write(&file, row("a", dim) + &row("b", dim + 1) + &row("c", dim))?;
    let run = lately("embed import {} --data {}", &[&file, data])?;
    run.ended(0, &["2 of 3 rows taken, 1 bad", "given.jsonl line 2", "training uses it"])?;
    lately("embed list --data {}", &[data])?.ended(0, &["import", "active", "zeros"])?;
    lately("embed import {} --data {} --max-bad 0", &[&file, data])?
        .ended(1, &["1 bad rows, 0 are allowed"])?;
    fs::write(&file, row("a", dim + 1))?;
    lately("embed import {} --data {}", &[&file, data])?.ended(1, &["holds no vector"])
}

#[test]
fn a_server_serves_the_champions_vectors_and_refuses_a_model_of_others() -> Result<()> {
    let (dir, out) = (small_world()?, tempfile::tempdir()?);
    let (data, json) = (dir.path(), out.path().join("out.json"));
    let table = with_json("embed items --method item2vec --before 2026-01-02", data, &json)?;
    let version = text(&table, "/version")?;
    let champion = with_json("train --from 2026-01-02 --epochs 1", data, &json)?;
    // The next training takes other vectors; a restart must still serve the champion.
    lately("embed use - --data {}", &[data])?.ended(0, &[])?;
    let server = Served::start(data)?;
    let models = || -> Result<Value> {
        Ok(ureq::get(format!("{}/v1/models", server.base)).call()?.body_mut().read_json()?)
    };
    ensure!(models()?.to_string().contains(version), "{}", models()?);
    let other = with_json("train --from 2026-01-02 --epochs 1 --seed 2", data, &json)?;
    ensure!(text(&other, "/manifest/embedding_version")?.is_empty(), "{other}");
    std::thread::sleep(std::time::Duration::from_secs(5)); // two looks at the registry
    let served = models()?.to_string();
    ensure!(served.contains(text(&champion, "/version")?), "the refused champion took over: {served}");
    server.kill()?;
    let next = Served::start(data)?;
    let served = ureq::get(format!("{}/v1/models", next.base)).call()?.body_mut().read_to_string()?;
    ensure!(served.contains(text(&other, "/version")?), "a restart serves the new champion: {served}");
    next.kill()
}
