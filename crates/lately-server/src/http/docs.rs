//! The description of the interface, and where to look at it.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

use crate::error::ApiError;
use crate::openapi::openapi_json;

const PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Lately: interface</title>\
<h1>Lately</h1><p>The interface is described in <a href=/openapi.json>openapi.json</a>; any OpenAPI viewer shows it.\
<ul><li>POST /v1/events: what users did and saw<li>PUT /v1/items: what can be shown<li>POST /v1/rank: order these\
<li>GET /v1/feed?user=&amp;limit=: find and order<li>GET, DELETE /v1/users/{id}<li>GET /v1/models\
<li>/v2/...: the Open Inference Protocol<li>GET /healthz, /readyz</ul><p>gRPC is on this port too, with \
reflection.</html>";

pub(super) async fn page() -> Html<&'static str> {
    Html(PAGE)
}

pub(super) async fn openapi() -> Result<Response, ApiError> {
    let text = openapi_json().map_err(|e| ApiError::internal("openapi.json", &e))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
