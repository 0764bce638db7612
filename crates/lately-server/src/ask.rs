//! What every wire form does with what it was asked: the same checks.

use std::time::Duration;

use lately_features::{EventId, IdError, ItemId, RequestId, UserId};

use crate::app::App;
use crate::error::ApiError;

/// A text that is to be an id, and the name of its field in messages.
fn id<T>(field: &str, text: &str, new: fn(&str) -> Result<T, IdError>) -> Result<T, ApiError> {
    new(text).map_err(|error| bad(format!("{field}: {error}")))
}

pub(crate) fn user(text: &str) -> Result<UserId, ApiError> {
    id("user", text, |t| UserId::new(t))
}

pub(crate) fn item(text: &str) -> Result<ItemId, ApiError> {
    id("item", text, |t| ItemId::new(t))
}

pub(crate) fn event(text: &str) -> Result<EventId, ApiError> {
    id("event_id", text, |t| EventId::new(t))
}

pub(crate) fn request(text: &str) -> Result<RequestId, ApiError> {
    id("request", text, |t| RequestId::new(t))
}

/// The ids of a list; the first bad one is named with its place.
pub(crate) fn items<T: AsRef<str>>(
    field: &str,
    texts: impl IntoIterator<Item = T>,
) -> Result<Vec<ItemId>, ApiError> {
    let item =
        |(i, text): (usize, T)| ItemId::new(text).map_err(|error| bad(format!("{field}[{i}]: {error}")));
    texts.into_iter().enumerate().map(item).collect()
}

/// The form is right and what stands in it is not.
pub(crate) fn bad(message: impl Into<String>) -> ApiError {
    ApiError::unprocessable("bad_request", message)
}

/// Time for a ranking whose caller waits for `waits`, `None`: for as long as it takes. `asked` is what the request
/// itself names. The answer must still reach the caller, so a tenth of the wait stays for the way.
pub(crate) fn deadline(app: &App, asked: Option<Duration>, waits: Option<Duration>) -> Option<Duration> {
    let Some(waits) = waits else { return asked };
    let share = (waits * 9 / 10).max(Duration::from_millis(1));
    let time = asked.unwrap_or(app.rank_deadline);
    // What would be refused over HTTP must be refused here too, so only a shorter time takes the place of `asked`.
    if share < time && time <= app.max_rank_deadline { Some(share) } else { asked }
}
