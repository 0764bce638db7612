//! The command line: the real binary, its exit status, and what it says.

#[path = "support/process.rs"]
mod process;
#[path = "support/run.rs"]
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately::demo::demo_toml;
use lately_model::{Manifest, Model, ModelConfig, official};
use lately_train::publish::{CHALLENGER, CHAMPION, publish};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Served;
use crate::run::{WORLD_END_MS, lately, small_world};

const USER_COLUMNS: &str = "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,register_days,register_days_range,onehot_feat0,onehot_feat1,onehot_feat2,onehot_feat3,onehot_feat4,onehot_feat5,onehot_feat6,onehot_feat7,onehot_feat8,onehot_feat9,onehot_feat10,onehot_feat11,onehot_feat12,onehot_feat13,onehot_feat14,onehot_feat15,onehot_feat16,onehot_feat17";
const USER: &str = "full_active,0,1,1,514,500+,150,\"[100,1k)\",34,\"[30,60)\",799,730+,1,1,29,949,1.0,0,0,14,135,6,3,0,0.0,1.0,,0.0,0.0,0.0";
const VIDEO_COLUMNS: &str = "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,music_id,music_type,tag";
const VIDEO: &str = "1,NORMAL,2022-04-10,Web,0.0,87433.0,720.0,1280.0,9,9.0,\"39,68\"";
const LOG_COLUMNS: &str = "user_id,video_id,time_ms,tab,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,is_profile_enter,play_time_ms,duration_ms";

/// KuaiRand's files with 4 users, 8 videos and 20 impressions; line 6, 11 and 16 of the impressions are damaged.
fn kuairand() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let users: String = (1..5).map(|u| format!("{u},{USER}\n")).collect();
    let videos: String = (10..18).map(|v| format!("{v},{VIDEO}\n")).collect();
    let history: String = (1..5).map(|u| format!("{u},3,1650615878629,10:LV 1{u}:V 17\n")).collect();
    let shown = |n: i64| {
        let (user, video, time) = (1 + n % 4, 10 + n % 8, 1_650_900_000_000 + n * 60_000);
        match n {
            4 => format!("{user},{video},{time},1,1,0\n"),
            9 => format!("{user},not-a-video,{time},1,1,0,0,0,0,0,1,0,500,49866\n"),
            14 => format!("{user},{video},{time},1,7,0,0,0,0,0,1,0,500,49866\n"),
            _ => format!("{user},{video},{time},1,{},0,0,0,0,0,1,0,{n},49866\n", n % 2),
        }
    };
    let log: String = (0..20).map(shown).collect();
    for (name, columns, rows) in [
        ("user_features_pure.csv", USER_COLUMNS, users),
        ("video_features_basic_pure.csv", VIDEO_COLUMNS, videos),
        ("history.csv", "user_id,history_len,last_time_ms,seq", history),
        ("impressions.csv", LOG_COLUMNS, log),
    ] {
        fs::write(dir.path().join(name), format!("{columns}\n{rows}"))?;
    }
    Ok(dir)
}

#[test]
fn an_import_counts_and_names_bad_rows() -> Result<()> {
    let (source, target) = (kuairand()?, tempfile::tempdir()?);
    let into = target.path().join("data");
    let run = lately("import kuairand {} --into {}", &[source.path(), &into])?;
    run.ended(
        0,
        &[
            "17 impressions, 3 bad, 0 duplicates",
            "bad: impressions.csv line 6: ",
            "bad: impressions.csv line 11: video_id is `not-a-video`",
            "bad: impressions.csv line 16: is_click is `7`",
        ],
    )?;
    let store = DataDir::open(&into)?.store()?;
    // Users, items, histories, impressions, and of each impression `seen`, every second time `click`, a long view.
    ensure!(store.stats()?.items == 8 && store.stats()?.users == 4, "{:?}", store.stats()?);
    drop(store);
    lately("import kuairand {} --into {}", &[source.path(), &into])?
        .ended(1, &["records already", "import into an empty directory"])
}

#[test]
fn an_import_with_more_bad_rows_than_allowed_leaves_nothing() -> Result<()> {
    let (source, target) = (kuairand()?, tempfile::tempdir()?);
    let into = target.path().join("data");
    let run = lately("import kuairand {} --into {} --max-bad 2", &[source.path(), &into])?;
    run.ended(1, &["3 bad rows, 2 are allowed and nothing was imported", "impressions.csv line 11: "])?;
    ensure!(!into.exists(), "{} was made", into.display());
    Ok(())
}

