//! One turn: join what was served, judge the new rows, train, judge the result against the champion on the newest rows,
//! promote.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use lately_features::ItemVectors;
use lately_model::{Manifest, Model, checkpoint};
use lately_store::registry::gc;
use lately_store::{Registry, Store, Version};
use lately_train::chunks::Chunks;
use lately_train::gate::{Contest, Verdict, judge, judge_rows, judged_metrics, latency};
use lately_train::lake::LakeError;
use lately_train::predict::by_model;
use lately_train::publish::{CHALLENGER, CHAMPION};
use lately_train::{Dataset, DateRange, EvalOptions, Lake, Slice, TrainConfig, Zone, evaluate};
use serde::Serialize;

use super::schedule::{Kind, kind};
use super::{RetrainConfig, low};
use crate::data_dir::DataDir;
use crate::device::TrainingDevice;
use crate::learn::{FULL_MS, Plan, Trained, champion, learn};
use crate::log_source::Log;
use crate::wire_up::now_ms;

/// Share of the rows that the champion has not seen that may be held out. It must not be judged on what it learned
/// from: that would flatter it, and no challenger would pass.
const HELD_OUT_OF_NEW: f64 = 0.5;
/// Rows of a chunk below which HIT@3 says nothing.
const CHUNK_ROWS: usize = 4;
const DAY_MS: i64 = 86_400_000;
/// Log records that are read at once: each may be an impression of 2,000 items.
const PAGE: usize = 512;

/// What a turn came to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Too few rows have come since the champion was trained.
    Idle,
    /// The new rows cannot be learned from: nothing was trained.
    RowsRefused(Verdict),
    /// The trained model may not serve. It is published without an alias.
    Refused {
        /// Its version.
        version: String,
        /// What failed.
        verdict: Verdict,
    },
    /// The trained model has the alias.
    Promoted {
        /// Its version.
        version: String,
        /// The alias.
        alias: &'static str,
        /// Which heads could not be judged.
        verdict: Verdict,
    },
}

/// One turn.
#[derive(Debug, Clone, Serialize)]
pub struct Turn {
    /// What it came to.
    pub outcome: Outcome,
    /// How it trained.
    pub kind: Kind,
    /// Rows that have come since the champion was trained.
    pub new_rows: usize,
    /// Rows that it trained on.
    pub rows: usize,
    /// Rows that the result was judged on.
    pub held_out: usize,
    /// First log record that it has not seen.
    pub trained_to: u64,
    /// For the new requests that it trained on, when they were ranked, ms since 1970 UTC: from there to the swap is how
    /// long the model takes to learn.
    #[serde(skip)]
    pub learned_ms: Vec<i64>,
    /// Time of the join, s.
    pub join_seconds: f64,
    /// What trained: `cpu`, or a device's name; empty where nothing was trained.
    pub device: String,
    /// Time of training, s.
    pub train_seconds: f64,
    /// Time of the whole turn, s.
    pub seconds: f64,
}

impl Turn {
    /// The model that it published, if it did.
    pub fn version(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Idle | Outcome::RowsRefused(_) => None,
            Outcome::Refused { version, .. } | Outcome::Promoted { version, .. } => Some(version),
        }
    }

    /// Whether its model has the champion's or the challenger's alias.
    pub fn promoted(&self) -> bool {
        matches!(self.outcome, Outcome::Promoted { .. })
    }

    /// What the gate refused, if it did.
    pub fn refused(&self) -> Option<&Verdict> {
        match &self.outcome {
            Outcome::RowsRefused(verdict) | Outcome::Refused { verdict, .. } => Some(verdict),
            Outcome::Idle | Outcome::Promoted { .. } => None,
        }
    }
}

/// Takes turns over a data directory. One a directory: it advances the lake.
pub struct Learner {
    dir: DataDir,
    log: Log,
    registry: Registry,
    lake: Lake,
    /// On what models are trained.
    device: TrainingDevice,
    /// The item vectors that are served: a model of others would be refused there.
    vectors: Option<Arc<ItemVectors>>,
}

/// What the log's reader said, as one error.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct ReadError(anyhow::Error);

/// The served model, with all that is known of it.
struct Champion {
    version: Version,
    model: Model,
    manifest: Manifest,
}

impl Learner {
    /// Over a directory whose store this process has open. A lake of another schema is made again from the log.
    ///
    /// # Errors
    /// Where the lake or the device that `[train] device` demands cannot be opened.
    pub fn new(dir: &DataDir, store: &Arc<Store>, registry: &Registry) -> Result<Self> {
        Self::over(dir, Log::of(store), registry.clone(), store.item_vectors().cloned())
    }

    /// Over a directory that a server has open, or nobody.
    ///
    /// # Errors
    /// Where the log, the registry, the lake or the device that `[train] device` demands cannot be opened.
    pub fn beside(dir: &DataDir) -> Result<Self> {
        let registry = dir.registry()?;
        let vectors = dir.served_embedding(&registry)?.map(|embedding| embedding.vectors);
        Self::over(dir, Log::open(dir)?, registry, vectors)
    }

