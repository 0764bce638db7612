//! What every wire form does with what it was asked: the same checks.

use std::time::Duration;

use lately_features::{EventId, IdError, ItemId, RequestId, UserId};
use lately_rank::RankConfig;

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

/// The ranker's own deadlines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// Of a request that names none.
    usual: Duration,
    /// The longest that a request may name.
    longest: Duration,
}

impl Deadlines {
    pub(crate) fn new(config: &RankConfig) -> Self {
        let ms = Duration::from_millis;
        Self { usual: ms(config.deadline_ms), longest: ms(config.max_deadline_ms) }
    }

    /// Deadline of a ranking that `asked` for one and whose caller `waits` for so long, `None`: for as long as it takes.
    /// The answer must still reach the caller, so a tenth of the wait stays for the way.
    pub(crate) fn of(self, asked: Option<Duration>, waits: Option<Duration>) -> Option<Duration> {
        let time = asked.unwrap_or(self.usual);
        match waits.map(|waits| (waits * 9 / 10).max(Duration::from_millis(1))) {
            // What would be refused over HTTP must be refused here too, however short the wait.
            Some(share) if share < time && time <= self.longest => Some(share),
            _ => asked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_only_shortens() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let deadlines =
            Deadlines::new(&RankConfig { deadline_ms: 200, max_deadline_ms: 5_000, ..Default::default() });
        assert_eq!((deadlines.of(None, None), deadlines.of(ms(50), None)), (None, ms(50)));
        assert_eq!(deadlines.of(None, ms(60_000)), None, "the ranker's own");
        assert_eq!(deadlines.of(None, ms(100)), ms(90));
        assert_eq!((deadlines.of(ms(50), ms(100)), deadlines.of(ms(300), ms(100))), (ms(50), ms(90)));
        assert_eq!(deadlines.of(None, Some(Duration::ZERO)), ms(1));
        assert_eq!(
            (deadlines.of(ms(0), ms(100)), deadlines.of(ms(9_000), ms(100))),
            (ms(0), ms(9_000)),
            "refused"
        );
    }
}
