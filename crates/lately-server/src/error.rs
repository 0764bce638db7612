//! Every error as `{"error":{"code","message"}}`, without internals.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lately_features::EventError;
use lately_rank::RankError;
use lately_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

/// Callers who are refused at once are told to come again in turn this many seconds apart, or they would all come again
/// at once.
const SPREAD: u64 = 3;

/// An error as the client sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// When to come again, s.
    pub(crate) retry_after: Option<u64>,
}

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// Stable name for programs.
    code: &'static str,
    /// For people; says what to do.
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { status, code, message: message.into(), retry_after }
    }

    pub(crate) fn unprocessable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// The server has more to do than it can; what it has is done after `wait`.
    pub(crate) fn overloaded(what: &str, wait: Duration) -> Self {
        static REFUSED: AtomicU64 = AtomicU64::new(0);
        let message = format!("{what}: send again in a moment");
        let spread = REFUSED.fetch_add(1, Ordering::Relaxed) % SPREAD;
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message);
        Self { retry_after: Some(seconds(wait) + spread), ..error }
    }

    /// This caller has sent more than it may; the next is taken after `wait`.
    pub(crate) fn too_many(what: &str, wait: Duration) -> Self {
        let retry_after = seconds(wait);
        let message = format!("{what}: send again in {retry_after} s");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// The cause goes to the server's own log only.
    pub(crate) fn internal(what: &str, error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error, "{what} failed");
        let message = "an internal error; the server's log has the cause";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

/// Whole seconds, rounded up, one at least.
pub(crate) fn seconds(wait: Duration) -> u64 {
    wait.as_secs_f64().ceil().max(1.0) as u64
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: ErrorDetail { code: self.code, message: self.message } };
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<RankError> for ApiError {
    fn from(error: RankError) -> Self {
        let code = match &error {
            RankError::NoCandidates => "no_candidates",
            RankError::TooManyCandidates { .. } => "too_many_candidates",
            RankError::UnknownSurface(_) => "unknown_surface",
            RankError::Deadline { .. } => "bad_deadline",
            RankError::Variant(_) => "unknown_variant",
            RankError::Overloaded { reason, retry_after } => {
                return Self::overloaded(&reason.to_string(), *retry_after);
            }
            RankError::Closed => return Self::overloaded("the server is stopping", Duration::ZERO),
        };
        Self::unprocessable(code, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Overloaded { .. } => {
                return Self::overloaded("the log's queue is full", Duration::ZERO);
            }
            StoreError::Closed => return Self::overloaded("the server is stopping", Duration::ZERO),
            StoreError::Refused { source, .. } => {
                return Self::unprocessable(event_code(source), source.to_string());
            }
            _ => {}
        }
        tracing::error!(%error, "the store failed");
        if disk_full(&error) {
            let message = "the disk is full: nothing was taken; free space and send again";
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", message);
        }
        if matches!(error, StoreError::Poisoned(_)) {
            let message =
                "the log stopped after a failed write: nothing was taken; the operator must restart it";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "log_stopped", message);
        }
        Self::internal("the store", &error)
    }
}

fn disk_full(error: &StoreError) -> bool {
    let StoreError::Engine(engine) = error else { return false };
    let mut next: Option<&(dyn Error + 'static)> = Some(&**engine);
    while let Some(error) = next {
        if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Stable name of what is wrong with an event.
pub(crate) fn event_code(error: &EventError) -> &'static str {
    match error {
        EventError::UnknownAction(_) => "unknown_action",
        EventError::UnknownSurface(_) => "unknown_surface",
        EventError::UnknownFeature(_) => "unknown_feature",
        EventError::WrongKind { .. } => "wrong_kind",
        EventError::WrongLength { .. } => "wrong_length",
        EventError::TooManyValues { .. } => "too_many_values",
        EventError::NotFinite(_) => "not_finite",
        EventError::TooOld(_) => "time_too_old",
        EventError::Future(_) => "time_in_future",
        EventError::ImpressionSize(_) => "impression_size",
        EventError::RepeatedItem(_) => "repeated_item",
    }
}
