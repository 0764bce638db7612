//! Listening: one loop a door, limits on connections and headers, and a graceful end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::app::App;
use crate::http::admin_router;
use crate::limits::Limits;

/// Most bytes of a request's headers.
const HEADER_BYTES: usize = 64 << 10;
/// Pause after a failed accept: it fails where files or memory run out, and a loop would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others than this machine could reach it, and it cannot tell them apart.
    #[error(
        "{0} can be reached from other machines, and there is no authentication yet: bind to 127.0.0.1 or [::1] \
             and put a proxy that authenticates in front"
    )]
    Public(SocketAddr),
    /// The listener is not usable.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
}

/// Refuses an address that other machines can reach.
///
/// # Errors
/// [`ServeError::Public`].
pub fn check_bind(address: SocketAddr) -> Result<(), ServeError> {
    if address.ip().is_loopback() { Ok(()) } else { Err(ServeError::Public(address)) }
}

/// Serves `data` (see [`crate::router`], with what was merged into it) on `listener`, and the admin routes on
/// `admin`, until `shutdown` ends. Then takes no more connections, lets requests in work finish for at most
/// [`Limits::drain_ms`], and returns.
///
/// # Errors
/// [`ServeError::Public`] for an address that other machines can reach, before anything is served.
pub async fn serve(
    app: Arc<App>,
    data: Router,
    listener: TcpListener,
    admin: Option<TcpListener>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    for listener in [Some(&listener), admin.as_ref()].into_iter().flatten() {
        check_bind(listener.local_addr()?)?;
    }
    let (stop, stopped) = watch::channel(());
    let mut doors = tokio::task::JoinSet::new();
    doors.spawn(door(listener, data, app.limits.clone(), stopped.clone()));
    if let Some(admin) = admin {
        doors.spawn(door(admin, admin_router(app.clone()), app.limits.clone(), stopped));
    }
    shutdown.await;
    drop(stop);
    while let Some(ended) = doors.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a door failed");
        }
    }
    // Not before: requests that were just answered may still have their impressions in the queue.
    let ranker = app.ranker.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || ranker.flush_impressions()).await {
        tracing::error!(%error, "the last impressions may not be logged");
    }
    Ok(())
}

async fn door(listener: TcpListener, router: Router, limits: Limits, mut stopped: watch::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_read_ms))
        .max_buf_size(HEADER_BYTES);
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            _ = stopped.changed() => break,
            (Ok(place), accepted) = next => (place, accepted),
            else => break,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps small packets back");
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // Timeouts and clients that leave end here: nothing to answer any more.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    let drain = Duration::from_millis(limits.drain_ms);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still in work when the time to finish them was over");
    }
}
