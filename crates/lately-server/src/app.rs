//! What every handler shares.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lately_features::Schema;
use lately_rank::{FeedRequest, Priority, RankConfig, RankRequest, RankResponse, Ranker};
use lately_store::Store;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::admission::{Admission, Permit};
use crate::ask::Deadlines;
use crate::caps::Caps;
use crate::error::ApiError;
use crate::experiments::ExperimentDesk;
use crate::gate::Gate;
use crate::limits::Limits;
use crate::stage::Stage;

/// Reports of experiments in work at a time. The first one of an experiment reads the whole log: with a gate of their own
/// those who wait for it take no place from writes.
const REPORTS: usize = 2;

/// Loads the registry's champion into the ranker's slot; an error says why the last good model stays. Given by the
/// composition root: the server knows neither registry nor files.
pub type Reload = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The served system.
pub struct App {
    pub(crate) store: Arc<Store>,
    pub(crate) ranker: Arc<Ranker>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) limits: Limits,
    pub(crate) rankings: Arc<Admission>,
    pub(crate) caps: Caps,
    pub(crate) writes: Gate,
    pub(crate) reports: Gate,
    pub(crate) metrics: Option<PrometheusHandle>,
    pub(crate) reload: Option<Reload>,
    pub(crate) experiments: Option<ExperimentDesk>,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) deadlines: Deadlines,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl App {
    /// An app without metrics and reload.
    pub fn new(store: Arc<Store>, ranker: Arc<Ranker>, schema: Arc<Schema>, limits: Limits) -> Self {
        Self {
            rankings: Arc::new(Admission::new(&limits)),
            caps: Caps::new(&limits),
            writes: Gate::new(limits.writes, limits.wait()),
            reports: Gate::new(REPORTS, limits.wait()),
            store,
            ranker,
            schema,
            limits,
            metrics: None,
            reload: None,
            experiments: None,
            stage: watch::Sender::new(Stage::Serving),
            deadlines: Deadlines::new(&RankConfig::default()),
        }
    }

    /// Serves these metrics on the admin door; see [`crate::install_metrics`].
    pub fn with_metrics(mut self, metrics: PrometheusHandle) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Serves `POST /admin/v1/models/reload` on the admin door.
    pub fn with_reload(mut self, reload: Reload) -> Self {
        self.reload = Some(reload);
        self
    }

    /// Serves `/admin/v1/experiments` on the admin door.
    pub fn with_experiments(mut self, desk: ExperimentDesk) -> Self {
        self.experiments = Some(desk);
        self
    }

    /// The ranker's own deadlines, which a gRPC call's deadline only shortens. Default: those of
    /// [`RankConfig::default`].
    pub fn with_deadlines(mut self, config: &RankConfig) -> Self {
        self.deadlines = Deadlines::new(config);
        self
    }

    /// Whether to send requests here, or the code and the words of why not.
    pub(crate) fn ready(&self) -> Result<(), (&'static str, &'static str)> {
        if *self.stage.borrow() > Stage::Serving {
            return Err(("stopping", "the server is stopping: send to another one"));
        }
        match self.ranker.slot().current() {
            Some(_) => Ok(()),
            None => Err(("no_model", "no model is loaded: train one and publish it")),
        }
    }

    /// A place for a ranking, or the refusal: ask before the request is read, whatever form it comes in.
    pub(crate) async fn admit(&self, priority: Priority) -> Result<Permit, ApiError> {
        self.rankings.admit(priority).await
    }

    /// Ranks in a place; a request of either priority is background.
    pub(crate) async fn rank(
        &self,
        mut permit: Permit,
        mut ask: RankRequest,
    ) -> Result<RankResponse, ApiError> {
        self.caps.ranking(&ask.user)?;
        ask.priority = lower(&mut permit, ask.priority)?;
        ask.waited += permit.waited();
        let ranker = Arc::clone(&self.ranker);
        permit.run(move || ranker.rank(ask)).await
    }

    /// As [`App::rank`].
    pub(crate) async fn feed(
        &self,
        mut permit: Permit,
        mut ask: FeedRequest,
    ) -> Result<RankResponse, ApiError> {
        self.caps.ranking(&ask.user)?;
        ask.priority = lower(&mut permit, ask.priority)?;
        ask.waited += permit.waited();
        let ranker = Arc::clone(&self.ranker);
        permit.run(move || ranker.feed(ask)).await
    }

    /// The ranker.
    pub fn ranker(&self) -> &Arc<Ranker> {
        &self.ranker
    }
}

/// The priority of a request whose head says one thing and whose body perhaps another.
fn lower(permit: &mut Permit, asked: Priority) -> Result<Priority, ApiError> {
    if asked == Priority::Background {
        permit.lower()?;
    }
    Ok(permit.priority())
}

/// The server's clock, ms since 1970 UTC.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
