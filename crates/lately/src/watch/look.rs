//! One look at the log: the newest hours against what the champion was trained on, and against what it said.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context, Result};
use lately_features::{Event, ItemVectors};
use lately_model::Manifest;
use lately_rank::RankPrecision;
use lately_store::Registry;
use lately_train::drift::served::{HeadServed, calibration, label_delay_ms};
use lately_train::drift::{Drift, Profile};
use lately_train::join::{JoinError, JoinStats, Joiner};
use lately_train::replay::{Logged, ReplayReport};
use lately_train::{Dataset, DateRange, JoinOptions, Slice};
use serde::Serialize;

use super::census::{Census, Counter, HOUR_MS};
use super::config::WatchConfig;
use crate::data_dir::DataDir;
use crate::device::replay_bound;
use crate::learn::champion;
use crate::log_source::OnRecord;
use crate::replayed;

/// Rows of a look at most; where the hours hold more, half of them are taken. 64 bytes a row while joining, and about
/// 100 of what was logged.
const MAX_ROWS: usize = 1_000_000;
/// Tokens of a look at most, 24 bytes each.
const MAX_TOKENS: usize = 10_000_000;
/// Labels are waited for this long at most, hours: rows of so much more of the log are joined.
const MAX_DELAY_HOURS: i64 = 48;
/// Versions of which rankings are made again: one is loaded at a time.
const MAX_VERSIONS: usize = 3;

/// Why there is no drift where there is no champion, which is no trouble.
pub(crate) const NO_CHAMPION: &str = "there is no champion";

/// The model that serves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChampionFacts {
    /// Its version.
    pub version: String,
    /// When it was published, ms since 1970 UTC.
    pub published_ms: i64,
    /// First and last time of its training rows.
    pub data_range_ms: Option<(i64, i64)>,
    /// Its item vectors; empty: what items were sent with.
    pub embedding_version: String,
}

/// Items shown in the window, and those without a vector in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VectorCoverage {
    /// Items.
    pub items: u64,
    /// Items that the table does not have: they have a predicted vector, or none.
    pub without: u64,
}

/// What a look found.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// End of the window, ms since 1970 UTC.
    pub end_ms: i64,
    /// Its length, hours: less than asked for where that held too many rows.
    pub hours: u32,
    /// Counts of the log.
    pub census: Census,
    /// What the join counted, over the whole log.
    pub join: JoinStats,
    /// The model that serves; `None`: there is no champion.
    pub champion: Option<ChampionFacts>,
    /// Every feature now against training, the worst first.
    pub drift: Vec<Drift>,
    /// Why `drift` is empty.
    pub no_drift: Option<String>,
    /// What was said against what followed, by head.
    pub calibration: Vec<HeadServed>,
    /// Heads whose labels take longer than is waited for, so that their observed rates are too low.
    pub unripe: Vec<String>,
    /// Coverage of the table of item vectors; `None`: items have what they were sent with.
    pub vectors: Option<VectorCoverage>,
    /// The newest rankings, made again, by version.
    pub replay: BTreeMap<String, ReplayReport>,
    /// Versions that could not be made again, and why.
    pub not_replayed: Vec<String>,
}

/// What is looked at.
pub(crate) struct Asked<'a> {
    pub(crate) dir: &'a DataDir,
    /// `None`: there is none yet.
    pub(crate) registry: Option<&'a Registry>,
    pub(crate) config: &'a WatchConfig,
    /// End of the window, ms since 1970 UTC.
    pub(crate) end_ms: i64,
    /// Rows at most.
    max_rows: usize,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(
        dir: &'a DataDir,
        registry: Option<&'a Registry>,
        config: &'a WatchConfig,
        end_ms: i64,
    ) -> Self {
        Self { dir, registry, config, end_ms, max_rows: MAX_ROWS }
    }
}

/// Hands over the log, record by record.
pub(crate) type Read<'a> = dyn FnMut(&mut OnRecord<'_>) -> Result<()> + 'a;

/// The champion with all that its rows are judged by.
struct Found {
    facts: ChampionFacts,
    manifest: Manifest,
    vectors: Option<Arc<ItemVectors>>,
}

