//! Routes, one file each.

pub(crate) mod admin;
pub(crate) mod admitted;
mod docs;
pub(crate) mod events;
mod experiments;
pub(crate) mod feed;
mod forced;
pub(crate) mod health;
pub(crate) mod items;
mod log;
pub(crate) mod models;
mod observe;
pub(crate) mod oip;
mod packed;
pub(crate) mod rank;
pub(crate) mod users;
pub(crate) mod values;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post, put};

use crate::app::App;
use crate::error::ApiError;
use crate::grpc;

pub use log::read_page;

/// The data door: HTTP and gRPC. Merge further routes, such as pages, into it.
pub fn router(app: Arc<App>) -> Router {
    let batches = Router::new()
        .route("/v1/events", post(events::post_events))
        .route("/v1/items", put(items::put_items))
        .layer(DefaultBodyLimit::max(app.limits.batch_bytes));
    let rest = Router::new()
        .route("/v1/rank", post(rank::post_rank))
        .route("/v1/feed", get(feed::get_feed))
        .route("/v1/users/{id}", get(users::get_user).delete(users::delete_user))
        .route("/v1/models", get(models::get_models))
        .route("/v2", get(oip::server))
        .route("/v2/health/live", get(oip::live))
        .route("/v2/health/ready", get(oip::ready))
        .route("/v2/models/{name}", get(oip::model))
        .route("/v2/models/{name}/ready", get(oip::model_ready))
        .route("/v2/models/{name}/infer", post(oip::infer))
        .route("/v2/models/{name}/versions/{version}", get(oip::model))
        .route("/v2/models/{name}/versions/{version}/ready", get(oip::model_ready))
        .route("/v2/models/{name}/versions/{version}/infer", post(oip::infer))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::page))
        .layer(DefaultBodyLimit::max(app.limits.body_bytes));
    let calls = grpc::router(&app);
    finish(batches.merge(rest), app).merge(calls)
}

/// The admin door: metrics and control. Never expose it where the data door is exposed.
pub fn admin_router(app: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/metrics", get(admin::metrics))
        .route("/admin/v1/models/reload", post(admin::reload))
        .route("/admin/v1/log", get(log::page))
        .route("/admin/v1/experiments", get(experiments::list).post(experiments::declare))
        .route("/admin/v1/experiments/{name}", delete(experiments::remove))
        .route("/admin/v1/experiments/{name}/report", get(experiments::report))
        .route("/admin/v1/experiments/{name}/start", post(experiments::start))
        .route("/admin/v1/experiments/{name}/ramp", post(experiments::ramp))
        .route("/admin/v1/experiments/{name}/stop", post(experiments::stop))
        .route("/admin/v1/holdout", put(experiments::holdout))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz));
    finish(routes, app)
}

fn finish(routes: Router<Arc<App>>, app: Arc<App>) -> Router {
    routes
        .method_not_allowed_fallback(not_allowed)
        .fallback(not_found)
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}

async fn not_found() -> ApiError {
    ApiError::not_found("no_such_path", "no such path: see /docs")
}

async fn not_allowed() -> ApiError {
    let message = "this path takes another method: see /docs";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
