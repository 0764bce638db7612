//! The watch: a running server holds the newest hours of its log against what its model was trained on and against what
//! the model said, every `[watch] minutes`. `lately doctor` takes the same look from outside.
//!
//! One thread of the lowest priority reads the log once a look, as training does, and keeps what `look` limits. It
//! warns; that a model is trained is decided elsewhere, by [`Watch::demands_retrain`].
//!
//! | metric | meaning |
//! | --- | --- |
//! | `lately_drift_psi{feature}` | population stability index since training |
//! | `lately_feature_coverage{feature}` | share of the rows that have it now |
//! | `lately_action_share{action}` | share of the window's actions |
//! | `lately_model_age_seconds{since}` | since the newest training row (`data`), since it was `published` |
//! | `lately_calibration_ratio{head}` | predicted over observed, of what was served |
//! | `lately_items_without_vector_share` | of the items shown, where a table of vectors is used |
//! | `lately_replay_requests_total`, `lately_replay_mismatches_total` | rankings made again, items that differ |
//! | `lately_watch_warnings`, `lately_watch_time_seconds`, `lately_watch_took_seconds` | of the last look |
//! | `lately_watch_failures_total` | looks that failed |

mod census;
mod config;
mod look;
mod report;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use lately_store::{Registry, Store};

pub use census::Census;
pub(crate) use census::HOUR_MS;
pub use config::{WatchConfig, WatchConfigError};
pub(crate) use look::{Asked, NO_CHAMPION, look};
pub use look::{ChampionFacts, Findings, VectorCoverage};
pub use report::{Reason, WatchReport};

use crate::data_dir::DataDir;
use crate::learn::champion;
use crate::log_source::Log;
use crate::retrain::low::give_way;
use crate::wire_up::now_ms;

/// The first look comes so soon after a start, or after `minutes` where that is less: a server that restarts every half
/// hour is watched too.
const FIRST: Duration = Duration::from_secs(300);
/// Of the thread: the lowest priority that there is.
const NICE: u8 = 19;

/// Looks at the log of an open store.
#[derive(Debug)]
pub struct Watch {
    dir: DataDir,
    store: Arc<Store>,
    registry: Registry,
    last: Mutex<Option<Arc<WatchReport>>>,
    stopping: AtomicBool,
}

impl Watch {
    /// Over a data directory whose store this process has open.
    pub fn new(dir: &DataDir, store: &Arc<Store>, registry: &Registry) -> Self {
        let (last, stopping) = (Mutex::new(None), AtomicBool::new(false));
        Self { dir: dir.clone(), store: Arc::clone(store), registry: registry.clone(), last, stopping }
    }

    /// What the last look found; `None`: there was none yet.
    pub fn report(&self) -> Option<Arc<WatchReport>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a model should be trained, and why: by the last look, while the champion is the one that it saw.
    ///
    /// # Errors
    /// Where the registry cannot be read.
    pub fn demands_retrain(&self) -> Result<Option<Reason>> {
        let Some(report) = self.report() else { return Ok(None) };
        let serves = champion(&self.registry)?.map(|version| version.to_string());
        let seen = report.findings.champion.as_ref().map(|c| &c.version);
        Ok(report.demands_retrain().filter(|_| serves.as_ref() == seen))
    }

    /// Looks now, on this thread.
    ///
    /// # Errors
    /// Where the log or the registry cannot be read, or the watch is being stopped.
    pub fn look(&self) -> Result<Arc<WatchReport>> {
        let start = Instant::now();
        let config = &self.dir.config.watch;
        let asked = Asked::new(&self.dir, Some(&self.registry), config, now_ms());
        let findings = look(&asked, &mut |on_record| {
            Log::of(&self.store).each(&mut |offset, event| {
                ensure!(!self.stopping.load(Ordering::Relaxed), "the server stops");
                on_record(offset, event)
            })
        })?;
        let report = Arc::new(WatchReport { findings, config: config.clone() });
        report.publish(&self.dir.schema, now_ms());
        metrics::gauge!("lately_watch_took_seconds").set(start.elapsed().as_secs_f64());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&report));
        Ok(report)
    }
}

/// The thread of a [`Watch`]. Dropping it stops a look under way.
#[derive(Debug)]
pub(crate) struct Watching {
    watch: Arc<Watch>,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Watching {
    /// Looks every `[watch] minutes`; with 0 it never does.
    pub(crate) fn start(watch: &Arc<Watch>) -> Result<Self> {
        let minutes = watch.dir.config.watch.minutes;
        let interval = Duration::from_secs(60 * u64::from(minutes));
        let watch = Arc::clone(watch);
        if minutes == 0 {
            return Ok(Self { watch, thread: None });
        }
        let (stop, stopped) = channel();
        let looks = Arc::clone(&watch);
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            if let Err(error) = give_way(NICE) {
                tracing::debug!(%error, "the watch runs with the usual priority");
            }
            let mut wait = interval.min(FIRST);
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                say(looks.look());
                wait = interval;
            }
        })?;
        Ok(Self { watch, thread: Some((stop, thread)) })
    }

    /// Stops and waits for the thread.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.watch.stopping.store(true, Ordering::Relaxed);
        let Some((stop, thread)) = self.thread.take() else { return Ok(()) };
        drop(stop);
        thread.join().map_err(|_| anyhow!("the watch panicked"))
    }
}

fn say(looked: Result<Arc<WatchReport>>) {
    match looked {
        Ok(report) => report.warnings().iter().for_each(|warning| tracing::warn!("watch: {warning}")),
        Err(error) => {
            metrics::counter!("lately_watch_failures_total").increment(1);
            tracing::warn!(error = format!("{error:#}"), "the watch could not look at the log");
        }
    }
}
