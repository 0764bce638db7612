//! The single place that names engines and puts the parts together: store, registry, ranker, doors, the watch for a new
//! champion (`follow.rs`) and over it (`rollout`). `lately serve` and `lately demo` are this composition.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use axum::Router;
use lately_rank::Ranker;
use lately_server::{App, Reload, check_bind, install_metrics, router, serve};
use lately_store::{Registry, Store};
use lately_train::publish::{CHALLENGER, CHAMPION};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::data_dir::DataDir;
use crate::device;
use crate::experiments::{Desk, Ledger, Readouts, watch as watch_experiments};
use crate::follow::{Follower, watch};
use crate::log_source::{Announced, announce};
use crate::rollout::{Rollout, guard};
use crate::slots::SlotSettings;
use crate::watch::{Watch, Watching};

/// The clock: ms since 1970 UTC.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// A running server. Dropping it drains requests and closes the store.
pub struct Server {
    /// The log, sequences and entities.
    pub store: Arc<Store>,
    /// The models.
    pub registry: Registry,
    /// Where the data port listens.
    pub address: SocketAddr,
    /// Where the admin port listens.
    pub admin_address: SocketAddr,
    slots: SlotSettings,
    follower: Arc<Follower>,
    ranker: Arc<Ranker>,
    stop: Option<oneshot::Sender<()>>,
    doors: Option<JoinHandle<Result<()>>>,
    guard: Option<(Sender<()>, JoinHandle<()>)>,
    follows: Option<(Sender<()>, JoinHandle<()>)>,
    experiments: Option<(Sender<()>, JoinHandle<()>)>,
    desk: Arc<Desk>,
    /// What is found in the log while it serves.
    pub watch: Arc<Watch>,
    watching: Watching,
    _announced: Announced,
}

impl Server {
    /// Opens a data directory and serves it. `extra` routes join the data port.
    pub fn start(dir: &DataDir, bind: &str, admin_bind: &str, extra: Option<Router>) -> Result<Self> {
        // Before all else: what cannot be had must not cost the opening of a store.
        let accelerator = device::open(dir.config.rank.device.into(), 0, "serving")?;
        // Before the parts, so that nothing is counted before. One recorder a process: a second server in it (tests) goes without.
        let metrics = install_metrics().inspect_err(|error| tracing::warn!(%error, "no metrics")).ok();
        let registry = dir.registry()?;
        let vectors = dir.served_embedding(&registry)?.map(|e| e.vectors);
        let embedding_version = vectors.as_ref().map(|v| v.version().to_owned()).unwrap_or_default();
        let store = Arc::new(dir.store_with(vectors)?);
        let slots = SlotSettings::new(&dir.schema, &embedding_version, &dir.config.rank, accelerator);
        let (ranker, follower) = rank(dir, &store, &registry, &slots)?;
        // Before the doors open: the first feed must not be empty.
        ranker.refresh().context("cannot read the log for what is popular")?;
        let desk = experiments(dir, &store, &ranker, &follower, &slots)?;
        let limits = dir.config.serve.limits.clone();
        // A thread for each ranking and write that may be in work, and some for shutting down.
        let blocking = limits.rankings_max + limits.writes + 16;
        let mut app = App::new(Arc::clone(&store), Arc::clone(&ranker), Arc::clone(&dir.schema), limits)
            .with_deadlines(&dir.config.rank)
            .with_reload(reload(&follower))
            .with_experiments(desk.door());
        if let Some(handle) = metrics {
            app = app.with_metrics(handle);
        }
        let app = Arc::new(app);
        let data = extra.unwrap_or_default().merge(router(Arc::clone(&app)));
        let (data_listener, address) = listen(bind)?;
        let (admin_listener, admin_address) = listen(admin_bind)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let doors = std::thread::Builder::new().name("doors".to_owned());
        let doors =
            doors.spawn(move || open_doors(app, data, [data_listener, admin_listener], blocking, stopped))?;
        let guard = guard(Rollout::new(&follower, &ranker, &registry, &dir.config.canary))?;
        let poll = Duration::from_secs(dir.config.serve.registry_poll_seconds.max(1));
        let follows = watch(&follower, poll)?;
        let experiments = watch_experiments(&desk, poll)?;
        let watch = Arc::new(Watch::new(dir, &store, &registry));
        Ok(Self {
            watching: Watching::start(&watch)?,
            watch,
            store,
            registry,
            address,
            admin_address,
            slots,
            follower,
            ranker,
            stop: Some(stop),
            doors: Some(doors),
            guard,
            follows: Some(follows),
            experiments: Some(experiments),
            desk,
            _announced: announce(&dir.path, admin_address)?,
        })
    }

    /// Loads the champion now; returns whether another model serves than before.
    pub fn reload(&self) -> Result<bool> {
        self.follower.follow()
    }

    /// Waits until what was served so far is in the log: before a training reads it.
    pub fn flush_impressions(&self) {
        self.ranker.flush_impressions();
    }

