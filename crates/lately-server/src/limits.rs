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
    /// Rankings in work at a time. Default 64.
    pub rankings: usize,
    /// Writes and reads of the store in work at a time: many share one fsync. Default 256.
    pub writes: usize,
    /// How long a request waits for its turn before it is refused as overloaded, ms. Default 100.
    pub wait_ms: u64,
    /// Time between the moment from which a server that stops says that it is not ready, and its closing, ms: as long
    /// as load balancers need to notice. Default 0.
    pub drain_delay_ms: u64,
    /// Time for requests in work when the server closes, ms. Default 10,000.
    pub drain_ms: u64,
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
            rankings: 64,
            writes: 256,
            wait_ms: 100,
            drain_delay_ms: 0,
            drain_ms: 10_000,
        }
    }
}

impl Limits {
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }
}
