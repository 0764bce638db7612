//! The watch over a world whose senders break, and a replay of many rankings that were really made.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use lately::data_dir::DataDir;
use lately::watch::{Reason, Watch, WatchReport};
use lately::wire_up::now_ms;
use lately::world::{SCHEMA, World, WorldConfig};
use lately_features::{Event, EventId, FeatureValue, ItemId};
use lately_model::{Engine, Manifest, Model, ModelConfig, ServingPrecision, checkpoint};
use lately_rank::{ModelSlot, RankConfig, RankRequest, Ranker};
use lately_server::install_metrics;
use lately_store::Store;
use lately_train::drift::Profile;
use lately_train::publish::{CHAMPION, publish};
use lately_train::replay::{Logged, ReplayReport, replay};
use lately_train::{DateRange, JoinOptions, join_store};
use tempfile::TempDir;

const DAY_MS: i64 = 86_400_000;

/// Three days of a world that end now, the items sent anew in the middle of the last as `change` makes them, and an
/// untrained model with the profile of the first two.
fn world(change: &dyn Fn(&mut lately_features::Item)) -> Result<(TempDir, Watch)> {
    let temporary = tempfile::tempdir()?;
    let toml = format!("[watch]\nhours = 12\nminutes = 0\n[schema]\n{SCHEMA}");
    let dir = DataDir::create(temporary.path(), &toml)?;
    let store = Arc::new(dir.store()?);
    let world =
        World::new(WorldConfig { users: 150, items: 300, topics: 12, seed: 5, ..WorldConfig::default() })?;
    let (end, start) = (now_ms(), now_ms() - 3 * DAY_MS);
    let noon = end - DAY_MS / 2;
    let (before, after) = world.bootstrap(3, end)?.into_iter().partition(|e| e.time_ms() < noon);
    let mut changed = world.items(noon);
    changed.iter_mut().for_each(|e| {
        if let Event::Item(item) = e {
            change(item)
        }
    });
    for events in [world.items(start), world.users(start), before, changed, after] {
        store.append(events)?;
    }
    let dataset = join_store(&store, &dir.schema, JoinOptions::default())?;
    let trained = dataset.slice(DateRange { start_ms: start, end_ms: start + 2 * DAY_MS });
    let registry = dir.registry()?;
    let model = Model::new(ModelConfig { hidden: vec![8], ..ModelConfig::default() }, &dir.schema, 1)?;
    let manifest = Manifest {
        profile: Some(Profile::of(&trained).to_json()?),
        data_range_ms: Some((start, start + 2 * DAY_MS)),
        ..Manifest::new(&model, &dir.schema, 1)
    };
    publish(&registry, &model, &manifest, Some(CHAMPION))?;
    let watch = Watch::new(&dir, &store, &registry);
    Ok((temporary, watch))
}

fn crossed(report: &WatchReport) -> Vec<&str> {
    let bounds = lately_train::drift::Bounds { psi: report.config.psi, coverage: report.config.coverage };
    report.findings.drift.iter().filter(|d| d.crossed(&bounds)).map(|d| d.name.as_str()).collect()
}

#[test]
fn a_world_that_stays_as_it_was_raises_no_alarm() -> Result<()> {
    let (_data, watch) = world(&|_| ())?;
    ensure!(watch.report().is_none(), "nobody looked yet");
    let report = watch.look()?;
    ensure!(crossed(&report).is_empty(), "{:#?}", report.findings.drift);
    ensure!(report.warnings().is_empty() && report.demands_retrain().is_none(), "{:?}", report.warnings());
    let census = &report.findings.census;
    ensure!(census.impressions > 100 && census.busy == 0 && census.actions.len() >= 12, "{census:?}");
    ensure!(report.findings.drift.len() == 11, "4 + 3 of users + 4 of items: {:#?}", report.findings.drift);
    ensure!(watch.report().context("kept")?.findings.end_ms == report.findings.end_ms, "another report");
    Ok(())
}

