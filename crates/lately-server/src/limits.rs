//! The doors' named limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Deepest nesting of JSON that is read.
pub(crate) const JSON_DEPTH: usize = 32;

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
    /// Time for a request's headers, ms. Default 5,000.
    pub header_read_ms: u64,
    /// Time for a whole request, its body included, ms. Default 10,000.
    pub request_ms: u64,
    /// Rankings in work at a time. Default 64.
    pub rankings: usize,
    /// Writes and reads of the store in work at a time: many share one fsync. Default 256.
    pub writes: usize,
    /// How long a request waits for its turn before it is refused as overloaded, ms. Default 100.
    pub wait_ms: u64,
    /// Time for requests in work when the server stops, ms. Default 10,000.
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            batch_bytes: 4 << 20,
            batch_events: 1_000,
            connections: 1_024,
            header_read_ms: 5_000,
            request_ms: 10_000,
            rankings: 64,
            writes: 256,
            wait_ms: 100,
            drain_ms: 10_000,
        }
    }
}

impl Limits {
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }
}
