//! The doors' named limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Deepest nesting of JSON that is read.
pub(crate) const JSON_DEPTH: usize = 32;
/// Most bytes of a request's headers.
pub(crate) const HEADER_BYTES: usize = 64 << 10;
/// Largest frame of HTTP/2, bytes.
pub(crate) const FRAME_BYTES: u32 = 64 << 10;
/// Bytes of an HTTP/2 stream that a client may send ahead of the server's reading: a body of 256 KiB comes in one go.
pub(crate) const STREAM_BYTES: u32 = 256 << 10;
/// Likewise of a whole HTTP/2 connection: what slow handlers can hold of it in memory.
pub(crate) const WINDOW_BYTES: u32 = 1 << 20;

/// Limits of the HTTP doors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest body, bytes. Default 1 MiB.
    pub body_bytes: usize,
    /// Largest body of a batch of events or items, bytes. Default 4 MiB.
    pub batch_bytes: usize,
    /// Most events or items of a batch. Default 1,000.
    pub batch_events: usize,
    /// Open connections of each door; more wait in the system's backlog. Default 1,024.
    pub connections: usize,
    /// Requests in work at a time on one HTTP/2 connection. Default 256.
    pub streams: u32,
    /// Time for a new connection's first bytes, and from the first byte of a request's headers to the last, ms.
    /// Default 5,000.
    pub header_read_ms: u64,
    /// How long a connection is kept without a request, ms. Default 60,000.
    pub idle_ms: u64,
    /// Time between pings on an HTTP/2 connection, ms. Default 20,000.
    pub ping_ms: u64,
    /// Time for the answer to a ping before the connection counts as dead, ms. Default 10,000.
    pub ping_answer_ms: u64,
    /// Time for a whole request, its body included, ms. Default 10,000.
    pub request_ms: u64,
    /// Fewest rankings that may be in work at a time, however long they wait for each other. Default 4.
    pub rankings_min: usize,
    /// Most rankings that may be in work at a time, each on a thread of its own. Default 256.
    pub rankings_max: usize,
    /// Rankings that may wait to get to work; more are refused as overloaded. Default 1,024.
    pub rankings_waiting: usize,
    /// Writes and reads of the store in work at a time: many share one fsync. Default 256.
    pub writes: usize,
    /// How long a request waits for its turn before it is refused as overloaded, ms. Default 100.
    pub wait_ms: u64,
    /// Time between the moment from which a server that stops says that it is not ready, and its closing, ms: as long
    /// as load balancers need to notice. Default 0.
    pub drain_delay_ms: u64,
    /// Time for requests in work when the server closes, ms. Default 10,000.
    pub drain_ms: u64,
    /// Rankings of one user a second; ten seconds' at once. 0: no limit. Default 50.
    pub user_rankings: u32,
    /// Actions of one user a second; ten seconds' at once. 0: no limit. Default 200.
    pub user_actions: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            batch_bytes: 4 << 20,
            batch_events: 1_000,
            connections: 1_024,
            streams: 256,
            header_read_ms: 5_000,
            idle_ms: 60_000,
            ping_ms: 20_000,
            ping_answer_ms: 10_000,
            request_ms: 10_000,
            rankings_min: 4,
            rankings_max: 256,
            rankings_waiting: 1_024,
            writes: 256,
            wait_ms: 100,
            drain_delay_ms: 0,
            drain_ms: 10_000,
            user_rankings: 50,
            user_actions: 200,
        }
    }
}

/// A limit that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[serve.limits] {name} is {value}: it must be {low} to {high}")]
pub struct LimitError {
    name: &'static str,
    value: u64,
    low: u64,
    high: u64,
}

impl Limits {
    /// Checks the ranges of the numbers.
    ///
    /// # Errors
    /// [`LimitError`] for the first that is out of its range.
    pub fn check(&self) -> Result<(), LimitError> {
        let range = |name, value, low, high| match value {
            value if (low..=high).contains(&value) => Ok(()),
            value => Err(LimitError { name, value, low, high }),
        };
        const HOUR: u64 = 3_600_000;
        range("body_bytes", self.body_bytes as u64, 1_024, 1 << 30)?;
        range("batch_bytes", self.batch_bytes as u64, 1_024, 1 << 30)?;
        range("batch_events", self.batch_events as u64, 1, 1 << 20)?;
        range("connections", self.connections as u64, 1, 1 << 20)?;
        range("header_read_ms", self.header_read_ms, 1, HOUR)?;
        range("streams", self.streams.into(), 1, 1 << 16)?;
        range("idle_ms", self.idle_ms, 1, 24 * HOUR)?;
        range("ping_ms", self.ping_ms, 1, HOUR)?;
        range("ping_answer_ms", self.ping_answer_ms, 1, HOUR)?;
        range("drain_delay_ms", self.drain_delay_ms, 0, HOUR)?;
        range("request_ms", self.request_ms, 1, HOUR)?;
        range("rankings_max", self.rankings_max as u64, 1, 4_096)?;
        range("rankings_min", self.rankings_min as u64, 1, self.rankings_max as u64)?;
        range("rankings_waiting", self.rankings_waiting as u64, 0, 1 << 20)?;
        range("writes", self.writes as u64, 1, 4_096)?;
        range("wait_ms", self.wait_ms, 0, HOUR)?;
        range("drain_ms", self.drain_ms, 0, HOUR)
    }

    pub(crate) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }
}
