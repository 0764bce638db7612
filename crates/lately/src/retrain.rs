//! One turn of the learning loop: join what was served, train, hold against the champion on the newest rows, promote.

use std::fmt;
use std::time::Instant;

use anyhow::Result;
use lately_model::checkpoint;
use lately_store::{Registry, Store};
use lately_train::chunks::Chunks;
use lately_train::gate::{GateConfig, Verdict, judge};
use lately_train::predict::by_model;
use lately_train::publish::CHAMPION;
use lately_train::{DateRange, EvalOptions, JoinOptions, TrainConfig, Zone, evaluate, join_store};

use crate::data_dir::DataDir;
use crate::learn::{Plan, champion, learn};
use crate::wire_up::now_ms;

/// Largest share of the rows that a challenger is judged on and not trained on: the newest.
const HELD_OUT: f64 = 0.15;
/// Share of the rows that the champion has not seen that may be held out. It must not be judged on what it learned
/// from: that would flatter it, and no challenger would pass.
const HELD_OUT_OF_NEW: f64 = 0.5;
/// Rows of a chunk below which HIT@3 says nothing.
const CHUNK_ROWS: usize = 4;

/// What a turn came to.
#[derive(Debug)]
pub struct Turn {
    /// The challenger's version.
    pub version: String,
    /// Whether it was promoted, and if not, which number failed.
    pub verdict: Verdict,
    /// Rows that it was trained on.
    pub rows: usize,
    /// Rows that it was judged on.
    pub held_out: usize,
    /// First log record that it has not seen.
    pub trained_to: u64,
    /// Time of the whole turn.
    pub seconds: f64,
}

/// Trains a challenger on the last `window_days` of the log with `threads` threads and promotes it if it passes the
/// gate. The registry's champion alias then names it; servers that follow the alias swap it in.
pub fn turn(
    dir: &DataDir,
    store: &Store,
    registry: &Registry,
    window_days: u32,
    threads: usize,
) -> Result<Turn> {
    let start = Instant::now();
    let trained_to = store.next_offset();
    let range = DateRange { start_ms: now_ms() - i64::from(window_days) * 86_400_000, end_ms: i64::MAX };
    // The vectors that are served: a model of others would be refused by this server.
    let vectors = store.item_vectors().cloned();
    let dataset = join_store(store, &dir.schema, JoinOptions { range, vectors, ..JoinOptions::default() })?;
    let parent = champion(registry)?;
    let former = match &parent {
        Some(version) => Some(checkpoint::from_bytes(&registry.load(version)?)?),
        None => None,
    };
    if let Some((_, manifest)) = &former {
        manifest.check_embeddings(&dataset.embedding_version)?;
    }
    let seen_ms = former.as_ref().and_then(|(_, m)| m.data_range_ms).map_or(i64::MIN, |(_, last)| last);
    let new =
        dataset.slice(DateRange { start_ms: seen_ms.saturating_add(1), end_ms: i64::MAX }).rows() as f64;
    let rows = dataset.stats.rows.max(1) as f64;
    let (older, newest) = dataset.all().split_newest(HELD_OUT.min(HELD_OUT_OF_NEW * new / rows));
    let train = TrainConfig { threads, ..dir.config.train.clone() };
    anyhow::ensure!(
        newest.rows() > 0,
        "nothing to learn: no row has come since the champion was trained, of {} in the last {window_days} days",
        dataset.stats.rows
    );
    let plan = Plan { model: dir.config.model.clone(), train, parent: parent.clone(), state: None };
    let trained = learn(&older, &plan, false)?;

    let chunks = Chunks::of(&newest, &Zone::utc(), CHUNK_ROWS);
    let mut scorers = vec![by_model("challenger", &newest, &chunks, &trained.model, threads)?];
    if let Some((model, _)) = &former {
        scorers.push(by_model("champion", &newest, &chunks, model, threads)?);
    }
    let options = EvalOptions { resamples: 20, threads, ..EvalOptions::default() };
    let report = evaluate(&newest, &chunks, &scorers, &options)?;
    let verdict = judge(&trained.model, &report, &GateConfig::default());
    let alias = verdict.passed().then_some(CHAMPION);
    let version = trained.publish(registry, alias, None)?.to_string();
    for failure in &verdict.failures {
        tracing::warn!(%version, %failure, "the gate refuses a model");
    }
    Ok(Turn {
        version,
        verdict,
        rows: older.rows(),
        held_out: newest.rows(),
        trained_to,
        seconds: start.elapsed().as_secs_f64(),
    })
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, rows, seconds, held_out, .. } = self;
        write!(f, "retrained {version:.12} on {rows} rows in {seconds:.1} s, judged on {held_out}: ")?;
        if self.verdict.passed() {
            return f.write_str("passed the gate");
        }
        let failures: Vec<String> = self.verdict.failures.iter().map(ToString::to_string).collect();
        write!(f, "refused by the gate: {}", failures.join("; "))
    }
}