#[test]
fn a_feature_that_is_no_longer_sent_is_named_and_nothing_else() -> Result<()> {
    let metrics = install_metrics()?;
    let (data, watch) = world(&|item| drop(item.features.remove("author")))?;
    ensure!(watch.demands_retrain()?.is_none(), "nobody looked yet");
    let report = watch.look()?;
    ensure!(crossed(&report) == ["item.author"], "{:#?}", report.findings.drift);
    let reason = report.demands_retrain().context("no reason")?;
    let fits = |r: &Reason| matches!(r, Reason::Coverage { feature, before, now } if feature == "item.author" && *before > 0.99 && *now < 0.01);
    ensure!(fits(&reason), "{reason:?}");
    ensure!(report.warnings()[0].starts_with("item.author is there in "), "{:?}", report.warnings());
    let text = metrics.render();
    for line in [
        "lately_feature_coverage{feature=\"item.author\"} ",
        "lately_drift_psi{feature=\"user.country\"} 0.",
        "lately_action_share{action=\"click\"} 0.",
        "lately_model_age_seconds{since=\"data\"} ",
        "lately_replay_mismatches_total 0",
    ] {
        ensure!(text.contains(line), "no {line} in {text}");
    }
    ensure!(watch.demands_retrain()? == Some(reason), "{:?}", watch.demands_retrain()?);
    // What was found of one champion says nothing of the next.
    let dir = DataDir::open(data.path())?;
    let next = Model::new(ModelConfig { hidden: vec![8], ..ModelConfig::default() }, &dir.schema, 2)?;
    publish(&dir.registry()?, &next, &Manifest::new(&next, &dir.schema, 2), Some(CHAMPION))?;
    ensure!(watch.demands_retrain()?.is_none(), "{:?}", watch.demands_retrain()?);
    Ok(())
}

#[test]
fn a_number_in_another_unit_is_named_and_nothing_else() -> Result<()> {
    let (_data, watch) = world(&|item| {
        if let Some(FeatureValue::Number(days)) = item.features.get_mut("age_days") {
            *days *= 24.0;
        }
    })?;
    let report = watch.look()?;
    ensure!(crossed(&report) == ["item.age_days"], "{:#?}", report.findings.drift);
    ensure!(matches!(report.demands_retrain(), Some(Reason::Drift { .. })), "{:?}", report.reasons());
    Ok(())
}

#[test]
fn an_old_model_is_a_reason_too() -> Result<()> {
    let (_data, watch) = world(&|_| ())?;
    let mut report = (*watch.look()?).clone();
    report.config.age_hours = 23;
    ensure!(
        matches!(report.demands_retrain(), Some(Reason::Age { bound: 23, .. })),
        "{:?}",
        report.reasons()
    );
    report.config.age_hours = 25;
    ensure!(report.demands_retrain().is_none(), "{:?}", report.reasons());
    Ok(())
}

/// Rankings that are made, and made again: the whole number in a release build, a tenth where the code is slow.
const RANKINGS: usize = if cfg!(debug_assertions) { 1_000 } else { 10_000 };
/// Candidates of each.
const CANDIDATES: usize = 8;