    /// Version that serves, or words for none.
    pub fn model_version(&self) -> String {
        self.follower.slot.current().map_or("no model".to_owned(), |m| m.version().to_owned())
    }

    /// What scores: `cpu`, or the name of a device. Where no model is served yet, what would.
    pub fn device(&self) -> String {
        let served = self.follower.slot.current();
        served.map_or_else(|| self.slots.device().to_owned(), |m| m.summary().device)
    }

    /// Swaps since the start, the first load included.
    pub fn generation(&self) -> u64 {
        self.follower.slot.current().map_or(0, |m| m.generation())
    }

    /// Stops: no new connections, requests in work finish, the last impressions are written.
    pub fn stop(mut self) -> Result<()> {
        self.halt()
    }

    fn halt(&mut self) -> Result<()> {
        self.watching.stop()?;
        self.desk.close();
        for (stop, thread) in
            [self.guard.take(), self.follows.take(), self.experiments.take()].into_iter().flatten()
        {
            drop(stop);
            thread.join().map_err(|_| anyhow!("a thread that watches models panicked"))?;
        }
        drop(self.stop.take());
        match self.doors.take() {
            Some(doors) => doors.join().map_err(|_| anyhow!("the network threads panicked"))?,
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.halt() {
            tracing::error!(%error, "the server did not stop cleanly");
        }
    }
}

/// The experiments that the book and the configuration have.
fn experiments(
    dir: &DataDir,
    store: &Arc<Store>,
    ranker: &Arc<Ranker>,
    follower: &Arc<Follower>,
    slots: &SlotSettings,
) -> Result<Arc<Desk>> {
    let ledger = Ledger::open(dir)?;
    for name in ledger.declare_all(&dir.config.experiments.declare)? {
        tracing::warn!(name, "this experiment was started with another definition, which stays");
    }
    let readouts = Readouts::new(store, &dir.schema, &dir.config.experiments.readout);
    let desk = Arc::new(Desk::new(ledger, ranker, follower, slots, readouts));
    desk.refresh().context("cannot go by the experiments")?;
    Ok(desk)
}

/// The ranker with its models, and who keeps them at what the registry names.
fn rank(
    dir: &DataDir,
    store: &Arc<Store>,
    registry: &Registry,
    slots: &SlotSettings,
) -> Result<(Arc<Ranker>, Arc<Follower>)> {
    let config = &dir.config.rank;
    let champion = slots.make(CHAMPION);
    let mut ranker =
        Ranker::new(Arc::clone(store), Arc::clone(&champion), Arc::clone(&dir.schema), config.clone())?;
    // Only where it has something to do: it takes as much memory as the champion.
    let challenger = (config.shadow_share > 0.0 || config.canary_share > 0.0).then(|| slots.make(CHALLENGER));
    if let Some(slot) = &challenger {
        ranker = ranker.with_challenger(Arc::clone(slot))?;
    }
    let follower = Follower::new(registry.clone(), champion, challenger);
    if let Err(error) = follower.follow() {
        // A damaged champion must not keep the rest from serving; rankings say that no model ranked them.
        tracing::error!(%error, "the champion cannot be served");
    }
    if let Err(error) = follower.follow_challenger() {
        tracing::error!(%error, "the challenger cannot be loaded");
    }
    Ok((Arc::new(ranker), Arc::new(follower)))
}

/// What the admin door does to load a new champion.
fn reload(follower: &Arc<Follower>) -> Reload {
    let follower = Arc::clone(follower);
    Arc::new(move || {
        // What is served is the champion: a challenger that is refused is told, and fails nothing.
        if let Err(error) = follower.follow_challenger() {
            tracing::error!(%error, "the challenger is refused, the last good one stays");
        }
        follower.follow().map(drop).map_err(|e| format!("{e:#}"))
    })
}

/// Serves at both doors, data and admin, until `stopped`, with at most `blocking` threads for what blocks.
fn open_doors(
    app: Arc<App>,
    data: Router,
    [data_listener, admin_listener]: [std::net::TcpListener; 2],
    blocking: usize,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(blocking)
        .enable_all()
        .build()
        .context("cannot start the network threads")?;
    runtime.block_on(async {
        let (data_listener, admin_listener) =
            (TcpListener::from_std(data_listener)?, TcpListener::from_std(admin_listener)?);
        // Either `stop` is sent or its sender is dropped: both end the server.
        let shutdown = async { stopped.await.unwrap_or(()) };
        Ok(serve(app, data, data_listener, Some(admin_listener), shutdown).await?)
    })
}

fn listen(bind: &str) -> Result<(std::net::TcpListener, SocketAddr)> {
    let address: SocketAddr =
        bind.parse().with_context(|| format!("`{bind}` is no address: write it like 127.0.0.1:7000"))?;
    check_bind(address)?;
    let listener =
        std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
