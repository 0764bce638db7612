//! `POST /v1/rank`: order these candidates. Next: `lately-rank/src/ranker.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use lately_features::{ItemId, RequestId, UserId};
use lately_rank::{Pin, RankRequest, RankResponse, Rules};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::admitted::{Admitted, WirePriority};
use super::packed::{Asked, Form, packed_answer};
use crate::app::App;
use crate::error::{ApiError, ErrorBody};

/// What to rank, and for whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RankBody {
    /// For whom.
    #[schema(value_type = String)]
    user: UserId,
    /// 1 to 2,000 items.
    #[schema(value_type = Vec<String>)]
    candidates: Vec<ItemId>,
    /// A surface of the schema.
    surface: Option<String>,
    /// Only the first so many; default: all.
    limit: Option<usize>,
    /// The ranking's id; made where none is given.
    #[schema(value_type = Option<String>)]
    request: Option<RequestId>,
    /// Time for the ranking, ms; when it passes a lower rung orders, and `degraded` says which.
    deadline_ms: Option<u64>,
    /// Whether to explain the scores.
    #[serde(default)]
    explain: bool,
    /// Drop candidates that the user hid (`hidden`) or was shown a short while ago (`shown`). Default: none.
    #[serde(default)]
    drop: Vec<DropRule>,
    /// Whether to space items of one topic. Default false: by score alone.
    #[serde(default)]
    spacing: bool,
    /// Variants to try out, by experiment; they are not logged.
    #[serde(default)]
    variants: BTreeMap<String, String>,
    /// Items that have their places whatever their scores, at most 16; those that cannot are in `dropped`.
    #[serde(default)]
    pins: Vec<WirePin>,
    /// `background` is ranked where nothing else waits, and refused first. Default interactive.
    #[serde(default)]
    priority: WirePriority,
}

/// An item with a place of its own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WirePin {
    /// Which; it need not be among the candidates.
    #[schema(value_type = String)]
    item: ItemId,
    /// Its place, from 0.
    position: u16,
}

/// What to drop.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DropRule {
    /// Items with a negative action of the user.
    Hidden,
    /// Items shown to the user a short while ago.
    Shown,
}

/// A ranking: a permutation of a subset of the candidates.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RankReply {
    /// The ranking's id: name it in the actions that follow.
    request: String,
    /// For whom.
    user: String,
    /// What ranked; null where no model did, see `degraded`.
    model: Option<ModelReply>,
    /// Hash of the schema.
    schema_hash: String,
    /// Version of the item embeddings that the model was trained with.
    embedding_version: Option<String>,
    /// Position in the log up to which everything was known.
    watermark: u64,
    /// What was wrong (no_model, score_deadline, model_error), then the rungs in force (stale_sequence, no_sequence,
    /// first_n, last_good_model, cached_ranking, popularity, input_order), then `exercise` where that was on purpose.
    /// Empty is best.
    degraded: Vec<&'static str>,
    /// On stale_sequence: its age, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence_age_ms: Option<u64>,
    /// Best first.
    items: Vec<ItemReply>,
    /// Candidates that a rule dropped (duplicate, hidden, shown); those beyond the limit are not listed.
    dropped: Vec<DroppedReply>,
    /// The user's variant by experiment, of those that could make a difference to this ranking.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    experiments: BTreeMap<String, String>,
    /// How likely each item was to stand at its place, where some of the order is left to chance; the scores then need not
    /// fall.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    propensities: Vec<f32>,
    /// Where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<ExplainReply>,
    /// Microseconds a stage, and `total`; `queue` is the part of `score` before the first row was scored.
    timings_us: BTreeMap<&'static str, u64>,
}

/// The model that ranked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelReply {
    /// Version in the registry.
    version: String,
    /// Swaps since the server's start.
    generation: u64,
}

/// One ranked item.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ItemReply {
    /// Which.
    item: String,
    /// The value model's score; on lower rungs something else that orders, and never rises with the place.
    score: f32,
    /// Probability by head; empty where no model scored this item.
    heads: BTreeMap<String, f32>,
    /// Place, from 0.
    position: u16,
    /// Where a feed found it: popular, followed, nearest, trending, fresh, random.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
}

/// A candidate that is not in the response.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DroppedReply {
    /// Which.
    item: String,
    /// Why.
    reason: &'static str,
}

/// How scores came about: each is the sum over heads of weight x probability.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainReply {
    /// Weight by head.
    weights: BTreeMap<String, f32>,
    /// Tokens of the user's sequence that the model saw.
    tokens: usize,
    /// Age of the newest known action, ms.
    newest_action_age_ms: Option<i64>,
}

/// Rank candidates for a user.
#[utoipa::path(post, path = "/v1/rank",
    params(("lately-priority" = Option<WirePriority>, Header, description = "As `priority`, before the body is read")),
    request_body(content((RankBody = "application/json"), (Vec<u8> = "application/vnd.lately.rank"))),
    responses(
        (status = 200, content((RankReply = "application/json"), (Vec<u8> = "application/vnd.lately.rank"))),
        (status = 400, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 422, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn post_rank(
    State(app): State<Arc<App>>,
    Admitted(permit, Asked { ask, answer }): Admitted<Asked>,
) -> Result<Response, ApiError> {
    match answer {
        Form::Json => Ok(Json(RankReply::from(app.rank(permit, ask).await?)).into_response()),
        Form::Packed => packed_answer(&app, permit, ask).await,
    }
}

impl From<RankBody> for RankRequest {
    fn from(body: RankBody) -> Self {
        let rules = Rules {
            hidden: body.drop.contains(&DropRule::Hidden),
            shown: body.drop.contains(&DropRule::Shown),
            spacing: body.spacing,
        };
        Self {
            surface: body.surface,
            limit: body.limit,
            request: body.request,
            deadline: body.deadline_ms.map(Duration::from_millis),
            explain: body.explain,
            rules,
            variants: body.variants.into_iter().collect(),
            pins: body.pins.into_iter().map(|p| Pin { item: p.item, position: p.position }).collect(),
            priority: body.priority.into(),
            ..Self::new(body.user, body.candidates)
        }
    }
}

impl From<RankResponse> for RankReply {
    fn from(r: RankResponse) -> Self {
        let named = |values: &[f32]| r.heads.iter().cloned().zip(values.iter().copied()).collect();
        let item = |i: lately_rank::RankedItem| ItemReply {
            item: i.item.into(),
            score: i.score,
            heads: named(&i.heads),
            position: i.position,
            source: i.source.map(lately_rank::Source::name),
        };
        let dropped = |d: lately_rank::Dropped| DroppedReply { item: d.item.into(), reason: d.reason.name() };
        let explain = |e: lately_rank::Explain| ExplainReply {
            weights: named(&e.weights),
            tokens: e.tokens,
            newest_action_age_ms: e.newest_action_age_ms,
        };
        Self {
            items: r.items.into_iter().map(item).collect(),
            dropped: r.dropped.into_iter().map(dropped).collect(),
            experiments: super::forced::named(&r.exposures),
            propensities: r.propensities,
            explain: r.explain.map(explain),
            request: r.request.into(),
            user: r.user.into(),
            embedding_version: r.model.as_ref().map(|m| m.embedding_version.clone()),
            model: r.model.map(|m| ModelReply { version: m.version, generation: m.generation }),
            schema_hash: r.schema_hash,
            watermark: r.watermark,
            sequence_age_ms: r.sequence_age_ms,
            degraded: r.degraded.into_iter().map(lately_rank::Rung::name).collect(),
            timings_us: r.timings_us.into_iter().collect(),
        }
    }
}
