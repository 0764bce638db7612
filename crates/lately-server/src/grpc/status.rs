//! Errors as gRPC says them: the status that fits, and the code of the HTTP interface beside it.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::error::ApiError;

/// The stable code of an error, the same as in HTTP's JSON.
pub(super) const CODE: &str = "lately-code";
/// How long to wait before sending again, ms: what gRPC's own retries look at.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let (code, message) = (code(&error), error.message.clone());
        let mut metadata = MetadataMap::new();
        metadata.insert(CODE, MetadataValue::from_static(error.code));
        if let Some(ms) = retry_ms(error) {
            metadata.insert(PUSHBACK, ms.into());
        }
        Self::with_metadata(code, message, metadata)
    }
}

fn code(error: &ApiError) -> Code {
    match error.status {
        _ if error.code == "timeout" => Code::DeadlineExceeded,
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::UNPROCESSABLE_ENTITY => {
            Code::InvalidArgument
        }
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT => Code::FailedPrecondition,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS | StatusCode::INSUFFICIENT_STORAGE => {
            Code::ResourceExhausted
        }
        StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// What the error's HTTP form says in `Retry-After`, so that both say the same.
fn retry_ms(error: ApiError) -> Option<u64> {
    let response = error.into_response();
    let seconds: u64 = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(seconds.saturating_mul(1_000))
}

/// The error behind a status that tonic made before a service saw the call; `None` where a service made it.
pub(super) fn of_tonic(headers: &HeaderMap) -> Option<ApiError> {
    let status = Status::from_header_map(headers).filter(|_| !headers.contains_key(CODE))?;
    match status.code() {
        Code::OutOfRange => {
            let message = "the message is too large: send smaller batches";
            Some(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message))
        }
        Code::Unimplemented => {
            let message = format!("no such method, or a compressed message: {}", status.message());
            Some(ApiError::new(StatusCode::NOT_IMPLEMENTED, "no_such_path", message))
        }
        Code::Internal => {
            let message = format!("the bytes are no message of this method: {}", status.message());
            Some(ApiError::new(StatusCode::BAD_REQUEST, "bad_message", message))
        }
        _ => None,
    }
}
