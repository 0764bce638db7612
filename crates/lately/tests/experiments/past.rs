//! An experiment of the last six days, read, planned and judged from its directory's log, with and without a server.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately::wire_up::Server;
use lately::world::SCHEMA;
use lately_features::{Action, Event, EventId, Impression, ImpressionItem, ItemId, RequestId, UserId};
use lately_rank::experiment::{Book, Change};
use lately_store::objects;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::run::{WORLD_END_MS, lately};

const DAY_MS: i64 = 86_400_000;
/// People, half of them in each variant, and the days before and since the start.
const PEOPLE: u32 = 400;
const DAYS: [i64; 2] = [14, 6];
/// Places of a list, all of them shuffled in a share of the lists.
const PLACES: usize = 5;
const EXPLORED: f64 = 0.5;

#[test]
fn a_directory_is_read_planned_and_judged_by_the_command_line() -> Result<()> {
    let (dir, saved) = directory()?;
    let picture = dir.path().join("lifts.svg");
    let read = lately("experiment report blend --data {} --plot {}", &[dir.path(), &picture])?;
    read.ended(
        0,
        &["experiment blend, day 6.0, against `off`", "200 people of planned 50.0 %", "! save_per_user"],
    )?;
    let svg = std::fs::read_to_string(&picture)?;
    ensure!(svg.contains("save_per_user (primary)") && svg.contains("hide_per_user (guardrail)"), "{svg}");
    let alone = report(dir.path())?;
    let comparisons = alone["comparisons"].as_array().context("no comparisons")?;
    let of = comparisons.iter().find(|c| c["metric"] == "save_per_user" && c["group"] == "all");
    let of = of.context("no saves")?;
    for (side, name) in [("control", "off"), ("variant", "on")] {
        let mean = of["plain"][side].as_f64().context("no mean")?;
        ensure!((mean - saved[name] / 200.0).abs() < 1e-9, "{name}: {mean}, not {}", saved[name] / 200.0);
    }
    ensure!(of["significant_at_any_look"] == true, "twice as many saves: {of}");
    ensure!(alone["series"].as_array().is_some_and(|days| days.len() == 6), "{}", alone["series"]);

    plans(dir.path())?;
    other_weights(dir.path())?;
    let server = Server::start(&DataDir::open(dir.path())?, "127.0.0.1:0", "127.0.0.1:0", None)?;
    ensure!(report(dir.path())? == alone, "a server has the directory open");
    server.stop()
}

fn report(dir: &Path) -> Result<Value> {
    let run = lately("experiment report blend --json --data {}", &[dir])?;
    run.ended(0, &[])?;
    Ok(serde_json::from_str(&run.out)?)
}

fn plans(dir: &Path) -> Result<()> {
    // 12 % against 13.2 %: 2 (1.96 + 0.8416)^2 0.12 0.88 / 0.012^2 = 11,512 people a side; 4,000 of 5,000 a day are in it.
    lately(
        "experiment power --baseline 0.12 --users-per-day 5000 --lift 0.1 --shares 0.4,0.4 --days 7,30",
        &[],
    )?
    .ended(0, &["one look   23024    6", "any look", "finds after 30 d"])?;
    let of_log = lately("experiment power --metric save_per_user --log-days 6 --data {}", &[dir])?;
    of_log.ended(0, &["401 people of the newest 6 days", "over 10 years"])?;
    for (arguments, said) in [
        ("--baseline 3 --users-per-day 10", "--baseline 3 is no share of the people: give --variance too"),
        ("--baseline 0.1", "give --users-per-day"),
        ("--baseline 0.1 --users-per-day 10 --lift 0", "--lift is 0: it must be above 0"),
        ("--baseline 0.1 --users-per-day 10 --power 80", "--power is 80: it must be above 0 and below 1"),
        ("--baseline 0.1 --users-per-day 10 --shares 0.9,0.9", "both together at most 1"),
    ] {
        lately(&format!("experiment power {arguments}"), &[])?.ended(1, &[said])?;
    }
    lately("experiment power --metric saves --data {}", &[dir])?
        .ended(1, &["there is no metric `saves`: name one of seen_per_user"])
}

fn other_weights(dir: &Path) -> Result<()> {
    let judged = |weights: &str| -> Result<Value> {
        let run = lately(&format!("experiment off-policy --json --weights {weights} --data {{}}"), &[dir])?;
        run.ended(0, &[])?;
        Ok(serde_json::from_str(&run.out)?)
    };
    // People save the item of the first place and no other one; which item that is decides how often.
    let (more, less) = (judged("save=1")?, judged("save=-1")?);
    let of = |judged: &Value, what: &str| {
        let value = &judged["actions"]["save"][what];
        value["value"].as_f64().with_context(|| format!("no {what}: {judged}"))
    };
    for estimate in ["ips", "snips", "doubly_robust"] {
        let (more, logged, less) = (of(&more, estimate)?, of(&more, "logged")?, of(&less, estimate)?);
        ensure!(more > logged && logged > less, "{estimate}: {more}, {logged}, {less}");
    }
    lately("experiment off-policy --weights save=1,click=0.2 --data {}", &[dir])?
        .ended(0, &["shuffled places, of 401 people", "doubly robust", "save"])?;
    for (arguments, said) in [
        ("--weights saved=1", "`saved`: the schema has click, save, hide"),
        ("--weights save", "write it like save=1.0"),
        ("--weights save=1 --from 2030-01-01", "set share under [rank.explore]"),
    ] {
        let run = lately(&format!("experiment off-policy {arguments} --data {{}}"), &[dir])?;
        ensure!(run.code != 0 && run.err.contains(said), "{arguments}: {}", run.err);
    }
    Ok(())
}

