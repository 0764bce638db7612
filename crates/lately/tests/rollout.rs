//! Broken models are taken back while people act, as champion and as challenger; good ones stay, and are promoted.

#[path = "support/http.rs"]
mod http;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately::demo::crowd::Crowd;
use lately::demo::{Demo, DemoOptions, demo_toml};
use lately::device::TrainingDevice;
use lately::learn::{Plan, champion, learn};
use lately::wire_up::Server;
use lately::world::WorldConfig;
use lately_model::checkpoint;
use lately_store::Version;
use lately_store::registry::Change;
use lately_train::publish::{CHALLENGER, CHAMPION, publish};
use lately_train::{JoinOptions, TrainConfig, join_store};
use serde_json::Value;

use crate::http::Http;

/// Longest time in which a broken model must be gone.
const GONE: Duration = Duration::from_secs(60);
/// How long a good one must stay: longer than a broken one takes.
const STAYS: Duration = Duration::from_secs(20);
/// Rankings before anything is compared, twice over.
const RANKINGS: u64 = 300;

#[test]
fn broken_models_are_taken_back_and_good_ones_stay() -> Result<()> {
    let data = tempfile::tempdir()?;
    let demo = Demo::start(&small(data.path())?, &mut |line| println!("{line}"))?;
    let house = House {
        http: Http::new(format!("http://{}", demo.server.address)),
        admin: Http::new(format!("http://{}", demo.server.admin_address)),
        demo,
    };
    let second = house.another_seed()?;
    let base = format!("http://{}", house.demo.server.address);
    let crowd = Crowd::start(&house.demo.world, &base, 4, Duration::from_millis(10), 1)?;
    house.until("people have come", || Ok(crowd.tally.pages.load(Ordering::Relaxed) > RANKINGS))?;

    let first = champion(&house.demo.server.registry)?.context("no champion")?;
    house.a_broken_champion_is_rolled_back(&first)?;
    house.another_good_champion_stays(&second)?;
    house.a_broken_challenger_is_taken_away(&second)?;
    house.a_good_challenger_is_promoted(&first)?;

    let tally = crowd.stop();
    let errors = tally.first_errors.lock().map(|e| e.join("; ")).unwrap_or_default();
    ensure!(tally.errors.load(Ordering::Relaxed) == 0, "the crowd met errors: {errors}");
    house.demo.server.stop()
}

/// A small demo in which a canary has half of the people, and is promoted after 300 rankings.
fn small(dir: &Path) -> Result<DemoOptions> {
    let config = demo_toml().replace("[train]\n", "[train]\nseed = 1\n");
    let config = config.replace("batch_rows = 256", "batch_rows = 64");
    let canary = format!("[canary]\npromote = true\nminutes = 0\nrankings = {RANKINGS}\n");
    // People act at once on what they are shown.
    let guardrails = "[rank.guardrails]\nmaturity_seconds = 5\nmin_events = 20\n";
    // With the usual 200 ms a machine that is busy with other things would shed some, which no rollout can help.
    let rank = "[rank]\nexercise_share = 0.0\ncanary_share = 0.5\ndeadline_ms = 2000\n";
    let config = format!("{canary}{rank}{guardrails}{config}");
    DataDir::create(dir, &config)?;
    Ok(DemoOptions {
        dir: Some(dir.to_owned()),
        world: WorldConfig { users: 80, items: 200, topics: 8, ..WorldConfig::default() },
        days: 2,
        bind: "127.0.0.1:0".to_owned(),
        admin_bind: "127.0.0.1:0".to_owned(),
        bars: false,
    })
}

struct House {
    demo: Demo,
    http: Http,
    admin: Http,
}

impl House {
    /// As good as the first: of the same rows, by another seed.
    fn another_seed(&self) -> Result<Version> {
        let (dir, server) = (&self.demo.dir, &self.demo.server);
        let dataset = join_store(&server.store, &dir.schema, JoinOptions::default())?;
        let train = TrainConfig { seed: 2, ..dir.config.train.clone() };
        let (model, device) = (dir.config.model.clone(), TrainingDevice::default());
        let plan = Plan { model, train, device, start: None, parent: None, state: None };
        learn(&dataset.all(), &plan, false)?.publish(&server.registry, None)
    }

    /// A version with other weights, which is named by `alias` at once: they are finite, so it passes all checks.
    fn broken(&self, of: &Version, alias: &str, change: impl Fn(&str, &mut [f32])) -> Result<Version> {
        let registry = &self.demo.server.registry;
        let (mut model, manifest) = checkpoint::from_bytes(&registry.load(of)?)?;
        model.parameters_mut().for_each(|(name, data)| change(name, data));
        Ok(publish(registry, &model, &manifest, Some(alias))?)
    }