fn served(dir: &DataDir, registry: Option<&Registry>) -> Result<Option<Found>> {
    let Some(registry) = registry else { return Ok(None) };
    let Some(version) = champion(registry)? else { return Ok(None) };
    let info = registry.versions()?.into_iter().find(|info| info.version == version);
    let info = info.with_context(|| format!("{version} is not in the registry: promote another"))?;
    let manifest: Manifest = serde_json::from_value(info.manifest).context("its manifest")?;
    let vectors = dir.embedding(&manifest.embedding_version)?.map(|e| e.vectors);
    let facts = ChampionFacts {
        version: version.to_string(),
        published_ms: info.published_ms,
        data_range_ms: manifest.data_range_ms,
        embedding_version: manifest.embedding_version.clone(),
    };
    Ok(Some(Found { facts, manifest, vectors }))
}

/// Reads the log once, or again for half of the hours where they hold too many rows.
pub(crate) fn look(asked: &Asked<'_>, read: &mut Read<'_>) -> Result<Findings> {
    let mut hours = asked.config.hours;
    loop {
        match look_once(asked, hours, read) {
            Err(error) if hours > 1 && is_too_large(&error) => hours /= 2,
            done => return done,
        }
    }
}

fn is_too_large(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<JoinError>(), Some(JoinError::TooLarge { .. }))
}

fn look_once(asked: &Asked<'_>, hours: u32, read: &mut Read<'_>) -> Result<Findings> {
    let Asked { dir, registry, config, end_ms, max_rows } = *asked;
    let window_ms = i64::from(hours) * HOUR_MS;
    let delays = label_delay_ms(&dir.schema);
    let waits: Vec<i64> = delays.iter().map(|d| (*d).min(MAX_DELAY_HOURS * HOUR_MS)).collect();
    let wait_ms = waits.iter().copied().max().unwrap_or(0);
    let range = DateRange { start_ms: end_ms - window_ms - wait_ms, end_ms: end_ms.saturating_add(1) };

    let found = served(dir, registry);
    let vectors = found.as_ref().ok().and_then(|f| f.as_ref()?.vectors.clone());
    let limits = JoinOptions { max_rows, max_tokens: MAX_TOKENS, ..JoinOptions::default() };
    let options = JoinOptions { range, vectors: vectors.clone(), ..limits };
    let mut joiner = Joiner::new(&dir.schema, options)?;
    let mut counter = Counter::new(&dir.schema, end_ms - window_ms, end_ms, config.user_actions_per_hour);
    let mut logged = HashMap::new();
    read(&mut |offset, event| {
        counter.add(&event);
        if let Event::Impression(impression) = &event
            && range.contains(impression.time_ms)
        {
            logged.extend(Logged::new(impression).map(|l| (offset, l)));
        }
        Ok(joiner.push(offset, event)?)
    })?;
    let dataset = joiner.finish();
    let recent = dataset.slice(DateRange { start_ms: end_ms - window_ms, ..range });
    let ripe = dataset.slice(DateRange { start_ms: range.start_ms, end_ms: end_ms - wait_ms });
    let (drift, no_drift) = match &found {
        Ok(Some(found)) => drifted(&found.manifest, &recent, &ripe, config),
        Ok(None) => (Vec::new(), Some(NO_CHAMPION.to_owned())),
        Err(error) => (Vec::new(), Some(format!("the champion cannot be read: {error:#}"))),
    };
    let (replay, not_replayed) = replays(asked, &dataset, &logged);
    let heads = dir.schema.heads.iter().zip(delays.iter().zip(&waits));
    Ok(Findings {
        end_ms,
        hours,
        census: counter.finish(),
        calibration: calibration(&dataset.all(), &logged, end_ms, window_ms, &waits),
        unripe: heads.filter(|(_, (delay, wait))| delay > wait).map(|(h, _)| h.name.clone()).collect(),
        vectors: vectors.map(|v| covered(&recent, &v)),
        join: dataset.stats.clone(),
        champion: found.ok().flatten().map(|f| f.facts),
        drift,
        no_drift,
        replay,
        not_replayed,
    })
}

