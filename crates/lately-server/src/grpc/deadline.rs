//! `grpc-timeout`: how long the caller waits.

use std::time::{Duration, Instant};

use axum::http::{Extensions, HeaderMap};

use crate::error::ApiError;

/// Until when the caller waits; beside a call's message.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitsUntil(pub(super) Instant);

/// How long the caller of a message still waits; `None`: for as long as it takes.
pub(super) fn waits(extensions: &Extensions) -> Option<Duration> {
    extensions.get().map(|WaitsUntil(end)| end.saturating_duration_since(Instant::now()))
}

/// The header's value: up to eight digits and a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    match value.to_str().ok().and_then(parse) {
        Some(time) => Ok(Some(time)),
        None => {
            let message = "grpc-timeout: send 1 to 8 digits and one of H, M, S, m, u, n";
            Err(ApiError::unprocessable("bad_deadline", message))
        }
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse::<u64>().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_the_rest_is_refused() {
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        let times = ["2M", "3S", "4m", "5u", "6n", "0m"].map(|t| parse(t).unwrap().as_nanos());
        assert_eq!(times, [120_000_000_000, 3_000_000_000, 4_000_000, 5_000, 6, 0]);
        for bad in ["", "m", "5", "5s", "-5m", "+5m", "1.5S", "123456789m", "5 m", "5\u{fc}"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