    fn a_broken_champion_is_rolled_back(&self, first: &Version) -> Result<()> {
        let (server, begin) = (&self.demo.server, Instant::now());
        let generation = server.generation();
        // Everything is a hundred times as likely as it is.
        let bad = self.broken(first, CHAMPION, |name, data| {
            if name == "heads.bias" {
                data.iter_mut().for_each(|x| *x += 4.0);
            }
        })?;
        self.until("the broken champion served and is gone", || Ok(server.generation() == generation + 2))?;
        println!("the broken champion was rolled back after {:.1} s", begin.elapsed().as_secs_f64());
        ensure!(champion_is(server, first)?);
        let undone = Change::Rollback { alias: CHAMPION.to_owned(), from: bad.clone(), to: first.clone() };
        ensure!(told(server, &undone)?, "the trail does not tell");
        let metrics = self.admin.text("GET", "/metrics", None)?.1;
        let breaches = metrics.lines().find(|l| l.starts_with("lately_guardrail_breaches_total"));
        println!("{}", breaches.context("the breach is not counted")?);

        // Whoever names it again, this server does not serve it.
        server.registry.set_alias(CHAMPION, &bad)?;
        let (status, answer) = self.admin.text("POST", "/admin/v1/models/reload", None)?;
        ensure!(status == 409 && answer.contains("was taken back (guardrail"), "{status}: {answer}");
        ensure!(server.model_version() == first.as_str());
        Ok(server.registry.set_alias(CHAMPION, first)?)
    }

    fn another_good_champion_stays(&self, second: &Version) -> Result<()> {
        let server = &self.demo.server;
        server.registry.set_alias(CHAMPION, second)?;
        self.until("the other model serves", || Ok(server.model_version() == second.as_str()))?;
        std::thread::sleep(STAYS);
        let watch = self.models()?["watch"].take();
        ensure!(server.model_version() == second.as_str(), "a good model was taken back: {watch}");
        ensure!(watch["version"] == second.as_str() && watch["rankings"].as_u64() > Some(100), "{watch}");
        println!("another seed stays: {}", surest(&watch)?);
        Ok(())
    }

    fn a_broken_challenger_is_taken_away(&self, champion: &Version) -> Result<()> {
        let (server, begin) = (&self.demo.server, Instant::now());
        // What is liked least comes first, and is all but certain to be liked.
        let bad = self.broken(champion, CHALLENGER, |name, data| {
            if name == "heads.weight" {
                data.iter_mut().for_each(|x| *x *= -4.0);
            }
        })?;
        self.until("a canary runs", || Ok(self.models()?["canary"]["share"] == 0.5))?;
        self.until("the broken challenger is gone", || Ok(server.registry.alias(CHALLENGER)?.is_none()))?;
        println!("the broken challenger was taken away after {:.1} s", begin.elapsed().as_secs_f64());
        ensure!(champion_is(server, champion)?, "the broken challenger was promoted");
        let models = self.models()?;
        ensure!(models["canary"].is_null() && models["challenger"].is_null(), "{models}");
        let gone = Change::Unalias { alias: CHALLENGER.to_owned(), from: bad };
        ensure!(told(server, &gone)?, "the trail does not tell");
        Ok(())
    }

    fn a_good_challenger_is_promoted(&self, first: &Version) -> Result<()> {
        let (server, begin) = (&self.demo.server, Instant::now());
        server.registry.set_alias(CHALLENGER, first)?;
        self.until("the good challenger is promoted", || Ok(server.model_version() == first.as_str()))?;
        println!("the good challenger was promoted after {:.1} s", begin.elapsed().as_secs_f64());
        ensure!(champion_is(server, first)?);
        ensure!(server.registry.alias(CHALLENGER)?.is_none() && self.models()?["canary"].is_null());
        Ok(())
    }

    fn models(&self) -> Result<Value> {
        self.http.json("GET", "/v1/models", None)
    }

    fn until(&self, what: &str, done: impl Fn() -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        while !done()? {
            ensure!(begin.elapsed() < GONE, "{what}: not within {GONE:?}; {}", self.models()?);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Whether the audit trail holds a change, and that it is for a guardrail.
fn told(server: &Server, change: &Change) -> Result<bool> {
    let guardrail = |reason: &Option<String>| reason.as_ref().is_some_and(|r| r.contains("guardrail"));
    Ok(server.registry.audit()?.iter().any(|r| r.change == *change && guardrail(&r.reason)))
}

fn champion_is(server: &Server, version: &Version) -> Result<bool> {
    Ok(champion(&server.registry)?.as_ref() == Some(version) && server.model_version() == version.as_str())
}

/// The guardrail that is nearest to a breach.
fn surest(watch: &Value) -> Result<String> {
    let evidence = |g: &&Value| g["evidence"].as_f64().unwrap_or(0.0);
    let all = watch["guardrails"].as_array().context("no guardrails")?;
    let surest = all.iter().max_by(|a, b| evidence(a).total_cmp(&evidence(b))).context("no reading")?;
    let shifts = all.iter().filter(|g| g["guardrail"] == "score").map(|g| g["value"].as_f64().unwrap_or(0.0));
    Ok(format!("{surest}, over {} rankings; shifts {:.2?}", watch["rankings"], shifts.collect::<Vec<_>>()))
}
