//! The admin door: metrics, and a look at the registry on demand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::models::{ModelsReply, reply};
use crate::app::App;
use crate::error::ApiError;

/// Prometheus' text form.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let Some(handle) = app.metrics.clone() else {
        return Err(ApiError::not_found("no_metrics", "this server records no metrics"));
    };
    let store = app.store.clone();
    let stats = app.writes.run(move || store.stats()).await??;
    metrics::gauge!("lately_log_records").set(stats.next_offset as f64);
    metrics::gauge!("lately_log_queued_events").set(stats.queued_events as f64);
    metrics::gauge!("lately_items").set(stats.items as f64);
    metrics::gauge!("lately_disk_bytes").set(stats.disk_bytes as f64);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, handle.render()).into_response())
}

/// Loads the registry's champion now. Takes no version, path or address: what is served is decided in the registry.
pub(super) async fn reload(State(app): State<Arc<App>>) -> Result<Json<ModelsReply>, ApiError> {
    let Some(reload) = app.reload.clone() else {
        return Err(ApiError::not_found("no_reload", "this server has no registry to load from"));
    };
    let done = app.writes.run(move || reload()).await?;
    done.map_err(|message| ApiError::new(StatusCode::CONFLICT, "not_loaded", message))?;
    Ok(Json(reply(&app)))
}
