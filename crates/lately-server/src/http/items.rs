//! `PUT /v1/items`: what can be shown.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use lately_features::{Event, Item, ItemId};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::events::{BatchReply, take};
use super::values::{WireFeatures, features};
use crate::app::App;
use crate::error::{ApiError, ErrorBody};
use crate::json::Body;

/// A batch of items.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemsRequest {
    /// 1 to 1,000 items.
    #[schema(value_type = Vec<WireItem>)]
    items: Vec<Value>,
}

/// An item; its features replace the former ones.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireItem {
    /// Which.
    #[schema(value_type = String)]
    item: ItemId,
    /// All its features.
    features: WireFeatures,
    /// False takes it out of feeds. Default true.
    #[serde(default = "yes")]
    active: bool,
    /// When, ms since 1970 UTC; default: now.
    time_ms: Option<i64>,
}

fn yes() -> bool {
    true
}

/// Create or replace items. Answers as `/v1/events` does.
#[utoipa::path(put, path = "/v1/items", request_body = ItemsRequest, responses(
    (status = 200, body = BatchReply), (status = 400, body = ErrorBody), (status = 413, body = ErrorBody),
    (status = 422, body = BatchReply, description = "none was taken; or an error body, where the batch is no batch"),
    (status = 503, body = ErrorBody), (status = 507, body = ErrorBody)))]
pub(crate) async fn put_items(
    State(app): State<Arc<App>>,
    Body(batch): Body<ItemsRequest>,
) -> Result<Response, ApiError> {
    take(app, batch.items, |value, now| {
        let item: WireItem = serde_json::from_value(value)?;
        Ok(Event::Item(Item {
            item: item.item,
            time_ms: item.time_ms.unwrap_or(now),
            features: features(item.features),
            active: item.active,
        }))
    })
    .await
}
