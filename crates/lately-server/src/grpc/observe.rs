//! Around every gRPC call: what is no call is refused, then its time limit and its metrics.

use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tonic::{Code, Status};

use super::Shared;
use super::deadline::{WaitsUntil, timeout};
use super::status::of_tonic;
use crate::error::ApiError;

const LATE: &str =
    "the call took too long; if it was a write it may still come through: event ids count once";

pub(super) async fn observe(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if let Err(error) = check(&request) {
        return error.into_response();
    }
    let begin = Instant::now();
    let path = request.uri().path();
    let method = shared.methods.get(path).map_or("other", String::as_str).to_owned();
    let response = answer(&shared, request, next).await;
    // A call that succeeds says so behind its message.
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    metrics::histogram!("lately_grpc_seconds", "method" => method.clone())
        .record(begin.elapsed().as_secs_f64());
    metrics::counter!("lately_grpc_requests_total", "method" => method, "code" => format!("{code:?}"))
        .increment(1);
    response
}

/// Refuses plain web forms of other sites, and clients that could not read the status behind a message.
fn check(request: &Request) -> Result<(), ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        let message = "this path is gRPC's: send Content-Type: application/grpc, or see /docs";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message));
    }
    if request.version() != Version::HTTP_2 {
        let message = "gRPC needs HTTP/2, with prior knowledge";
        return Err(ApiError::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "needs_http2", message));
    }
    Ok(())
}

async fn answer(shared: &Shared, mut request: Request, next: Next) -> Response {
    let waits = match timeout(request.headers()) {
        Ok(waits) => waits,
        Err(error) => return failed(error),
    };
    let own = Duration::from_millis(shared.app.limits.request_ms);
    let limit = waits.map_or(own, |waits| waits.min(own));
    if let Some(end) = waits.and_then(|waits| Instant::now().checked_add(waits)) {
        request.extensions_mut().insert(WaitsUntil(end));
    }
    // A timer is no finer than a millisecond.
    let late = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", LATE);
    if limit < Duration::from_millis(1) {
        return failed(late());
    }
    let Ok(response) = tokio::time::timeout(limit, next.run(request)).await else { return failed(late()) };
    of_tonic(response.headers()).map_or(response, failed)
}

fn failed(error: ApiError) -> Response {
    Status::from(error).into_http::<tonic::body::Body>().map(axum::body::Body::new)
}