    fn over(dir: &DataDir, log: Log, registry: Registry, vectors: Option<Arc<ItemVectors>>) -> Result<Self> {
        let device = TrainingDevice::open(dir.config.train.device)?;
        let lake = match Lake::open(dir.lake_objects()?, &dir.schema, &dir.config.lake) {
            Err(LakeError::Schema { there, here }) => {
                tracing::warn!(there, here, "the lake has another schema: making it again from the log");
                Lake::rebuild(dir.lake_objects()?, &dir.schema, &dir.config.lake)?
            }
            opened => opened?,
        };
        Ok(Self { dir: dir.clone(), log, registry, lake, device, vectors })
    }

    /// Takes a turn; with `asked` of that kind, else as the directory's `[retrain]` says. Servers that follow the registry
    /// swap in what it promotes.
    ///
    /// # Errors
    /// Where the log or the registry cannot be read or written, or training fails. What is served stays.
    pub fn turn(&mut self, asked: Option<Kind>) -> Result<Turn> {
        let config = self.dir.config.retrain.clone();
        low::with_nice(config.nice, || self.take(&config, asked))?
    }

    fn champion(&self) -> Result<Option<Champion>> {
        let Some(version) = champion(&self.registry)? else { return Ok(None) };
        let (model, manifest) = checkpoint::from_bytes(&self.registry.load(&version)?)?;
        Ok(Some(Champion { version, model, manifest }))
    }

    /// Joins what has come, and gives the rows of the window.
    fn rows(&mut self, config: &RetrainConfig) -> Result<Dataset> {
        let (log, now) = (&self.log, now_ms());
        let mut read = |from| log.read(from, PAGE).map_err(ReadError);
        self.lake.advance(&mut read, now)?;
        self.lake.maintain(now)?;
        let range = DateRange { start_ms: now - i64::from(config.window_days) * DAY_MS, end_ms: i64::MAX };
        Ok(self.lake.read(range, self.vectors.clone())?)
    }

    fn take(&mut self, config: &RetrainConfig, asked: Option<Kind>) -> Result<Turn> {
        let start = Instant::now();
        let dataset = self.rows(config)?;
        let trained_to = self.lake.next_offset();
        // One of another schema takes none of these rows, and no server of this directory serves it: as if there were none.
        let former = self.champion()?.filter(|f| f.manifest.schema_hash == self.dir.schema.hash());
        if let Some(former) = &former {
            former.manifest.check_embeddings(&dataset.embedding_version)?;
        }
        let manifest = former.as_ref().map(|f| &f.manifest);
        let now = now_ms();
        let kind = asked.filter(|_| former.is_some()).unwrap_or_else(|| kind(&self.dir, manifest, now));
        let seen_ms = manifest.and_then(|m| m.data_range_ms).map_or(i64::MIN, |(_, last)| last);
        let (new, seen) = apart(&dataset, seen_ms);
        let join_seconds = start.elapsed().as_secs_f64();
        let mut turn = Turn {
            outcome: Outcome::Idle,
            kind,
            new_rows: new.rows(),
            rows: 0,
            held_out: 0,
            trained_to,
            learned_ms: Vec::new(),
            join_seconds,
            device: String::new(),
            train_seconds: 0.0,
            seconds: join_seconds,
        };
        if turn.new_rows < config.min_rows.max(1) {
            return Ok(turn);
        }
        let known = former.as_ref().map(|f| (&f.model, &f.manifest));
        let verdict = judge_rows(&new, &seen, known, &self.dir.config.gate, config.threads)?;
        if verdict.passed() {
            self.learn(config, &mut turn, &dataset, former.as_ref(), seen_ms)?;
        } else {
            turn.outcome = Outcome::RowsRefused(verdict);
        }
        turn.seconds = start.elapsed().as_secs_f64();
        for failure in turn.refused().iter().flat_map(|v| &v.failures) {
            tracing::warn!(version = turn.version(), %failure, "the gate refuses");
        }
        Ok(turn)
    }

