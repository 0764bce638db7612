//! `POST /v1/events`: what users did and saw.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use lately_features::event::Event;
use lately_features::{Action, EventId, Impression, ImpressionItem, ItemId, RequestId, User, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::values::{WireFeatures, features};
use crate::app::{App, now_ms};
use crate::error::{ApiError, ErrorBody, event_code, seconds};
use crate::json::Body;

/// A batch of events.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsRequest {
    /// 1 to 1,000 events.
    #[schema(value_type = Vec<WireEvent>)]
    events: Vec<Value>,
}

/// One event.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum WireEvent {
    /// A user did something with an item.
    Action(WireAction),
    /// A list was shown that Lately did not rank.
    Impression(WireImpression),
    /// A user was created or changed.
    User(WireUser),
}

/// A user did something with an item.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireAction {
    /// The client's id; the same id again counts once.
    #[schema(value_type = String)]
    pub(crate) event_id: EventId,
    /// Who.
    #[schema(value_type = String)]
    pub(crate) user: UserId,
    /// With what.
    #[schema(value_type = String)]
    pub(crate) item: ItemId,
    /// An action type of the schema.
    pub(crate) action: String,
    /// When, ms since 1970 UTC; default: now.
    pub(crate) time_ms: Option<i64>,
    /// The ranking that showed the item.
    #[schema(value_type = Option<String>)]
    pub(crate) request: Option<RequestId>,
    /// A surface of the schema.
    pub(crate) surface: Option<String>,
}

/// A list was shown that Lately did not rank; what it ranks it logs itself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireImpression {
    /// Its id, to be named in the actions that follow.
    #[schema(value_type = String)]
    pub(crate) request: RequestId,
    /// To whom.
    #[schema(value_type = String)]
    pub(crate) user: UserId,
    /// A surface of the schema.
    pub(crate) surface: Option<String>,
    /// When, ms since 1970 UTC; default: now.
    pub(crate) time_ms: Option<i64>,
    /// What was shown, in order.
    #[schema(value_type = Vec<String>)]
    pub(crate) items: Vec<ItemId>,
}

/// A user was created or changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireUser {
    /// Who.
    #[schema(value_type = String)]
    pub(crate) user: UserId,
    /// When, ms since 1970 UTC; default: now.
    pub(crate) time_ms: Option<i64>,
    /// All the features.
    pub(crate) features: WireFeatures,
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchReply {
    /// Taken and durable: after this answer they are in every ranking and survive any crash.
    pub(crate) accepted: usize,
    /// How many of those had been sent before, by their ids: they count once.
    pub(crate) duplicates: usize,
    /// A ranking with at least this watermark knows all that was accepted.
    pub(crate) watermark: u64,
    /// Not taken; the rest was.
    pub(crate) rejected: Vec<Rejected>,
    /// When an entry would be taken that was too much for its user for now.
    #[serde(skip)]
    pub(crate) wait: Option<Duration>,
}

/// An entry of a batch that was not taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rejected {
    /// Its place in the batch, from 0.
    pub(crate) index: usize,
    /// Stable name of the reason.
    pub(crate) code: &'static str,
    /// What to do about it.
    pub(crate) message: String,
}

/// Append actions, impressions and users.
///
/// Each event stands alone: the good ones are taken, the others come back in `rejected` with their index, code and
/// message. 200 where at least one was taken; else, with the same body, 429 where one was more than its user may send
/// for now, or 422. After any other error nothing was acknowledged; to send the same batch again is safe.
#[utoipa::path(post, path = "/v1/events", request_body = EventsRequest, responses(
    (status = 200, body = BatchReply), (status = 400, body = ErrorBody), (status = 413, body = ErrorBody),
    (status = 422, body = BatchReply, description = "none was taken; or an error body, where the batch is no batch"),
    (status = 429, body = BatchReply), (status = 503, body = ErrorBody), (status = 507, body = ErrorBody)))]
pub(crate) async fn post_events(
    State(app): State<Arc<App>>,
    Body(batch): Body<EventsRequest>,
) -> Result<BatchReply, ApiError> {
    let read =
        |value, now| Ok::<_, serde_json::Error>(serde_json::from_value::<WireEvent>(value)?.into_event(now));
    take(&app, batch.events, read).await
}

