//! The whole loop over the public interface, on exactly what `lately demo` runs: a small world, its first model, the
//! server, a crowd, a retraining, a swap.

#[path = "support/http.rs"]
mod http;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lately::commands::Cli;
use lately::data_dir::DataDir;
use lately::demo::crowd::{Crowd, Tally};
use lately::demo::{Demo, DemoOptions, demo_toml};
use lately::learn::champion;
use lately::retrain::{Kind, Learner};
use lately::world::WorldConfig;
use lately_features::{Event, Impression};
use lately_model::{Manifest, Model};
use lately_train::publish::{CHAMPION, publish};
use lately_train::{JoinOptions, join_store};
use serde_json::{Value, json};

use crate::http::Http;

/// Items of the world.
const ITEMS: usize = 200;
/// Topics of the world.
const TOPICS: usize = 8;
/// Candidates of a topic in the test of freshness.
const OF_TOPIC: usize = 5;

/// One demo for all steps, as its first model costs most of the time.
#[test]
fn the_whole_loop() -> Result<()> {
    let mut clock = Steps(Instant::now());
    let data = tempfile::tempdir()?;
    let demo = Demo::start(&small(data.path())?, &mut |line| println!("{line}"))?;
    let http = Http::new(format!("http://{}", demo.server.address));
    let admin = Http::new(format!("http://{}", demo.server.admin_address));
    clock.step("start");
    doors_are_open(&demo, &http)?;
    clock.step("doors");
    an_action_moves_the_next_ranking(&demo, &http)?;
    clock.step("freshness");
    a_hidden_item_is_gone(&demo, &http)?;
    clock.step("hide");
    what_was_served_becomes_rows(&demo, &http)?;
    clock.step("rows");
    a_forgotten_user_is_gone(&demo, &http)?;
    clock.step("forget");
    while_people_act(&demo, || Ok(()))?;
    a_retraining_is_judged(&demo, &http, &admin)?;
    clock.step("crowd and retraining");
    while_people_act(&demo, || models_change(&demo, &http, &admin))?;
    clock.step("crowd and swaps");
    metrics_tell_of_it(&admin)?;
    clock.step("metrics");
    // Every ranking so far, by three versions and more, from the log of the running server.
    demo.server.flush_impressions();
    let data = data.path().to_str().context("a path in UTF-8")?;
    Cli::try_parse_from(["lately", "replay", "--data", data])?.run()?;
    clock.step("replay");
    what_was_served_is_watched(&demo, &admin)?;
    Cli::try_parse_from(["lately", "doctor", "--data", data])?.run()?;
    clock.step("watch and doctor");
    demo.server.stop()?;
    clock.step("stop");
    Ok(())
}

/// The server's own look at its log: the newest rankings are made again, and compared with what people did.
fn what_was_served_is_watched(demo: &Demo, admin: &Http) -> Result<()> {
    let report = demo.server.watch.look()?;
    let replayed: usize = report.findings.replay.values().map(|r| r.requests).sum();
    ensure!(
        replayed > 0 && report.findings.replay.values().all(|r| r.holds()),
        "{:?}",
        report.findings.replay
    );
    let click = report.findings.calibration.iter().find(|h| h.head == "click").context("no click")?;
    ensure!(click.head == "click" && !report.findings.drift.is_empty(), "{:?}", report.findings.no_drift);
    let (_, text) = admin.text("GET", "/metrics", None)?;
    ensure!(text.contains("lately_drift_psi{feature=\"sequence.length\"}"), "no drift in {text}");
    Ok(())
}