/// A person's list, then what they do with it: so the log moves between and during rankings.
fn rank_and_act(ranker: &Ranker, store: &Store, world: &World, n: usize) -> Result<()> {
    let (users, items) = (world.user_ids(), world.item_ids());
    let user = &users[n % users.len()];
    let candidates: Vec<ItemId> =
        (0..CANDIDATES).map(|i| items[(n * 31 + i * 7) % items.len()].clone()).collect();
    let ranking = ranker.rank(RankRequest::new(user.clone(), candidates))?;
    ensure!(ranking.degraded.is_empty(), "{:?}", ranking.degraded);
    let action = |(i, name): (usize, &str)| -> Result<Event> {
        Ok(Event::Action(lately_features::Action {
            event_id: EventId::new(format!("{n}-{i}"))?,
            user: user.clone(),
            item: ranking.items[i].item.clone(),
            action: name.to_owned(),
            time_ms: now_ms(),
            request: Some(ranking.request.clone()),
            surface: None,
        }))
    };
    let mut events = ["seen", "click", "save"].into_iter().enumerate().take(1 + n % 3);
    let mut events = events.by_ref().map(action).collect::<Result<Vec<_>>>()?;
    if n.is_multiple_of(10) {
        // An item changes while others rank it.
        let mut changed = world.items(now_ms()).swap_remove(n * 13 % items.len());
        if let Event::Item(item) = &mut changed {
            item.features.insert("age_days".to_owned(), FeatureValue::Number(n as f64 / 100.0));
        }
        events.push(changed);
    }
    store.append(events)?;
    Ok(())
}

#[test]
fn thousands_of_rankings_are_made_again_to_the_bit() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = DataDir::create(temporary.path(), &format!("[schema]\n{SCHEMA}"))?;
    let store = Arc::new(dir.store()?);
    let world =
        World::new(WorldConfig { users: 60, items: 200, topics: 8, seed: 2, ..WorldConfig::default() })?;
    store.append(world.items(now_ms() - DAY_MS))?;
    store.append(world.users(now_ms() - DAY_MS))?;
    let registry = dir.registry()?;
    let model = Model::new(ModelConfig { hidden: vec![32], ..ModelConfig::default() }, &dir.schema, 1)?;
    let version =
        publish(&registry, &model, &Manifest::new(&model, &dir.schema, 1), Some(CHAMPION))?.to_string();
    let slot = Arc::new(ModelSlot::new(Arc::clone(&dir.schema)));
    slot.swap_bytes(&version, &registry.load(&version.parse()?)?)?;
    let config = RankConfig { exercise_share: 0.0, deadline_ms: 5_000, ..RankConfig::default() };
    let ranker = Ranker::new(Arc::clone(&store), slot, Arc::clone(&dir.schema), config)?;
    // Two at a time, so that one's actions fall between the other's watermark and impression.
    let half =
        |odd: usize| (0..RANKINGS / 2).try_for_each(|n| rank_and_act(&ranker, &store, &world, 2 * n + odd));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        half(0)?;
        other.join().map_err(|_| anyhow::anyhow!("a ranking panicked"))?
    })?;
    ranker.flush_impressions();

    let mut logged = HashMap::new();
    let mut from = 0;
    loop {
        let page = store.read(from, 4_096)?;
        let Some((last, _)) = page.last() else { break };
        from = last + 1;
        for (offset, event) in page {
            if let Event::Impression(impression) = event {
                logged.extend(Logged::new(&impression).map(|l| (offset, l)));
            }
        }
    }
    let dataset = join_store(&store, &dir.schema, JoinOptions::default())?;
    ensure!(dataset.stats.unknowable == 0 && dataset.stats.degraded == 0, "{:?}", dataset.stats);
    let again = |model| -> Result<ReplayReport> {
        let mut report = ReplayReport::new(ReplayReport::BOUND);
        replay(
            &dataset.all(),
            &logged,
            &Engine::new(Arc::new(model), ServingPrecision::F32),
            &version,
            &mut report,
        )?;
        Ok(report)
    };
    let report = again(checkpoint::from_bytes(&registry.load(&version.parse()?)?)?.0)?;
    println!("{report:?}");
    ensure!((report.requests, report.rows) == (RANKINGS, RANKINGS * CANDIDATES), "{report:?}");
    ensure!(report.holds() && report.worst <= ReplayReport::BOUND, "{report:?}");
    // A weight that moved by one part in a thousand is seen.
    let mut moved = model;
    moved.parameters_mut().for_each(|(_, data)| data.iter_mut().for_each(|w| *w *= 1.001));
    ensure!(!again(moved)?.holds(), "another model goes unnoticed");
    Ok(())
}
