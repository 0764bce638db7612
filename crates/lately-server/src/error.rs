//! Every error as `{"error":{"code","message"}}`, without internals.

use std::error::Error;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lately_features::EventError;
use lately_rank::RankError;
use lately_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

/// An error as the client sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
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
        Self { status, code, message: message.into() }
    }

    pub(crate) fn unprocessable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(crate) fn overloaded(what: &str) -> Self {
        let message = format!("{what}: send again in a moment");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
    }

    /// The cause goes to the server's own log only.
    pub(crate) fn internal(what: &str, error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error, "{what} failed");
        let message = "an internal error; the server's log has the cause";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: ErrorDetail { code: self.code, message: self.message } };
        let mut response = (self.status, axum::Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
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
            RankError::Overloaded { .. } => return Self::overloaded("too many rankings wait"),
            RankError::Closed => return Self::overloaded("the server is stopping"),
        };
        Self::unprocessable(code, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Overloaded { .. } => return Self::overloaded("the log's queue is full"),
            StoreError::Closed => return Self::overloaded("the server is stopping"),
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