/// The demo on a small world. It has a tenth of the rows, so its model is trained in smaller steps, or it would have
/// made thirty only; all else is as in the demo.
fn small(dir: &Path) -> Result<DemoOptions> {
    let mut config: toml::Table = demo_toml().parse()?;
    let train = config.get_mut("train").and_then(toml::Value::as_table_mut).context("no [train]")?;
    train.insert("batch_rows".to_owned(), 64.into());
    // No ranking is made worse on purpose: what is said of them must hold for each.
    let rank = config.entry("rank").or_insert_with(|| toml::Table::new().into());
    let rank = rank.as_table_mut().context("no [rank]")?;
    rank.insert("exercise_share".to_owned(), 0.0.into());
    // Nor is one refused because the machine is busy.
    rank.insert("deadline_ms".to_owned(), 5_000.into());
    // People act for seconds here: rows must not wait for a minute.
    config.insert("lake".to_owned(), toml::toml! { max_wait_seconds = 0 min_wait_seconds = 0 }.into());
    config.insert("retrain".to_owned(), toml::toml! { nice = 0 }.into());
    DataDir::create(dir, &toml::to_string(&config)?)?;
    Ok(DemoOptions {
        dir: Some(dir.to_owned()),
        world: WorldConfig { users: 60, items: ITEMS, topics: TOPICS, seed: 1, ..WorldConfig::default() },
        days: 2,
        bind: "127.0.0.1:0".to_owned(),
        admin_bind: "127.0.0.1:0".to_owned(),
        bars: false,
    })
}

/// Prints how long each step took.
struct Steps(Instant);

