//! `lately doctor` as a process: it works on every directory, names what is wrong, and changes nothing.

#[path = "support/process.rs"]
mod process;
#[path = "support/run.rs"]
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately::demo::demo_toml;
use lately_model::{Manifest, Model, ModelConfig};
use lately_train::publish::{CHAMPION, publish};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Served;
use crate::run::{Run, lately, small_world};

fn doctor(data: &Path) -> Result<Run> {
    lately("doctor --data {}", &[data])
}

/// Names of all files below.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        all.push(entry.path());
        if entry.file_type()?.is_dir() {
            all.extend(files(&entry.path())?);
        }
    }
    all.sort();
    Ok(all)
}

#[test]
fn nothing_is_made_where_nothing_is() -> Result<()> {
    let dir = tempfile::tempdir()?;
    doctor(dir.path())?
        .ended(1, &["FAIL  configuration: ", "lately.toml", "-> correct the file", "one check failed"])?;
    doctor(&dir.path().join("absent"))?.ended(1, &["FAIL  configuration: "])?;
    ensure!(files(dir.path())?.is_empty(), "{:?}", files(dir.path())?);

    DataDir::create(dir.path(), &demo_toml())?;
    let run = doctor(dir.path())?;
    run.ended(
        0,
        &[
            "warn  model: there is none",
            "-> `lately train --data",
            "warn  log: there is no log yet",
            "0 failed",
        ],
    )?;
    ensure!(files(dir.path())?.len() == 1, "it made {:?}", files(dir.path())?);
    fs::write(dir.path().join("lately.toml"), demo_toml().replacen("[train]", "[train]\nbatch_row = 5", 1))?;
    doctor(dir.path())?.ended(1, &["FAIL  configuration: ", "batch_row", "unknown field"])
}

/// A small world with a trained champion.
fn trained() -> Result<TempDir> {
    let dir = small_world()?;
    lately("train --data {}", &[dir.path()])?.ended(0, &["as champion"])?;
    Ok(dir)
}

#[test]
fn a_sound_directory_is_told_so_with_and_without_a_server() -> Result<()> {
    let (dir, out) = (small_world()?, tempfile::tempdir()?);
    let run = doctor(dir.path())?;
    run.ended(
        0,
        &["warn  model: there is none", "ok    drift: not measured: there is no champion", "Actions\n"],
    )?;
    lately("train --data {}", &[dir.path()])?.ended(0, &["as champion"])?;

    let json = out.path().join("page.json");
    let run = lately("doctor --data {} --hours 12 --json {}", &[dir.path(), &json])?;
    let said = [
        "ok    configuration: lately.toml; schema ",
        "loads and scores; ",
        "ok    item vectors: those that items are sent with",
        "warn  model age: newest training row ",
        "warn  log: ",
        "opened here",
        "ok    labels: of ",
        "ok    bots: no user with more than 1000 actions in an hour",
        "ok    drift: 11 columns are as in training",
        "ok    calibration: no list of a model",
        "ok    replay: 0 rankings made again",
        "Drift of the last 12 h against training",
        "01-02 23:00",
        " 0 failed",
    ];
    run.ended(0, &said)?;
    let page: Value = serde_json::from_slice(&fs::read(&json)?)?;
    ensure!(page["checks"].as_array().map(Vec::len) >= Some(11), "{page}");
    ensure!(page["log"]["findings"]["hours"] == 12, "{page}");
    let drift = page["log"]["findings"]["drift"].as_array().context("no drift")?;
    ensure!(drift.iter().all(|d| d["psi"].as_f64() < Some(1.0)), "{drift:?}");

    let server = Served::start(dir.path())?;
    ureq::get(format!("{}/healthz", server.base)).call()?;
    let run = doctor(dir.path())?;
    run.ended(0, &["read from the server at 127.0.0.1:", "ok    drift: 11 columns", " 0 failed"])?;
    server.kill()?;
    // What a killed server left behind is not taken for one.
    doctor(dir.path())?.ended(0, &["opened here"])
}

#[test]
fn each_damage_is_named() -> Result<()> {
    let dir = trained()?;
    let data = dir.path();
    let artifacts = data.join("registry/artifacts");
    let artifact = (fs::read_dir(&artifacts)?.filter_map(|e| Some(e.ok()?.path())))
        .find(|p| p.extension().is_some_and(|e| e == "bin"))
        .context("no model")?;
    let sound = fs::read(&artifact)?;
    let mut bent = sound.clone();
    bent[sound.len() / 2] ^= 1;
    fs::write(&artifact, bent)?;
    doctor(data)?
        .ended(1, &["FAIL  model: ", "is damaged", "-> `lately model rollback --data", "ok    labels: "])?;
    fs::remove_file(&artifact)?;
    doctor(data)?.ended(
        1,
        &[
            "FAIL  model: ",
            "is not in the registry",
            "warn  drift: not measured: the champion",
            "ok    labels: ",
        ],
    )?;
    fs::write(&artifact, &sound)?;

    let toml = fs::read_to_string(data.join("lately.toml"))?;
    fs::write(data.join("lately.toml"), toml.replacen("length = 50", "length = 40", 1))?;
    doctor(data)?.ended(1, &["FAIL  model: ", "train a model on the present schema"])?;
    fs::write(data.join("lately.toml"), &toml)?;
    doctor(data)?.ended(0, &[" 0 failed"])?;

    // Who holds the store is no server that says where it is.
    let there = DataDir::open(data)?;
    let held = there.store()?;
    doctor(data)?.ended(1, &["FAIL  log: ", "is in use by another process"])?;
    fs::write(data.join("admin.address"), "127.0.0.1:1")?;
    doctor(data)?.ended(1, &["FAIL  log: ", "127.0.0.1:1", "is that server well?"])?;
    fs::remove_file(data.join("admin.address"))?;
    drop(held);
    for file in files(&data.join("store"))?.into_iter().filter(|f| f.is_file()) {
        fs::write(file, b"not a store")?;
    }
    doctor(data)?.ended(1, &["FAIL  log: ", "-> restore a copy"])
}

#[test]
fn a_model_without_profile_or_golden_rows_is_told() -> Result<()> {
    let dir = small_world()?;
    let there = DataDir::open(dir.path())?;
    let model = Model::new(ModelConfig { hidden: vec![8], ..ModelConfig::default() }, &there.schema, 1)?;
    publish(&there.registry()?, &model, &Manifest::new(&model, &there.schema, 1), Some(CHAMPION))?;
    doctor(dir.path())?.ended(
        0,
        &[
            "0 golden rows",
            "it was published without",
            "warn  drift: not measured: the champion was published without a profile",
        ],
    )
}
