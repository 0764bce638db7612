//! One connection: which HTTP it speaks, its limits, and how it ends.
//!
//! hyper-util's `auto` builder would choose the protocol as well, but gives a client that sends nothing all the time in
//! the world.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::activity::{Activity, Answering, InWork, Patience, Watched};
use crate::limits::{FRAME_BYTES, HEADER_BYTES, Limits, STREAM_BYTES, WINDOW_BYTES};
use crate::stage::Stage;

/// How an HTTP/2 connection with prior knowledge begins; no request of HTTP/1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pause of looking at a first line that comes byte by byte.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// What the connections of a door share.
pub(crate) struct Connections {
    router: TowerToHyperService<Router>,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    patience: Patience,
}

impl Connections {
    pub(crate) fn new(router: Router, limits: &Limits) -> Self {
        let ms = Duration::from_millis;
        let mut http1 = http1::Builder::new();
        // hyper would count the time between two requests as time for headers: `Activity` tells them apart.
        http1.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEADER_BYTES);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(HEADER_BYTES as u32)
            .max_frame_size(FRAME_BYTES)
            .initial_stream_window_size(STREAM_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .keep_alive_interval(ms(limits.ping_ms))
            .keep_alive_timeout(ms(limits.ping_answer_ms));
        let patience = Patience { idle: ms(limits.idle_ms), headers: ms(limits.header_read_ms) };
        Self { router: TowerToHyperService::new(router), http1, http2, patience }
    }

    /// Serves until the client leaves, is idle for too long, or the door closes and its requests are answered.
    pub(crate) async fn serve(self: Arc<Self>, stream: TcpStream, mut stage: watch::Receiver<Stage>) {
        let http2 = tokio::select! {
            _ = Stage::Closing.reached(&mut stage) => return,
            looked = tokio::time::timeout(self.patience.headers, speaks_http2(&stream)) => looked,
        };
        let activity = Activity::new();
        let (router, requests) = (self.router.clone(), activity.clone());
        let service = service_fn(move |request| answer(router.call(request), requests.begin()));
        match http2 {
            Err(_) => tracing::debug!("a connection sent nothing"),
            Ok(Err(error)) => tracing::debug!(%error, "a connection ended before its first request"),
            Ok(Ok(true)) => {
                let io = TokioIo::new(stream);
                let connection = self.http2.serve_connection(io, service);
                let leave = Leave::Answered;
                drive(connection, &activity, self.patience, stage, leave).await;
            }
            Ok(Ok(false)) => {
                let io = TokioIo::new(Watched { stream, activity: activity.clone() });
                let connection = self.http1.serve_connection(io, service);
                drive(connection, &activity, self.patience, stage, Leave::AtOnce).await;
            }
        }
    }
}

/// How a connection without a request in work is left.
#[derive(PartialEq)]
enum Leave {
    /// HTTP/1: closed.
    AtOnce,
    /// HTTP/2: it is told to go away, and what the client had sent by then is answered.
    Answered,
}

async fn drive<C: GracefulConnection<Error: Display>>(
    connection: C,
    activity: &Activity,
    patience: Patience,
    mut stage: watch::Receiver<Stage>,
    leave: Leave,
) {
    let mut connection = pin!(connection);
    let mut too_idle = pin!(activity.too_idle(patience));
    let (mut idle, mut closing) = (false, false);
    loop {
        tokio::select! {
            ended = &mut connection => {
                // Timeouts and clients that leave end here: nothing to answer any more.
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            () = &mut too_idle, if !idle => {
                if leave == Leave::AtOnce {
                    return;
                }
                idle = true;
            }
            _ = Stage::Closing.reached(&mut stage), if !closing => closing = true,
        }
        connection.as_mut().graceful_shutdown();
    }
}

async fn answer<E>(
    answer: impl Future<Output = Result<Response<Body>, E>>,
    in_work: InWork,
) -> Result<Response<Answering>, E> {
    Ok(answer.await?.map(|body| Answering { body, _request: in_work }))
}

/// Looks at the first bytes and leaves them there.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let came = stream.peek(&mut first).await?;
        if came == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[..came] != PREFACE[..came] {
            return Ok(false);
        }
        if came == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