#[test]
fn parity_with_the_reference_holds() -> Result<()> {
    let dir = std::env::var_os("LATELY_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"), PathBuf::from);
    let paper = dir.join("paper.safetensors");
    if !paper.exists() {
        println!("skipped: {} is absent (set LATELY_GOLDEN)", paper.display());
    } else {
        lately("model parity {}", &[&paper])?.ended(0, &["paper", "yes", "gradients"])?;
    }
    let nothing = tempfile::tempdir()?;
    let damaged = nothing.path().join("damaged.safetensors");
    fs::write(&damaged, [7; 100])?;
    lately("model parity {}", &[&damaged])?.ended(1, &["damaged.safetensors"])
}

#[test]
fn models_are_trained_evaluated_listed_and_promoted() -> Result<()> {
    let (dir, out) = (small_world()?, tempfile::tempdir()?);
    let (data, json, plot) = (dir.path(), out.path().join("out.json"), out.path().join("auc.svg"));
    let read = || -> Result<Value> { Ok(serde_json::from_slice(&fs::read(&json)?)?) };
    lately("eval --data {} --from 2026-01-02", &[data])?.ended(1, &["train first"])?;

    lately("train --data {} --to 2026-01-01 --json {}", &[data, &json])?.ended(0, &["as champion"])?;
    let trained = read()?;
    let version = trained["version"].as_str().context("no version")?.to_owned();
    let rows = trained["join"]["rows"].as_u64().context("no rows")?;
    ensure!(rows > 1_000 && trained["manifest"]["config"]["encoder"] == "transact", "{trained}");
    ensure!(trained["train"]["rows"].as_u64() >= Some(rows), "{}", trained["train"]);
    let last = trained["manifest"]["data_range_ms"][1].as_i64();
    ensure!(last < Some(WORLD_END_MS - 86_400_000), "the range ends with the day: {last:?}");

    let eval =
        "eval --data {} --from 2026-01-02 --to 2026-01-02 --against none --resamples 10 --json {} --plot {}";
    let run = lately(eval, &[data, &json, &plot])?;
    run.ended(0, &["click", "save", "hide", "AUC", "HIT@3", "transact champion", "none"])?;
    ensure!(!run.err.contains("flatters"), "{}", run.err);
    has_the_numbers(&read()?)?;
    ensure!(fs::read_to_string(&plot)?.contains("<svg"), "no plot");
    // The baseline is in the registry now and is not trained again.
    let again = lately(eval, &[data, &json, &plot])?;
    again.ended(0, &["HIT@3"])?;
    ensure!(!again.out.contains("training one"), "{}", again.out);
    lately("eval --data {} --to 2026-01-01 --resamples 10", &[data])?.ended(0, &["flatters"])?;

    let list = lately("model list --data {}", &[data])?;
    list.ended(0, &["champion", "transact", "none", &version])?;
    let other =
        list.out.split_whitespace().find(|w| w.len() == 64 && *w != version).context("one version only")?;
    lately(&format!("model promote {other} --data {{}}"), &[data])?.ended(0, &["champion is", other])?;
    let list = lately("model list --data {}", &[data])?;
    let line = list.out.lines().find(|l| l.contains(other)).context("not listed")?;
    ensure!(line.contains("champion"), "{}", list.out);
    let unknown = "0".repeat(64);
    lately(&format!("model promote {unknown} --data {{}}"), &[data])?.ended(1, &["not in the registry"])?;
    lately("model promote ../../x --data {}", &[data])?.ended(1, &["no version that is listed"])
}

/// Of every head, for both models: the numbers that an evaluation is about.
fn has_the_numbers(evaluated: &Value) -> Result<()> {
    let heads = evaluated["report"]["heads"].as_array().context("no heads")?;
    ensure!(heads.len() == 3, "{evaluated}");
    let click = heads.iter().find(|h| h["head"] == "click").context("no click")?;
    let all = &click["groups"][0];
    let scorers = all["scorers"].as_array().context("no scorers")?;
    ensure!(scorers.len() == 2, "{all}");
    for scorer in scorers {
        for metric in
            ["auc", "user_auc", "user_auc_streaming", "list_auc", "log_loss", "calibration", "hit_at_3"]
        {
            let value = scorer[metric]["value"].as_f64();
            ensure!(value.is_some_and(|v| v > 0.0 && v < 10.0), "{metric}: {scorer}");
        }
    }
    ensure!(all["differences"].as_array().map(Vec::len) == Some(1), "{all}");
    Ok(())
}

