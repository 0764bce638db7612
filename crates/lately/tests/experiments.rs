//! An experiment as a new user drives it, over HTTP and by the command line: declare, start, ramp, look, stop.

#[path = "support/http.rs"]
mod http;
#[path = "experiments/past.rs"]
mod past;
#[path = "support/run.rs"]
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately::wire_up::Server;
use lately_features::Event;
use serde_json::{Value, json};

use crate::http::Http;
use crate::run::{lately, small_world};

/// People of the world; `run::small_world` has so many.
const PEOPLE: usize = 30;

struct House {
    data: Http,
    admin: Http,
    server: Server,
}

#[test]
fn an_experiment_is_declared_started_ramped_and_stopped_over_http() -> Result<()> {
    let dir = small_world()?;
    lately("train --data {}", &[dir.path()])?.ended(0, &["as champion"])?;
    let house = house(dir.path())?;
    let definition = json!({
        "name": "saves-first", "hypothesis": "more saves",
        "variants": [
            {"name": "control"},
            {"name": "saves", "overrides": {"value_model": {"weights": {"save": 2.0}}}},
        ],
    });
    let (status, text) = house.admin.text("POST", "/admin/v1/experiments", Some(&definition))?;
    ensure!(status == 201, "{status}: {text}");
    ensure!(house.variants(None)?.is_empty(), "nobody is in a draft");
    for (name, expected, said) in
        [("saves-first", 409, "is draft: nobody is in it"), ("saves-last", 404, "declare it first")]
    {
        let (status, text) =
            house.admin.text("GET", &format!("/admin/v1/experiments/{name}/report"), None)?;
        ensure!(status == expected && text.contains(said), "{name}: {status}: {text}");
    }
    house.a_draft_is_tried_out()?;

    house.to("start", json!({"ramp": 0.4}))?;
    let some = house.variants(None)?;
    ensure!((1..PEOPLE).contains(&some.len()), "{some:?}");
    house.to("ramp", json!({"ramp": 1.0}))?;
    let all = house.variants(None)?;
    ensure!(all.len() == PEOPLE, "{all:?}");
    ensure!(some.iter().all(|(user, variant)| all[user] == *variant), "a ramp changes nobody's variant");
    let both: BTreeSet<&str> = all.values().map(String::as_str).collect();
    ensure!(both == BTreeSet::from(["control", "saves"]), "{both:?}");
    house.what_is_refused_says_what_to_do()?;
    let report = house.a_report_counts_who_was_shown_and_what_they_did(&all)?;

    house.to("stop", json!({}))?;
    let stopped = house.admin.json("GET", "/admin/v1/experiments/saves-first/report", None)?;
    for part in ["users", "comparisons"] {
        ensure!(stopped[part] == report[part], "the end changes nothing: {stopped}");
    }
    ensure!(house.variants(None)?.is_empty(), "stopped for all");
    let book = house.admin.json("GET", "/admin/v1/experiments", None)?;
    ensure!(book["experiments"][0]["state"] == "stopped" && book["revision"] == 4, "{book}");
    house.exposures_are_in_the_log(&all)?;
    house.server.stop()
}

#[test]
fn a_server_follows_the_command_line_and_another_one_comes_up_with_the_same_book() -> Result<()> {
    let dir = small_world()?;
    lately("train --data {}", &[dir.path()])?.ended(0, &["as champion"])?;
    let file = dir.path().join("spacing.toml");
    std::fs::write(
        &file,
        "name = \"models\"\nvariants = [{ name = \"control\" }, { name = \"new\", overrides = { model = \"next\" } }]\n",
    )?;
    lately("experiment declare {} --data {}", &[&file, dir.path()])?.ended(0, &["models", "draft"])?;
    lately("experiment start models --data {}", &[dir.path()])?
        .ended(1, &["no version has that alias", "promote VERSION --alias next"])?;
    let registry = DataDir::open(dir.path())?.registry()?;
    let version = registry.alias("champion")?.context("no champion")?;
    let house = house(dir.path())?;
    registry.set_alias("next", &version)?;
    lately("experiment start models --ramp 1 --data {}", &[dir.path()])?.ended(0, &["running", "100 %"])?;
    let begin = Instant::now();
    while house.variants(None)?.len() != PEOPLE {
        ensure!(begin.elapsed() < Duration::from_secs(30), "the server does not follow");
        std::thread::sleep(Duration::from_millis(100));
    }
    let before = house.variants(None)?;
    house.server.stop()?;
    let again = self::house(dir.path())?;
    ensure!(again.variants(None)? == before, "another server says the same");
    lately("experiment holdout 0.999999 --data {}", &[dir.path()])?.ended(0, &["100.0 % of the people"])?;
    lately("experiment remove models --data {}", &[dir.path()])?.ended(1, &["is running: stop it first"])?;
    again.server.stop()
}

fn house(dir: &Path) -> Result<House> {
    let server = Server::start(&DataDir::open(dir)?, "127.0.0.1:0", "127.0.0.1:0", None)?;
    let http = |address| Http::new(format!("http://{address}"));
    Ok(House { data: http(server.address), admin: http(server.admin_address), server })
}

impl House {
    /// Does something to the experiment.
    fn to(&self, what: &str, body: Value) -> Result<Value> {
        let body = (body != json!({})).then_some(body);
        self.admin.json("POST", &format!("/admin/v1/experiments/saves-first/{what}"), body.as_ref())
    }

