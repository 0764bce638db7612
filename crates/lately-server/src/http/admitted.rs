//! A ranking's body, read only once the ranking is admitted.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Version, header};
use lately_rank::Priority;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::admission::Permit;
use crate::app::App;
use crate::error::ApiError;

/// How long a place is held for a body that is still on its way; then it is for others, and asked for again.
const ON_ITS_WAY: Duration = Duration::from_millis(50);
/// Most of a refused request's body that is read and thrown away, and for how long, so that the connection stays open.
/// Beyond that it is closed: to wait for more, or to read it, would cost more than a new connection.
const THROWN_AWAY: usize = 64 << 10;
const THROW_AWAY: Duration = Duration::from_millis(5);
/// Names a request's priority before its body is read.
pub(crate) const PRIORITY: &str = "lately-priority";

/// Whether a person waits for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WirePriority {
    /// A person waits for it.
    #[default]
    Interactive,
    /// It can wait, and is refused first.
    Background,
}

impl From<WirePriority> for Priority {
    fn from(wire: WirePriority) -> Self {
        match wire {
            WirePriority::Interactive => Self::Interactive,
            WirePriority::Background => Self::Background,
        }
    }
}

/// A place, and the body that was read in it.
pub(crate) struct Admitted<T>(pub(crate) Permit, pub(crate) T);

impl<T: FromRequest<Arc<App>, Rejection = ApiError> + Send> FromRequest<Arc<App>> for Admitted<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let priority = priority(request.headers())?;
        let permit = match app.admit(priority).await {
            Ok(permit) => permit,
            Err(refusal) => {
                throw_away(request).await;
                return Err(refusal);
            }
        };
        let mut body = pin!(T::from_request(request, app));
        if let Ok(body) = tokio::time::timeout(ON_ITS_WAY, &mut body).await {
            return Ok(Self(permit, body?));
        }
        drop(permit);
        let body = body.await?;
        Ok(Self(app.admit(priority).await?, body))
    }
}

fn priority(headers: &HeaderMap) -> Result<Priority, ApiError> {
    named_priority(headers.get(PRIORITY).map(|value| value.as_bytes()))
}

/// A priority by its name, interactive where there is none.
pub(crate) fn named_priority(name: Option<&[u8]>) -> Result<Priority, ApiError> {
    match name {
        None | Some(b"interactive") => Ok(Priority::Interactive),
        Some(b"background") => Ok(Priority::Background),
        Some(_) => {
            let message = format!("{PRIORITY} is interactive or background");
            Err(ApiError::unprocessable("bad_priority", message))
        }
    }
}

/// Reads what is left of a refused request, where that keeps the connection open and costs next to nothing.
async fn throw_away(request: Request) {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let waits = request.headers().contains_key(header::EXPECT);
    if waits || length.unwrap_or(0usize) > THROWN_AWAY || request.version() > Version::HTTP_11 {
        return;
    }
    let all = axum::body::to_bytes(request.into_body(), THROWN_AWAY);
    match tokio::time::timeout(THROW_AWAY, all).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => tracing::debug!("a refused request has more to say: its connection closes"),
    }
}

#[cfg(test)]
mod tests;
