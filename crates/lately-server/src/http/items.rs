//! `PUT /v1/items`: what can be shown.

use std::sync::Arc;

use axum::extract::State;
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
    pub(crate) item: ItemId,
    /// All its features.
    pub(crate) features: WireFeatures,
    /// False takes it out of feeds. Default true.
    #[serde(default = "yes")]
    pub(crate) active: bool,
    /// When, ms since 1970 UTC; default: now.
    pub(crate) time_ms: Option<i64>,
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
) -> Result<BatchReply, ApiError> {
    let read =
        |value, now| Ok::<_, serde_json::Error>(serde_json::from_value::<WireItem>(value)?.into_event(now));
    take(&app, batch.items, read).await
}

impl WireItem {
    pub(crate) fn into_event(self, now: i64) -> Event {
        Event::Item(Item {
            item: self.item,
            time_ms: self.time_ms.unwrap_or(now),
            features: features(self.features),
            active: self.active,
        })
    }
}
