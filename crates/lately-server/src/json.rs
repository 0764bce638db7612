//! JSON bodies and query strings: size, kind and depth are checked before anything is built.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::error::ApiError;
use crate::limits::JSON_DEPTH;

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        check_kind(request.headers())?;
        let bytes = body_bytes(request, state).await?;
        Ok(Self(parse(&bytes)?))
    }
}

/// The whole body, of at most as many bytes as the route's limit says.
pub(crate) async fn body_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = "the body is too large: send smaller batches";
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        }
        _ => ApiError::new(StatusCode::BAD_REQUEST, "bad_body", "the body ended early"),
    })
}

/// A query string.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(e) => Err(ApiError::unprocessable("bad_query", e.body_text())),
        }
    }
}

fn check_kind(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = text(headers, header::CONTENT_TYPE).unwrap_or_default();
    // Asking for it also keeps plain web forms of other sites out.
    if !kind.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json")) {
        return unsupported("send Content-Type: application/json");
    }
    check_plain(headers)
}

/// Refuses a compressed body.
pub(crate) fn check_plain(headers: &HeaderMap) -> Result<(), ApiError> {
    let encoding = header::CONTENT_ENCODING;
    if headers.contains_key(&encoding) && text(headers, encoding) != Some("identity") {
        return unsupported("send the body uncompressed, without Content-Encoding");
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn unsupported(message: &str) -> Result<(), ApiError> {
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if deeper_than(bytes, JSON_DEPTH) {
        let message = format!("the JSON is nested deeper than {JSON_DEPTH}: flatten it");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "too_deep", message));
    }
    serde_json::from_slice(bytes).map_err(|e| match e.classify() {
        Category::Data => ApiError::unprocessable("bad_request", e.to_string()),
        _ => ApiError::new(StatusCode::BAD_REQUEST, "bad_json", format!("the body is not JSON: {e}")),
    })
}

/// Counts brackets outside of strings; one pass, nothing is built.
fn deeper_than(bytes: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert!(!deeper_than(br#"[[["[[[[[\"[[["]],{}]"#, 3));
        assert!(deeper_than(b"[[[[", 3));
        assert!(!deeper_than(b"[][][][][]", 1));
        assert!(deeper_than(&b"[".repeat(33), 32) && !deeper_than(&b"[".repeat(32), 32));
    }

    #[test]
    fn bad_json_and_wrong_json_differ() {
        let code = |text: &str| parse::<Vec<u32>>(text.as_bytes()).unwrap_err().code;
        assert_eq!((code("[1"), code("{}"), code(&"[".repeat(99))), ("bad_json", "bad_request", "too_deep"));
    }
}
