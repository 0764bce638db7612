//! Listening: one loop a door, limits on connections and headers, and a graceful end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::app::App;
use crate::connection::Connections;
use crate::http::admin_router;
use crate::limits::Limits;
use crate::stage::Stage;

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
/// `admin`, until `shutdown` ends. Then it says for [`Limits::drain_delay_ms`] that it is not ready and serves on, then
/// takes no more connections, lets requests in work finish for at most [`Limits::drain_ms`], and returns.
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
    let mut doors = tokio::task::JoinSet::new();
    doors.spawn(door(listener, data, app.limits.clone(), app.stage.subscribe()));
    if let Some(admin) = admin {
        doors.spawn(door(admin, admin_router(app.clone()), app.limits.clone(), app.stage.subscribe()));
    }
    shutdown.await;
    app.stage.send_replace(Stage::Draining);
    tokio::time::sleep(Duration::from_millis(app.limits.drain_delay_ms)).await;
    app.stage.send_replace(Stage::Closing);
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

async fn door(listener: TcpListener, router: Router, limits: Limits, mut stage: watch::Receiver<Stage>) {
    let connections = Arc::new(Connections::new(router, &limits));
    let all = u32::try_from(limits.connections.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
    let places = Arc::new(Semaphore::new(all as usize));
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            () = Stage::Closing.reached(&mut stage) => break,
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
        let connection = connections.clone().serve(stream, stage.clone());
        tokio::spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    let drain = Duration::from_millis(limits.drain_ms);
    if tokio::time::timeout(drain, places.acquire_many(all)).await.is_err() {
        tracing::warn!("requests were still in work when the time to finish them was over");
    }
}