#[test]
fn an_unknown_key_is_refused_by_its_name() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let toml = demo_toml().replacen("[train]", "[train]\nbatch_row = 5", 1);
    fs::write(dir.path().join("lately.toml"), toml)?;
    for command in ["train --data {}", "serve --data {} --bind 127.0.0.1:0 --admin-bind 127.0.0.1:0"] {
        lately(command, &[dir.path()])?.ended(1, &["lately.toml", "batch_row", "unknown field"])?;
    }
    let absent = dir.path().join("absent");
    lately("train --data {}", &[&absent])?.ended(1, &["lately.toml", "lately import"])
}

#[test]
fn official_weights_come_in_and_go_out_unchanged() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let there = DataDir::create(dir.path(), &demo_toml())?;
    // 32 + 2 wide tokens would be divided by 3 heads too; only the metadata, or the option, tells how many there are.
    let config =
        ModelConfig { compatibility: true, attention_heads: 2, hidden: vec![8], ..ModelConfig::default() };
    let model = Model::new(config, &there.schema, 5)?;
    let (file, back) = (dir.path().join("official.safetensors"), dir.path().join("back.safetensors"));
    fs::write(&file, official::export(&model)?)?;
    lately("model import {} --into {} --alias official", &[&file, dir.path()])?.ended(0, &["imported"])?;
    lately("model list --data {}", &[dir.path()])?.ended(0, &["official", "transact"])?;
    lately("model export official --data {} --out {}", &[dir.path(), &back])?.ended(0, &["exported"])?;
    ensure!(fs::read(&file)? == fs::read(&back)?, "the file changed on its way");
    lately("model import {} --into {} --first-k 3", &[&file, dir.path()])?
        .ended(1, &["`cross.0.weight` is of shape", "check their number and `first_k`"])?;
    lately("model export nothing --data {} --out {}", &[dir.path(), &back])?.ended(1, &["neither an alias"])
}

#[test]
fn a_rollback_walks_back_and_a_running_server_follows() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let there = DataDir::create(dir.path(), &format!("[rank]\nshadow_share = 1.0\n{}", demo_toml()))?;
    let registry = there.registry()?;
    let back = |options: &str| lately(&format!("model rollback --data {{}}{options}"), &[dir.path()]);
    back("")?.ended(1, &["`champion` names no version", "promote one"])?;
    let config = ModelConfig { hidden: vec![8], ..ModelConfig::default() };
    let mut versions = Vec::new();
    for seed in 1..=3 {
        let model = Model::new(config.clone(), &there.schema, seed)?;
        let manifest = Manifest::new(&model, &there.schema, seed);
        let version = publish(&registry, &model, &manifest, Some(CHAMPION))?.to_string();
        lately(&format!("model promote {version} --data {{}} --alias {CHALLENGER}"), &[dir.path()])?
            .ended(0, &[])?;
        versions.push(version);
    }
    let server = Served::start(dir.path())?;
    serves(&server, "current", &versions[2])?;
    serves(&server, "challenger", &versions[2])?;
    for (from, to) in [(2, 1), (1, 0)] {
        let was = format!("champion was {}", versions[from]);
        back("")?.ended(0, &[&was, &format!("champion is {}", versions[to])])?;
        serves(&server, "current", &versions[to])?;
    }
    let first = format!("`champion` is {} and has named no other version before it", versions[0]);
    back("")?.ended(1, &[&first])?;
    serves(&server, "current", &versions[0])?;
    back(" --alias challenger")?.ended(0, &[&format!("challenger is {}", versions[1])])?;
    serves(&server, "challenger", &versions[1])?;
    lately("model challenger --none --data {}", &[dir.path()])?.ended(0, &["there is no challenger"])?;
    becomes(&server, |models| models["challenger"].is_null())?;
    lately("model challenger champion --data {}", &[dir.path()])?.ended(0, &["challenger is "])?;
    serves(&server, "challenger", &versions[0])?;
    server.kill()
}