    fn learn(
        &self,
        config: &RetrainConfig,
        turn: &mut Turn,
        dataset: &Dataset,
        former: Option<&Champion>,
        seen_ms: i64,
    ) -> Result<()> {
        let share = HELD_OUT_OF_NEW * turn.new_rows as f64 / dataset.stats.rows.max(1) as f64;
        let (older, newest) = dataset.all().split_newest(config.held_out.min(share));
        let train = TrainConfig { threads: config.threads, ..self.dir.config.train.clone() };
        let (slice, train, start) = match (turn.kind, former) {
            (Kind::Incremental, Some(former)) => {
                let train = train.incremental();
                (older.since(seen_ms, train.incremental.replay, train.seed), train, Some(&former.model))
            }
            _ => (older, train, None),
        };
        let plan = Plan {
            model: self.dir.config.model.clone(),
            train,
            device: self.device.clone(),
            start,
            parent: former.map(|f| f.version.clone()),
            state: None,
        };
        let begun = Instant::now();
        let mut trained = learn(&slice, &plan, false)?;
        turn.device.clone_from(&trained.report.device);
        turn.train_seconds = begun.elapsed().as_secs_f64();
        (turn.rows, turn.held_out) = (slice.rows(), newest.rows());
        turn.learned_ms = slice.iter().map(|r| r.time_ms).filter(|time| *time > seen_ms).collect();
        let verdict = self.judge(config, &mut trained, former, &newest)?;
        if let (Kind::Incremental, Some(former)) = (turn.kind, former) {
            let full_ms = former.manifest.metrics.get(FULL_MS).copied();
            trained.manifest.metrics.extend(full_ms.map(|full_ms| (FULL_MS.to_owned(), full_ms)));
        }
        let name = if config.canary && former.is_some() { CHALLENGER } else { CHAMPION };
        let alias = verdict.passed().then_some(name);
        let reason = if alias.is_some() { "passed the gate" } else { "refused by the gate" };
        let version = trained.publish(&self.registry.because(reason), alias)?.to_string();
        self.collect()?;
        turn.outcome = match alias {
            Some(alias) => Outcome::Promoted { version, alias, verdict },
            None => Outcome::Refused { version, verdict },
        };
        Ok(())
    }

    /// Removes old versions, so that many turns a day do not fill the disk; what may still be needed stays.
    fn collect(&self) -> Result<()> {
        let removed = gc(&self.registry.because("newer versions"), self.dir.config.registry.keep)?;
        if !removed.versions.is_empty() {
            tracing::info!(versions = removed.versions.len(), "removed old versions");
        }
        Ok(())
    }

    /// Holds a trained model against the champion on rows that neither has seen, and notes in its manifest how it did.
    fn judge(
        &self,
        config: &RetrainConfig,
        trained: &mut Trained,
        former: Option<&Champion>,
        newest: &Slice<'_>,
    ) -> Result<Verdict> {
        let (threads, gate) = (config.threads, &self.dir.config.gate);
        let chunks = Chunks::of(newest, &Zone::utc(), CHUNK_ROWS);
        let mut scores = vec![by_model("challenger", newest, &chunks, &trained.model, threads)?];
        if let Some(former) = former {
            scores.push(by_model("champion", newest, &chunks, &former.model, threads)?);
        }
        let options = EvalOptions { resamples: gate.resamples, threads, ..EvalOptions::default() };
        let report = evaluate(newest, &chunks, &scores, &options)?;
        let cost = latency(&trained.model, former.map(|f| &f.model), trained.golden.batch())?;
        let contest = Contest {
            challenger: &trained.model,
            scores: &scores,
            report: &report,
            golden: &trained.golden,
            latency: Some(cost),
        };
        trained.manifest.metrics.extend(judged_metrics(&report));
        Ok(judge(&contest, gate)?)
    }
}

/// When the champion's newest row was, ms since 1970 UTC; `None` without a champion.
///
/// # Errors
/// Where the registry cannot be read.
pub fn newest_row_ms(registry: &Registry) -> Result<Option<i64>> {
    let Some(version) = champion(registry)? else { return Ok(None) };
    let Some(info) = registry.info(&version)? else { return Ok(None) };
    let manifest: Manifest = serde_json::from_value(info.manifest)?;
    Ok(manifest.data_range_ms.map(|(_, last)| last))
}

/// The requests later than the champion's newest row, and the others.
fn apart(dataset: &Dataset, seen_ms: i64) -> (Slice<'_>, Slice<'_>) {
    let border = seen_ms.saturating_add(1);
    let of = |start_ms, end_ms| dataset.slice(DateRange { start_ms, end_ms });
    (of(border, i64::MAX), of(i64::MIN, border))
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures = |verdict: &Verdict| {
            verdict.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let Self { kind, rows, seconds, held_out, new_rows, device, .. } = self;
        let trained = |version: &str| {
            let did = format!("trained {version:.12} {kind} on {rows} rows by {device} in {seconds:.1} s");
            format!("{did}, judged on {held_out}")
        };
        match &self.outcome {
            Outcome::Idle => {
                write!(f, "nothing to learn yet: {new_rows} rows have come since the last training")
            }
            Outcome::RowsRefused(verdict) => {
                write!(f, "nothing trained: the gate refuses the {new_rows} new rows: {}", failures(verdict))
            }
            Outcome::Refused { version, verdict } => {
                write!(f, "{}: refused by the gate: {}", trained(version), failures(verdict))
            }
            Outcome::Promoted { version, alias, .. } => {
                write!(f, "{}: passed the gate, now the {alias}", trained(version))
            }
        }
    }
}