impl Steps {
    fn step(&mut self, name: &str) {
        println!("{name}: {:.2} s", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

fn doors_are_open(demo: &Demo, http: &Http) -> Result<()> {
    ensure!(http.json("GET", "/healthz", None)?["status"] == "ok");
    ensure!(http.json("GET", "/readyz", None)?["status"] == "ready");
    let served = http.json("GET", "/v1/models", None)?;
    ensure!(served["current"]["version"] == demo.server.model_version(), "{served}");

    let user = &demo.world.user_ids()[0];
    let page =
        http.json("GET", &format!("/v1/feed?user={user}&limit=12&surface=home&deadline_ms=2000"), None)?;
    let items = items(&page);
    ensure!(items.len() == 12 && items.iter().collect::<HashSet<_>>().len() == 12, "{page}");
    ensure!(
        page["degraded"] == json!([]) && page["model"]["version"] == demo.server.model_version(),
        "{page}"
    );

    let (status, text) = http.text("GET", "/", None)?;
    ensure!(status == 200 && text.contains("<html"), "the demo's page: {status}");
    ensure!(
        http.json("GET", "/demo/users", None)?["users"].as_array().map(Vec::len)
            == Some(demo.world.user_ids().len())
    );
    let paths = http.json("GET", "/openapi.json", None)?["paths"].take();
    for (path, method) in [
        ("/v1/events", "post"),
        ("/v1/items", "put"),
        ("/v1/rank", "post"),
        ("/v1/feed", "get"),
        ("/v1/users/{id}", "get"),
        ("/v1/users/{id}", "delete"),
        ("/v1/models", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
    ] {
        ensure!(paths[path][method].is_object(), "openapi.json lacks {method} {path}");
    }
    Ok(())
}

/// A save, and within the second a ranking that knows it and has moved the saved item's topic up: for most people, and
/// for all together by a tenth of the list.
fn an_action_moves_the_next_ranking(demo: &Demo, http: &Http) -> Result<()> {
    let all: Vec<String> = demo.world.item_ids().iter().map(ToString::to_string).collect();
    let candidates = &all[..TOPICS * OF_TOPIC]; // things go round the topics
    let (mut shift, mut towards, mut slowest) = (0.0, 0, Duration::ZERO);
    let users = demo.world.user_ids();
    for (n, user) in users.iter().enumerate() {
        let rank = || rank(http, user.as_str(), candidates);
        // Not a candidate itself: what moves is what is like it.
        let saved = &all[TOPICS * OF_TOPIC + n % TOPICS];
        let before = rank()?;
        let sending = Instant::now();
        let acknowledged = act(http, user.as_str(), saved, "save", None)?;
        let after = rank()?;
        slowest = slowest.max(sending.elapsed());
        ensure!(after["watermark"].as_u64() >= acknowledged["watermark"].as_u64(), "{after}");
        ensure!(after["degraded"] == json!([]) && after["explain"]["tokens"].as_u64() > Some(0), "{after}");
        let (was, is) = (mean_place(&before, topic(saved)), mean_place(&after, topic(saved)));
        shift += (was - is) / users.len() as f64;
        towards += usize::from(is < was);
        let known = http.json("GET", &format!("/v1/users/{user}"), None)?;
        let newest = &known["sequence"][0];
        ensure!(newest["item"] == **saved && newest["action"] == "save", "{known}");
    }
    println!(
        "a save moves its topic up by {shift:.1} of {} places on average, for {towards} of {} people; at most {:.0} ms",
        candidates.len(),
        users.len(),
        slowest.as_secs_f64() * 1e3,
    );
    ensure!(slowest < Duration::from_secs(1), "action to ranking took {slowest:?}");
    ensure!(shift > 4.0 && towards * 3 > users.len() * 2, "the rankings hardly follow a save");
    Ok(())
}

fn a_hidden_item_is_gone(demo: &Demo, http: &Http) -> Result<()> {
    let user = demo.world.user_ids()[1].to_string();
    // As many as there are: what was shown a short while ago stays in, only what is hidden stays out.
    let feed = || http.json("GET", &format!("/v1/feed?user={user}&limit={ITEMS}&deadline_ms=2000"), None);
    let before = items(&feed()?);
    let hidden = &before[0];
    act(http, &user, hidden, "hide", None)?;
    let after = items(&feed()?);
    let gone: Vec<_> = before.iter().filter(|i| !after.contains(*i)).collect();
    ensure!(gone == [hidden], "{hidden} was hidden, gone are {gone:?}");
    let ask = json!({ "user": user, "candidates": [hidden, before[1]], "drop": ["hidden"] });
    let ranking = http.json("POST", "/v1/rank", Some(&ask))?;
    ensure!(ranking["dropped"] == json!([{ "item": hidden, "reason": "hidden" }]), "{ranking}");
    ensure!(items(&ranking) == before[1..2], "{ranking}");
    Ok(())
}

/// A page, a save on it, a page after it: both pages are in the log as they were answered, and the join makes rows of
/// them with what was known at the time and what followed.
fn what_was_served_becomes_rows(demo: &Demo, http: &Http) -> Result<()> {
    let user = demo.world.user_ids()[2].to_string();
    let feed =
        || http.json("GET", &format!("/v1/feed?user={user}&limit=12&surface=home&deadline_ms=2000"), None);
    let first = feed()?;
    let saved = items(&first)[3].clone();
    act(http, &user, &saved, "save", first["request"].as_str())?;
    let second = feed()?;
    demo.server.flush_impressions();

    let (store, schema) = (&demo.server.store, &demo.dir.schema);
    let log = store.read(demo.trained_to, usize::MAX)?;
    let find = |page: &Value| {
        log.iter().find_map(|(offset, event)| match event {
            Event::Impression(i) if Some(i.request.as_str()) == page["request"].as_str() => {
                Some((*offset, i))
            }
            _ => None,
        })
    };
    let dataset = join_store(store, schema, JoinOptions::default())?;
    for (page, labels) in [(&first, 1), (&second, 0)] {
        let (offset, impression) = find(page).with_context(|| format!("not in the log: {page}"))?;
        is_what_was_answered(impression, page)?;
        let row = dataset.requests.iter().find(|r| r.offset == offset).context("no rows of a served page")?;
        ensure!(row.candidates.len() == 12 && row.surface > 0 && row.features.is_some());
        let save = schema.actions.iter().position(|a| a.name == "save").context("no save")?;
        let is_saved = |c: &&lately_train::dataset::Candidate| c.observed & (1 << save) != 0;
        let positive: Vec<_> = row.candidates.iter().filter(is_saved).collect();
        ensure!(positive.len() == labels, "{} saves on {page}", positive.len());
        ensure!(positive.iter().all(|c| dataset.items[c.item as usize].as_str() == saved && c.position == 3));
        // The second page knew the save, the first one did not.
        let newest = &row.tokens[0];
        ensure!(
            (usize::from(newest.action) == save
                && newest.item == store.item(&lately_features::ItemId::new(&saved)?))
                == (labels == 0)
        );
    }
    Ok(())
}

fn is_what_was_answered(impression: &Impression, page: &Value) -> Result<()> {
    let shown: Vec<&str> = impression.items.iter().map(|i| i.item.as_str()).collect();
    ensure!(shown == items(page), "{shown:?} was logged, {page} answered");
    ensure!(impression.watermark == page["watermark"].as_u64(), "{impression:?}");
    ensure!(impression.model.as_deref() == page["model"]["version"].as_str(), "{impression:?}");
    ensure!(
        impression.surface.as_deref() == Some("home") && impression.degraded.is_empty(),
        "{impression:?}"
    );
    // `click` is the first head.
    let click = page["items"][0]["heads"]["click"].as_f64().map(|p| p as f32);
    ensure!(click.is_some() && impression.items[0].heads.first().copied() == click, "{impression:?}");
    Ok(())
}

fn a_forgotten_user_is_gone(demo: &Demo, http: &Http) -> Result<()> {
    let user = demo.world.user_ids()[2].clone();
    let path = format!("/v1/users/{user}");
    let gone = http.json("DELETE", &path, None)?;
    ensure!(gone["removed_records"].as_u64() > Some(3), "{gone}");
    ensure!(http.text("GET", &path, None)?.0 == 404);
    let log = demo.server.store.read(0, usize::MAX)?;
    let left: Vec<_> = log.iter().filter(|(_, e)| e.user() == Some(&user)).collect();
    ensure!(matches!(left[..], [(_, Event::Forget(_))]), "{left:?}");
    // Still served, as somebody unknown.
    let page = http.json("GET", &format!("/v1/feed?user={user}&limit=12&deadline_ms=2000"), None)?;
    ensure!(items(&page).len() == 12 && page["degraded"] == json!([]), "{page}");
    Ok(())
}

/// People act over HTTP before, during and after something, and meet no error.
fn while_people_act(demo: &Demo, something: impl FnOnce() -> Result<()>) -> Result<()> {
    let base = format!("http://{}", demo.server.address);
    let seed = demo.server.store.next_offset(); // of each crowd its own
    let crowd = Crowd::start(&demo.world, &base, 2, Duration::from_millis(10), seed)?;
    acts_on(&crowd.tally)?;
    something()?;
    acts_on(&crowd.tally)?;
    let tally = crowd.stop();
    let errors = tally.first_errors.lock().map(|e| e.join("; ")).unwrap_or_default();
    ensure!(tally.errors.load(Ordering::Relaxed) == 0, "the crowd met errors: {errors}");
    let (events, pages) = (tally.events.load(Ordering::Relaxed), tally.pages.load(Ordering::Relaxed));
    let fresh = tally.freshness_us.lock().map(|h| (h.len(), h.value_at_quantile(0.5))).unwrap_or_default();
    println!("crowd: {events} events, {pages} pages, freshness p50 {} us of {}", fresh.1, fresh.0);
    Ok(())
}

/// Waits until the crowd has done as much again as says something; a busy machine takes its time.
fn acts_on(tally: &Tally) -> Result<()> {
    let done = || {
        let fresh = tally.freshness_us.lock().map(|h| h.len()).unwrap_or_default();
        [tally.events.load(Ordering::Relaxed), tally.pages.load(Ordering::Relaxed), fresh]
    };
    let (before, begun) = (done(), Instant::now());
    let enough = |now: [u64; 3]| now.iter().zip(before).zip([50, 10, 3]).all(|((n, b), more)| n - b > more);
    while !enough(done()) {
        ensure!(begun.elapsed() < Duration::from_secs(60), "the crowd hardly does anything: {:?}", done());
        ensure!(
            tally.errors.load(Ordering::Relaxed) == 0,
            "the crowd meets errors: {:?}",
            tally.first_errors
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Another model is promoted, then the former one again.
fn models_change(demo: &Demo, http: &Http, admin: &Http) -> Result<()> {
    let (registry, generation) = (&demo.server.registry, demo.server.generation());
    let former = champion(registry)?.context("no champion")?;
    let other = Model::new(demo.dir.config.model.clone(), &demo.dir.schema, 99)?;
    let manifest = Manifest::new(&other, &demo.dir.schema, 99);
    let version = publish(registry, &other, &manifest, Some(CHAMPION))?.to_string();
    serves(http, admin, &version, generation + 1)?;
    std::thread::sleep(Duration::from_millis(500));
    registry.set_alias(CHAMPION, &former)?;
    serves(http, admin, &former.to_string(), generation + 2)
}

/// Makes the server look at the registry: it serves `version` as its swap number `generation`, and says so.
fn serves(http: &Http, admin: &Http, version: &str, generation: u64) -> Result<()> {
    let reloaded = admin.json("POST", "/admin/v1/models/reload", None)?;
    let expected = json!({ "version": version, "generation": generation });
    for (name, value) in expected.as_object().into_iter().flatten() {
        ensure!(reloaded["current"][name] == *value, "{name} should be {value}: {reloaded}");
    }
    let page = http.json("GET", "/v1/feed?user=nobody&limit=3&deadline_ms=2000", None)?;
    ensure!(page["model"] == expected, "{page}");
    Ok(())
}

/// A turn of learning publishes; the gate decides. Both ways are right here, as so few rows judge it: what is served
/// and what is said must fit what it decided.
fn a_retraining_is_judged(demo: &Demo, http: &Http, admin: &Http) -> Result<()> {
    demo.server.flush_impressions();
    let registry = &demo.server.registry;
    let (former, generation) = (champion(registry)?.context("no champion")?, demo.server.generation());
    let before = registry.versions()?.len();
    let turn = Learner::new(&demo.dir, &demo.server.store, registry)?.turn(Some(Kind::Full))?;
    println!("{turn}");
    if let Some(version) = turn.version() {
        ensure!(turn.rows > 1_000 && turn.held_out > 0, "{turn:?}");
        ensure!(registry.versions()?.len() == before + 1 && version != former.to_string());
        if turn.promoted() {
            return serves(http, admin, version, generation + 1);
        }
    }
    let failures = &turn.refused().context("neither promoted nor refused")?.failures;
    ensure!(failures.iter().all(|f| f.to_string().chars().any(|c| c.is_ascii_digit())), "{turn}");
    serves(http, admin, &former.to_string(), generation)
}

fn metrics_tell_of_it(admin: &Http) -> Result<()> {
    let (status, text) = admin.text("GET", "/metrics", None)?;
    ensure!(status == 200, "{status}: {text}");
    let value = |name: &str| {
        let line = text.lines().find(|l| l.split(' ').next() == Some(name));
        line.and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
    };
    for name in ["lately_freshness_seconds_count", "lately_rank_seconds_count", "lately_log_records"] {
        ensure!(value(name) > Some(100.0), "{name}: {:?}", value(name));
    }
    for histogram in ["lately_freshness_seconds", "lately_rank_seconds"] {
        ensure!(text.contains(&format!("{histogram}_bucket{{le=\"0.05\"}}")), "no buckets of {histogram}");
    }
    let generation = value(r#"lately_model_generation{alias="champion"}"#);
    ensure!(generation >= Some(3.0), "{generation:?}");
    Ok(())
}

fn rank(http: &Http, user: &str, candidates: &[String]) -> Result<Value> {
    let ask = json!({ "user": user, "candidates": candidates, "surface": "home", "explain": true, "deadline_ms": 2000 });
    http.json("POST", "/v1/rank", Some(&ask))
}

fn act(http: &Http, user: &str, item: &str, action: &str, request: Option<&str>) -> Result<Value> {
    static NEXT: AtomicUsize = AtomicUsize::new(0); // the same person may save the same item in two steps
    let event = json!({
        "type": "action",
        "event_id": format!("test:{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        "user": user,
        "item": item,
        "action": action,
        "request": request,
    });
    let answer = http.json("POST", "/v1/events", Some(&json!({ "events": [event] })))?;
    ensure!(answer["accepted"] == 1 && answer["duplicates"] == 0, "{answer}");
    Ok(answer)
}

fn items(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().into_iter().flatten();
    items.filter_map(|i| i["item"].as_str().map(str::to_owned)).collect()
}

/// `chess-004` is of the topic `chess`.
fn topic(item: &str) -> &str {
    item.rsplit_once('-').map_or(item, |(topic, _)| topic)
}

fn mean_place(ranking: &Value, of: &str) -> f64 {
    let items = items(ranking);
    let places: Vec<usize> = (0..items.len()).filter(|i| topic(&items[*i]) == of).collect();
    places.iter().sum::<usize>() as f64 / places.len().max(1) as f64
}