#[test]
fn a_vetoed_version_comes_back_by_force_only_and_the_history_tells_why() -> Result<()> {
    let (dir, elsewhere) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let uri =
        format!("[registry]\nuri = \"file://{}\"\nkeep = 1\n{}", elsewhere.path().display(), demo_toml());
    let there = DataDir::create(dir.path(), &uri)?;
    let registry = there.registry()?;
    let config = ModelConfig { hidden: vec![8], ..ModelConfig::default() };
    let mut versions = Vec::new();
    for seed in 1..=3 {
        let model = Model::new(config.clone(), &there.schema, seed)?;
        let manifest = Manifest::new(&model, &there.schema, seed);
        versions.push(publish(&registry, &model, &manifest, None)?.to_string());
    }
    ensure!(elsewhere.path().join(format!("artifacts/{}.bin", versions[0])).exists());
    let run = |words: &str| lately(&format!("model {words} --data {{}}"), &[dir.path()]);
    let short = &versions[1][..12];
    run(&format!("promote {}", versions[0]))?.ended(0, &["champion is "])?;
    run(&format!("promote {short} --reason better"))?.ended(0, &[&format!("champion is {}", versions[1])])?;
    run("promote 0123")?.ended(1, &["no version that is listed"])?;
    run("rollback --veto --reason worse")?.ended(0, &[&format!("champion is {}", versions[0])])?;
    run("list")?.ended(0, &["vetoed"])?;
    run(&format!("promote {short}"))?.ended(1, &["was vetoed (by hand: worse)", "--force"])?;
    let other = registry.publish(b"of another schema", &serde_json::json!({"schema_hash": "x"}))?;
    run(&format!("promote {other}"))?.ended(1, &["was trained with the schema x", "--force"])?;
    run(&format!("promote {short} --force --reason insisted"))?.ended(0, &["champion is "])?;
    run("history")?.ended(0, &["by hand: better", "champion, rolled back", "vetoed", "by hand: insisted"])?;
    let history = run("history --json")?;
    let records: Vec<Value> = serde_json::from_str(&history.out)?;
    ensure!(records.last().is_some_and(|r| r["change"] == "alias" && r["reason"] == "by hand: insisted"));
    // All of them are young.
    run("gc --dry-run")?.ended(0, &["would remove 0 versions"])?;
    run("gc --keep 0")?.ended(0, &["removed 0 versions and parts of 0 more"])?;
    fs::write(dir.path().join("lately.toml"), uri.replace("file://", "s3://a-bucket"))?;
    let says = if cfg!(feature = "s3") { "not a name" } else { "cargo build --release --features s3" };
    run("list")?.ended(1, &["cannot open the registry", says])
}

/// Waits until a server has a version, which it looks for every 2 s.
fn serves(server: &Served, which: &str, version: &str) -> Result<()> {
    becomes(server, |models| models[which]["version"] == version)
        .with_context(|| format!("{which} does not become {version}"))
}

/// Waits until a server tells of its models as it should.
fn becomes(server: &Served, holds: impl Fn(&Value) -> bool) -> Result<()> {
    let begin = Instant::now();
    loop {
        let models: Value = ureq::get(format!("{}/v1/models", server.base)).call()?.body_mut().read_json()?;
        if holds(&models) {
            return Ok(());
        }
        ensure!(begin.elapsed() < Duration::from_secs(60), "the server stays at {models}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_encoder_is_named() -> Result<()> {
    lately("train --help", &[])?.ended(0, &["none, mean, din, bst or transact"])?;
    lately("train --data {} --encoder lstm", &[Path::new("x")])?
        .ended(2, &["`lstm` is no encoder", "none, mean, din, bst or transact"])
}

#[test]
fn a_server_refuses_public_addresses_and_shared_directories() -> Result<()> {
    let dir = tempfile::tempdir()?;
    DataDir::create(dir.path(), &demo_toml())?;
    let serve = |bind: &str, admin: &str| {
        lately(&format!("serve --data {{}} --bind {bind} --admin-bind {admin}"), &[dir.path()])
    };
    serve("0.0.0.0:0", "127.0.0.1:0")?.ended(1, &["0.0.0.0:0 can be reached from other machines"])?;
    serve("127.0.0.1:0", "[::]:0")?.ended(1, &["can be reached from other machines"])?;
    serve("here", "127.0.0.1:0")?.ended(1, &["`here` is no address"])?;

    let first = Served::start(dir.path())?;
    serve("127.0.0.1:0", "127.0.0.1:0")?.ended(1, &["is in use by another process: stop it"])?;
    lately("train --data {}", &[dir.path()])?
        .ended(1, &["reading the log from http://", "no row to train on"])?;
    lately("model list --data {}", &[dir.path()])?.ended(0, &["version"])?; // the registry can be shared
    first.kill()?;
    let train = lately("train --data {}", &[dir.path()])?;
    train.ended(1, &["no row to train on"])?;
    ensure!(!train.out.contains("being served"), "the address of a killed server was used: {}", train.out);
    // Nothing that a killed server left behind keeps the next one out.
    let next = Served::start(dir.path())?;
    ureq::get(format!("{}/healthz", next.base)).call()?;
    next.kill()
}