    /// The variants of all people that are in one, by a feed of each.
    fn variants(&self, forced: Option<&str>) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for number in 0..PEOPLE {
            let forced = forced.map_or_else(String::new, |f| format!("&variants={f}"));
            // The longest that there is: who is in what is asked, not how fast a busy machine answers.
            let path = format!("/v1/feed?user=user-{number:04}&limit=5&deadline_ms=5000{forced}");
            let feed = self.data.json("GET", &path, None)?;
            let first = feed["experiments"].as_object().and_then(|e| e.values().next().cloned());
            if let Some(Value::String(variant)) = first {
                all.insert(format!("user-{number:04}"), variant);
            }
        }
        Ok(all)
    }

    fn a_draft_is_tried_out(&self) -> Result<()> {
        let forced = self.variants(Some("saves-first:saves"))?;
        ensure!(forced.len() == PEOPLE && forced.values().all(|v| v == "saves"), "{forced:?}");
        let ask = json!({"user": "user-0001", "candidates": ["astronomy-001"], "explain": true, "deadline_ms": 5000,
            "variants": {"saves-first": "saves"}});
        let ranked = self.data.json("POST", "/v1/rank", Some(&ask))?;
        ensure!(ranked["explain"]["weights"]["save"] == 2.0, "{ranked}");
        Ok(())
    }

    fn what_is_refused_says_what_to_do(&self) -> Result<()> {
        let path = "/admin/v1/experiments";
        let other = json!({"name": "other", "variants": [{"name": "a"}, {"name": "b"}]});
        let odd = json!({"name": "odd", "layer": "x", "variants": [
            {"name": "a"}, {"name": "b", "overrides": {"select": {"topic_runs": 1}}}]});
        let cases = [
            ("POST", path.to_owned(), Some(other), 409, "take a smaller share"),
            ("POST", path.to_owned(), Some(odd), 422, "unknown field `topic_runs`"),
            ("POST", format!("{path}/none/stop"), None, 404, "declare it first"),
            (
                "POST",
                format!("{path}/saves-first/start"),
                Some(json!({"ramp": 1.0})),
                409,
                "declare a new one",
            ),
            ("POST", format!("{path}/saves-first/ramp"), Some(json!({"ramp": 7.0})), 422, "at most 1"),
            ("DELETE", format!("{path}/saves-first"), None, 409, "stop it first"),
        ];
        for (method, path, body, expected, said) in cases {
            let (status, text) = self.admin.text(method, &path, body.as_ref())?;
            ensure!(status == expected && text.contains(said), "{method} {path}: {status}: {text}");
        }
        let (status, text) = self.data.text("GET", "/v1/feed?user=u&variants=saves-first:sevas", None)?;
        ensure!(status == 422 && text.contains("it has control, saves"), "{status}: {text}");
        Ok(())
    }

    /// Everybody saves once before the report; in `saves` all save once more, and every second person twice, as an
    /// estimate asks for people who differ.
    fn a_report_counts_who_was_shown_and_what_they_did(
        &self,
        all: &BTreeMap<String, String>,
    ) -> Result<Value> {
        let path = "/admin/v1/experiments/saves-first/report";
        self.server.flush_impressions();
        let first = self.admin.json("GET", path, None)?;
        ensure!(first["comparisons"].as_array().is_some_and(|c| !c.is_empty()), "lists were shown: {first}");
        let mut saves: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut events = Vec::new();
        for (number, (user, variant)) in all.iter().enumerate() {
            let count = 1 + (number % 2) + if variant == "saves" { 2 } else { 0 };
            saves.entry(variant).or_default().push(count as f64);
            events.extend((0..count).map(|n| {
                json!({"type": "action", "event_id": format!("{user}-{n}"), "user": user, "item": "astronomy-001",
                    "action": "save"})
            }));
        }
        self.data.json("POST", "/v1/events", Some(&json!({"events": events})))?;
        let report = self.admin.json("GET", path, None)?;
        for (at, variant) in ["control", "saves"].into_iter().enumerate() {
            let users = &report["users"][at];
            ensure!(users["variant"] == variant && users["users"] == saves[variant].len(), "{users}");
        }
        let comparisons = report["comparisons"].as_array().context("no comparisons")?;
        let of = comparisons.iter().find(|c| c["group"] == "all" && c["metric"] == "save_per_user");
        let of = of.with_context(|| format!("no save_per_user: {report}"))?;
        let mean = |variant: &str| saves[variant].iter().sum::<f64>() / saves[variant].len() as f64;
        for (side, variant) in [("control", "control"), ("variant", "saves")] {
            let got = of["plain"][side].as_f64().context("no mean")?;
            ensure!((got - mean(variant)).abs() < 1e-9, "{variant}: {got} for {}", mean(variant));
        }
        ensure!(of["role"] == "primary" && of["significant"] == true, "{of}");
        let url = format!("http://{}{path}", self.server.admin_address);
        let table = ureq::get(url).header("accept", "text/plain").call()?.body_mut().read_to_string()?;
        ensure!(table.contains("! save_per_user") && table.contains("WARNING `control` has"), "{table}");
        Ok(report)
    }

    /// Who was served while it ran is logged with their variant, and nobody else.
    fn exposures_are_in_the_log(&self, all: &BTreeMap<String, String>) -> Result<()> {
        self.server.flush_impressions();
        let mut seen = 0;
        let records = self.server.store.read(0, 1_000_000)?;
        for (_, event) in records {
            let Event::Impression(impression) = event else { continue };
            let Some(logged) = impression.variant else { continue };
            ensure!(logged == format!("saves-first={}", all[impression.user.as_str()]), "{logged}");
            seen += 1;
        }
        ensure!((PEOPLE + 1..2 * PEOPLE).contains(&seen), "{seen} exposures");
        Ok(())
    }
}