/// Validates each entry, appends the good ones, and reports.
pub(crate) async fn take<T, E: Display>(
    app: &App,
    batch: Vec<T>,
    read: impl Fn(T, i64) -> Result<Event, E>,
) -> Result<BatchReply, ApiError> {
    let begin = Instant::now();
    let limit = app.limits.batch_events;
    if batch.is_empty() || batch.len() > limit {
        let message = format!("a batch of {}: send 1 to {limit}", batch.len());
        return Err(ApiError::unprocessable("batch_size", message));
    }
    let (now, mut wait) = (now_ms(), None);
    let (mut good, mut rejected) = (Vec::with_capacity(batch.len()), Vec::new());
    for (index, entry) in batch.into_iter().enumerate() {
        match check(app, read(entry, now), now) {
            Ok(event) => good.push(event),
            Err(refused) => {
                metrics::counter!("lately_events_total", "type" => refused.kind, "result" => "rejected")
                    .increment(1);
                wait = wait.max(refused.wait);
                rejected.push(Rejected { index, code: refused.code, message: refused.message });
            }
        }
    }
    let kinds: Vec<_> = good.iter().map(kind).collect();
    let mut reply = BatchReply { accepted: good.len(), duplicates: 0, watermark: 0, rejected, wait };
    if !good.is_empty() {
        let store = app.store.clone();
        reply.duplicates = app.writes.run(move || store.append(good)).await??.duplicates;
    }
    reply.watermark = app.store.next_offset();
    for kind in &kinds {
        metrics::counter!("lately_events_total", "type" => *kind, "result" => "accepted").increment(1);
    }
    if kinds.contains(&"action") {
        metrics::histogram!("lately_freshness_seconds").record(begin.elapsed().as_secs_f64());
    }
    Ok(reply)
}

/// An entry that is not taken.
struct Refused {
    kind: &'static str,
    code: &'static str,
    message: String,
    /// When it would be.
    wait: Option<Duration>,
}

/// Whether an entry is an event that the schema knows, of a user who may send one more.
fn check<E: Display>(app: &App, event: Result<Event, E>, now: i64) -> Result<Event, Refused> {
    let refused = |kind, code, message| Refused { kind, code, message, wait: None };
    let event = event.map_err(|e| refused("unknown", "bad_event", e.to_string()))?;
    event.validate(&app.schema, now).map_err(|e| refused(kind(&event), event_code(&e), e.to_string()))?;
    if let Event::Action(action) = &event {
        app.caps.action(&action.user).map_err(|wait| {
            let message = format!("too many actions of this user: send again in {} s", seconds(wait));
            Refused { wait: Some(wait), ..refused("action", "too_many_requests", message) }
        })?;
    }
    Ok(event)
}

/// 200 where at least one entry was taken; else 429 where one would be later, and 422 where none would.
impl IntoResponse for BatchReply {
    fn into_response(self) -> Response {
        match self.wait {
            _ if self.accepted > 0 => Json(self).into_response(),
            None => (StatusCode::UNPROCESSABLE_ENTITY, Json(self)).into_response(),
            Some(wait) => {
                let retry_after = [(header::RETRY_AFTER, seconds(wait).to_string())];
                (StatusCode::TOO_MANY_REQUESTS, retry_after, Json(self)).into_response()
            }
        }
    }
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Action(_) => "action",
        Event::Impression(_) => "impression",
        Event::Item(_) => "item",
        Event::User(_) => "user",
        Event::Forget(_) => "forget",
    }
}

impl WireEvent {
    pub(crate) fn into_event(self, now: i64) -> Event {
        match self {
            Self::Action(e) => Event::Action(Action {
                event_id: e.event_id,
                user: e.user,
                item: e.item,
                action: e.action,
                time_ms: e.time_ms.unwrap_or(now),
                request: e.request,
                surface: e.surface,
            }),
            Self::Impression(e) => {
                let items = e.items.into_iter().enumerate().map(|(position, item)| shown(item, position));
                let time_ms = e.time_ms.unwrap_or(now);
                Event::Impression(Impression::outside(e.request, e.user, e.surface, time_ms, items.collect()))
            }
            Self::User(e) => Event::User(User {
                user: e.user,
                time_ms: e.time_ms.unwrap_or(now),
                features: features(e.features),
            }),
        }
    }
}

fn shown(item: ItemId, position: usize) -> ImpressionItem {
    // Validation refuses lists that are longer than positions go.
    ImpressionItem::unscored(item, position.min(u16::MAX.into()) as u16)
}
