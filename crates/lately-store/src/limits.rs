//! The store's named limits.

use serde::{Deserialize, Serialize};

/// Bounds of the store. Every queue and buffer has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreLimits {
    /// Events that may wait in front of the log. Default 65,536.
    pub queue_events: usize,
    /// How long an append may wait for a place in that queue before it is refused as overloaded, ms. Default 2,000.
    pub queue_wait_ms: u64,
    /// Most events of one atomic batch, which is also one fsync; a longer append is cut. Default 4,096.
    pub batch_events: usize,
    /// Memory for sequences of users who were read lately, bytes. Default 256 MiB.
    pub sequence_cache_bytes: u64,
    /// Memory for blocks of files, bytes. Default 64 MiB.
    pub block_cache_bytes: u64,
    /// Journal on disk that a restart may have to replay, bytes, at least 64 MiB. Default 256 MiB.
    pub journal_bytes: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            queue_events: 65_536,
            queue_wait_ms: 2_000,
            batch_events: 4_096,
            sequence_cache_bytes: 256 << 20,
            block_cache_bytes: 64 << 20,
            journal_bytes: 256 << 20,
        }
    }
}