/// The directory, and how often the people of each variant saved since the start.
fn directory() -> Result<(TempDir, BTreeMap<&'static str, f64>)> {
    let dir = tempfile::tempdir()?;
    let data = DataDir::create(dir.path(), &format!("[schema]\n{SCHEMA}"))?;
    let start_ms = WORLD_END_MS - DAYS[1] * DAY_MS;
    let mut book = Book::default();
    let definition = json!({"name": "blend", "variants": [{"name": "off"}, {"name": "on"}]});
    book.apply(&Change::Declare(serde_json::from_value(definition)?), start_ms)?;
    book.apply(&Change::Start { name: "blend".to_owned(), ramp: 1.0 }, start_ms)?;
    let objects = objects::open(&dir.path().join("registry").to_string_lossy())?;
    ensure!(objects.swap("experiments/book.json", None, &serde_json::to_vec(&book)?)?, "there is a book");
    let (store, mut random) = (data.store()?, ChaCha8Rng::seed_from_u64(5));
    let mut saved = BTreeMap::new();
    for day in -DAYS[0]..DAYS[1] {
        let mut events = Vec::new();
        for person in 0..PEOPLE {
            let variant = ["off", "on"][(person % 2) as usize];
            let time_ms = start_ms + day * DAY_MS + i64::from(person) * 60_000;
            let saves = visit(person, time_ms, (day >= 0).then_some(variant), &mut random, &mut events)?;
            if day >= 0 {
                *saved.entry(variant).or_default() += saves;
            }
        }
        store.append(events)?;
    }
    // Time goes on to the end of the last day.
    let mut after = Vec::new();
    visit(PEOPLE, WORLD_END_MS, None, &mut random, &mut after)?;
    store.append(after)?;
    Ok((dir, saved))
}

/// One list and what came of it; returns how often something was saved.
fn visit(
    person: u32,
    time_ms: i64,
    variant: Option<&str>,
    random: &mut ChaCha8Rng,
    events: &mut Vec<Event>,
) -> Result<f64> {
    let (user, request) =
        (UserId::new(format!("u{person}"))?, RequestId::new(format!("r{person}-{time_ms}"))?);
    let mut from: Vec<usize> = (0..PLACES).collect();
    if random.random_bool(EXPLORED) {
        (1..PLACES).rev().for_each(|i| from.swap(i, random.random_range(0..=i)));
    }
    // The better by the model, the higher: but where the list was shuffled.
    let chance = |item: usize| 0.2 / (1.0 + item as f64);
    let items = from.iter().enumerate().map(|(place, item)| {
        let heads = vec![0.5, chance(*item) as f32, 0.01];
        let item_id = ItemId::new(format!("i{item}"))?;
        Ok(ImpressionItem { item: item_id, position: place as u16, heads, score: chance(*item) as f32 })
    });
    let propensity = |(place, item): (usize, &usize)| {
        let own = if place == *item { 1.0 - EXPLORED } else { 0.0 };
        (own + EXPLORED / PLACES as f64) as f32
    };
    let shown =
        Impression::outside(request.clone(), user.clone(), None, time_ms, items.collect::<Result<_>>()?);
    let propensities = from.iter().enumerate().map(propensity).collect();
    let variant = variant.map(|variant| format!("blend={variant}"));
    let twice = if variant.as_deref() == Some("blend=on") { 2.0 } else { 1.0 };
    events.push(Event::Impression(Impression { variant, propensities, ..shown }));
    // Some people do more of everything, so that the past says something.
    let keen = 0.4 + 1.2 * f64::from(person % 7) / 6.0;
    let mut did = |action: &str, chance: f64| -> Result<f64> {
        if !random.random_bool(chance.min(1.0)) {
            return Ok(0.0);
        }
        events.push(Event::Action(Action {
            event_id: EventId::new(format!("{person}-{time_ms}-{action}"))?,
            user: user.clone(),
            item: ItemId::new(format!("i{}", from[0]))?,
            action: action.to_owned(),
            time_ms: time_ms + 20_000,
            request: Some(request.clone()),
            surface: None,
        }));
        Ok(1.0)
    };
    did("click", 0.3 * keen)?;
    did("hide", 0.05)?;
    did("save", twice * keen * chance(from[0]))
}
