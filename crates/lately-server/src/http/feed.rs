//! `GET /v1/feed`: find candidates and order them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use lately_features::{RequestId, UserId};
use lately_rank::FeedRequest;
use serde::Deserialize;
use utoipa::IntoParams;

use super::admitted::WirePriority;
use super::forced;
use super::rank::RankReply;
use crate::app::App;
use crate::error::{ApiError, ErrorBody};
use crate::json::Params;

/// What to show, and to whom.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FeedParams {
    /// To whom.
    #[param(value_type = String)]
    user: UserId,
    /// Items at most; default 20, at most 2,000.
    #[serde(default = "default_limit")]
    limit: usize,
    /// A surface of the schema.
    surface: Option<String>,
    /// The ranking's id; made where none is given. The random candidates follow from it.
    #[param(value_type = Option<String>)]
    request: Option<RequestId>,
    /// Time for the ranking, ms.
    deadline_ms: Option<u64>,
    /// Variants to try out, as `experiment:variant`, several joined by commas; they are not logged.
    variants: Option<String>,
    /// Whether to explain the scores.
    #[serde(default)]
    explain: bool,
    /// `background` is ranked where nothing else waits, and refused first. Default interactive.
    #[serde(default)]
    priority: WirePriority,
}

pub(crate) fn default_limit() -> usize {
    20
}

/// A feed: candidates by nearest item embeddings, followed topics, trends, newness, popularity and chance, without what the
/// user hid or was shown a short while ago, ranked and spaced by topic.
#[utoipa::path(get, path = "/v1/feed", params(FeedParams), responses(
    (status = 200, body = RankReply), (status = 422, body = ErrorBody), (status = 429, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
pub(crate) async fn get_feed(
    State(app): State<Arc<App>>,
    Params(params): Params<FeedParams>,
) -> Result<Json<RankReply>, ApiError> {
    let priority = params.priority.into();
    let permit = app.admit(priority).await?;
    let ask = FeedRequest {
        priority,
        surface: params.surface,
        request: params.request,
        deadline: params.deadline_ms.map(Duration::from_millis),
        explain: params.explain,
        variants: forced::from_query(params.variants.as_deref())?,
        ..FeedRequest::new(params.user, params.limit)
    };
    Ok(Json(app.feed(permit, ask).await?.into()))
}
