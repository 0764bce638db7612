//! Whether the process lives, and whether to send it requests.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::{ApiError, ErrorBody};

/// All is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthReply {
    /// `ok` or `ready`.
    status: &'static str,
}

/// 200 as long as the process answers.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = HealthReply)))]
pub(crate) async fn healthz() -> Json<HealthReply> {
    Json(HealthReply { status: "ok" })
}

/// 200 once a model is loaded and until the server stops. Before that rankings are answered too, by popularity and
/// marked so; after it as long as connections are taken.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, body = HealthReply), (status = 503, body = ErrorBody)))]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<Json<HealthReply>, ApiError> {
    match app.ready() {
        Ok(()) => Ok(Json(HealthReply { status: "ready" })),
        Err((code, message)) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message)),
    }
}
