//! Around every request: its time limit and its metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::ApiError;

pub(super) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    // The pattern, never the path: that may hold an id.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let limit = Duration::from_millis(app.limits.request_ms);
    let response = tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        let message =
            "the request took too long; if it was a write it may still come through: event ids count once";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message).into_response()
    });
    let status = response.status().as_u16().to_string();
    metrics::histogram!("lately_http_seconds", "route" => route.clone())
        .record(begin.elapsed().as_secs_f64());
    metrics::counter!("lately_http_requests_total", "route" => route, "status" => status).increment(1);
    response
}
