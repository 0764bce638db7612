//! kill -9 of the real server between acknowledgement and ranking: what was acknowledged is in the sequence, and in
//! the ranking, of the next start. `LATELY_KILLS=30` sets the number of kills.

#[path = "support/http.rs"]
mod http;
#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately::demo::demo_toml;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::http::Http;
use crate::process::Served;

/// Clients that send at a time.
const CLIENTS: usize = 4;
/// Actions of one user: fewer than the model sees of a sequence, so that all of them must be in it.
const ACTIONS: usize = 40;
/// Longest time from the first acknowledgement to the kill, ms.
const LATEST_KILL_MS: u64 = 150;

/// What was sent for one user. Each action has an item of its own, so that the sequence tells which ones it holds.
#[derive(Default)]
struct Sent {
    /// Items of acknowledged actions.
    acked: BTreeSet<String>,
    /// The batch whose answer never came.
    unanswered: Vec<Value>,
    /// A ranking with at least this watermark knows all that was acknowledged.
    watermark: u64,
}

#[test]
fn nothing_that_was_acknowledged_is_lost() -> Result<()> {
    let kills: usize = std::env::var("LATELY_KILLS").map_or(Ok(5), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    DataDir::create(dir.path(), &demo_toml())?;
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let begun = Instant::now();
    let mut all: BTreeMap<String, Sent> = BTreeMap::new();
    let mut restarts = Duration::ZERO;
    for round in 0..kills {
        // Every third time at once after an acknowledgement, else at any moment.
        let delay = if round % 3 == 0 { 0 } else { random.random_range(0..LATEST_KILL_MS) };
        let sent = act_until_killed(dir.path(), round, Duration::from_millis(delay))?;
        let start = Instant::now();
        let server = Served::start(dir.path())?;
        restarts += start.elapsed();
        for (user, sent) in sent {
            check(&Http::new(&server.base), &user, &sent).with_context(|| format!("after kill {round}"))?;
            all.insert(user, sent);
        }
        server.kill()?;
    }
    // Nor by a later kill.
    let server = Served::start(dir.path())?;
    let client = Http::new(&server.base);
    for (user, sent) in &all {
        check(&client, user, sent).context("at the end")?;
        retry(&client, user, sent)?;
    }
    let acked: usize = all.values().map(|s| s.acked.len()).sum();
    ensure!(acked >= kills, "only {acked} actions were acknowledged: the test is too weak");
    println!(
        "{kills} kills, {acked} acked actions, 0 lost ({:.1} s, a restart takes {:.0} ms)",
        begun.elapsed().as_secs_f64(),
        restarts.as_secs_f64() * 1e3 / kills.max(1) as f64,
    );
    Ok(())
}

/// Lets clients act on a fresh server, and kills it `delay` after the first acknowledgement.
fn act_until_killed(dir: &Path, round: usize, delay: Duration) -> Result<Vec<(String, Sent)>> {
    let server = Served::start(dir)?;
    let over = Arc::new(AtomicBool::new(false));
    let (acknowledged, first) = mpsc::channel();
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let (http, over, acknowledged) = (Http::new(&server.base), Arc::clone(&over), acknowledged.clone());
        clients.push(std::thread::spawn(move || {
            act(&http, &format!("r{round}c{client}"), &over, &acknowledged)
        }));
    }
    drop(acknowledged);
    first.recv_timeout(Duration::from_secs(10)).context("no action was acknowledged")?;
    std::thread::sleep(delay);
    server.kill()?;
    over.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    Ok(all)
}

/// Sends batches of 1 to 3 actions until the server is gone; a refusal is an error.
fn act(http: &Http, name: &str, over: &AtomicBool, first: &mpsc::Sender<()>) -> Result<Vec<(String, Sent)>> {
    let mut all = Vec::new();
    loop {
        let user = format!("{name}u{}", all.len());
        let mut sent = Sent::default();
        while sent.acked.len() + 3 <= ACTIONS {
            let from = sent.acked.len();
            let batch: Vec<Value> = (from..from + 1 + from % 3).map(|n| action(&user, n)).collect();
            // Looked at before the request: an answer to an earlier one may be read after the kill.
            let gone = over.load(Ordering::Relaxed);
            let answer = http.text("POST", "/v1/events", Some(&json!({ "events": batch })));
            let Ok((status, body)) = answer else {
                sent.unanswered = batch;
                all.push((user, sent));
                return Ok(all);
            };
            ensure!(status == 200 && !gone, "{status}: {body}");
            let answer: Value = serde_json::from_str(&body)?;
            ensure!(answer["accepted"] == batch.len() && answer["duplicates"] == 0, "{answer}");
            sent.watermark = answer["watermark"].as_u64().context("no watermark")?;
            sent.acked.extend(items(&batch));
            first.send(()).ok(); // only the first one is waited for
        }
        all.push((user, sent));
    }
}

fn action(user: &str, n: usize) -> Value {
    let action = ["click", "save", "hide"][n % 3];
    json!({ "type": "action", "event_id": format!("e{n}"), "user": user, "item": format!("{user}-{n}"), "action": action })
}

fn items(batch: &[Value]) -> impl Iterator<Item = String> {
    batch.iter().filter_map(|e| e["item"].as_str().map(str::to_owned))
}

/// The user's sequence holds every acknowledged action once and nothing that was not sent; a ranking knows them.
fn check(http: &Http, user: &str, sent: &Sent) -> Result<()> {
    let (status, body) = http.text("GET", &format!("/v1/users/{user}"), None)?;
    ensure!(status == 200 || (status == 404 && sent.acked.is_empty()), "{user}: {status}: {body}");
    let reply: Value = serde_json::from_str(&body)?;
    let empty = Vec::new();
    let entries = reply["sequence"].as_array().unwrap_or(&empty);
    let known: BTreeSet<String> = items(entries).collect();
    ensure!(known.len() == entries.len(), "{user}: an action is there twice: {reply}");
    let lost: Vec<&String> = sent.acked.difference(&known).collect();
    ensure!(lost.is_empty(), "{user}: acknowledged and lost: {lost:?}");
    let possible: BTreeSet<String> = sent.acked.iter().cloned().chain(items(&sent.unanswered)).collect();
    let foreign: Vec<&String> = known.difference(&possible).collect();
    ensure!(foreign.is_empty(), "{user}: never sent: {foreign:?}");
    let ask = json!({ "user": user, "candidates": ["a", "b"], "explain": true });
    let ranking = http.json("POST", "/v1/rank", Some(&ask))?;
    ensure!(ranking["explain"]["tokens"] == known.len(), "{user}: {} actions, {ranking}", known.len());
    ensure!(ranking["watermark"].as_u64() >= Some(sent.watermark), "{user}: {ranking}");
    ensure!(ranking["degraded"][0] == "no_model", "{user}: {ranking}");
    Ok(())
}

/// A client that had no answer sends again: the batch is there once.
fn retry(http: &Http, user: &str, sent: &Sent) -> Result<()> {
    if sent.unanswered.is_empty() {
        return Ok(());
    }
    let answer = http.json("POST", "/v1/events", Some(&json!({ "events": sent.unanswered })))?;
    ensure!(answer["accepted"] == sent.unanswered.len(), "{answer}");
    let reply = http.json("GET", &format!("/v1/users/{user}"), None)?;
    let known: Vec<String> = reply["sequence"].as_array().map(|e| items(e).collect()).unwrap_or_default();
    ensure!(known.len() == sent.acked.len() + sent.unanswered.len(), "{user}: {reply}");
    Ok(())
}