/// What moved since training; labels are compared where they are complete. Where nothing can be compared: why.
fn drifted(
    manifest: &Manifest,
    recent: &Slice<'_>,
    ripe: &Slice<'_>,
    config: &WatchConfig,
) -> (Vec<Drift>, Option<String>) {
    let none = |why: &str| (Vec::new(), Some(why.to_owned()));
    let Some(json) = &manifest.profile else {
        return none("the champion was published without a profile of its training rows: train again");
    };
    let profile = match Profile::from_json(json) {
        Ok(profile) => profile,
        Err(error) => return none(&error.to_string()),
    };
    if recent.requests.is_empty() {
        return none("no list was shown in these hours");
    }
    let now = profile.again(recent).with_labels_of(profile.again(ripe));
    (profile.drift(&now, &config.bounds()), None)
}

fn covered(slice: &Slice<'_>, vectors: &Arc<ItemVectors>) -> VectorCoverage {
    let mut items: Vec<u32> = slice.iter().flat_map(|r| &r.candidates).map(|c| c.item).collect();
    items.sort_unstable();
    items.dedup();
    let without = items.iter().filter(|i| vectors.get(&slice.dataset.items[**i as usize]).is_none()).count();
    VectorCoverage { items: items.len() as u64, without: without as u64 }
}

/// Makes the newest rankings again. A version that is gone or of other vectors is told, and no trouble of the rest.
fn replays(
    asked: &Asked<'_>,
    dataset: &Dataset,
    logged: &HashMap<u64, Logged>,
) -> (BTreeMap<String, ReplayReport>, Vec<String>) {
    let slice = replayed::newest(dataset, logged, asked.config.replay_requests);
    let (mut reports, mut failed) = (BTreeMap::new(), Vec::new());
    let Some(registry) = asked.registry else { return (reports, failed) };
    for version in replayed::versions(&slice, logged).into_iter().take(MAX_VERSIONS) {
        let config = &asked.dir.config.rank;
        let (precision, bound) = (config.precision, replay_bound(config.device));
        let by =
            |p: RankPrecision| replayed::of_version(registry, &slice, logged, p.serving(), &version, bound);
        let report = match by(precision) {
            // `auto` serves in f32 what the faster form fails the check for.
            Ok(report) if precision == RankPrecision::Auto && !report.holds() => by(RankPrecision::F32),
            report => report,
        };
        match report {
            Ok(report) => drop(reports.insert(version, report)),
            Err(error) => failed.push(format!("{version:.12}: {error:#}")),
        }
    }
    (reports, failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_source::Log;
    use crate::world::{SCHEMA, World, WorldConfig};

    #[test]
    fn where_the_hours_hold_too_many_rows_half_of_them_are_taken() {
        let data = tempfile::tempdir().unwrap();
        let dir = DataDir::create(data.path(), &format!("[schema]\n{SCHEMA}")).unwrap();
        let store = Arc::new(dir.store().unwrap());
        let world = World::new(WorldConfig { users: 20, items: 50, ..WorldConfig::default() }).unwrap();
        let end_ms = 1_767_398_400_000;
        store.append(world.bootstrap(2, end_ms).unwrap()).unwrap();
        let config = WatchConfig { hours: 16, ..WatchConfig::default() };
        let found = |max_rows| {
            let asked = Asked { max_rows, ..Asked::new(&dir, None, &config, end_ms) };
            look(&asked, &mut |on_record| Log::of(&store).each(on_record))
        };
        let all = found(MAX_ROWS).unwrap();
        assert_eq!((all.hours, all.no_drift.as_deref()), (16, Some(NO_CHAMPION)));
        let half = found(all.join.rows as usize - 1).unwrap();
        assert!(half.hours < 16 && half.join.rows < all.join.rows && half.join.rows > 0, "{half:?}");
        assert!(half.census.impressions < all.census.impressions);
        assert!(found(1).unwrap_err().to_string().contains("more than 1 rows"));
    }
}
