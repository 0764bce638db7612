//! What there is in a lake, for people and for metrics.

use serde::Serialize;

use super::Lake;
use super::delays::DelayReport;

/// What an [`advance`](Lake::advance) did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Advanced {
    /// Log records joined; those that were read again after a crash do not count.
    pub events: u64,
    /// Requests written.
    pub rows: u64,
    /// Their candidates.
    pub candidates: u64,
    /// Candidates written again because something followed after their row was written.
    pub corrections: u64,
    /// Manifests written.
    pub commits: u64,
    /// Requests that wait for their labels.
    pub open: usize,
    /// First log record that is not yet joined.
    pub next_offset: u64,
    /// How long a request waits now, ms.
    pub wait_ms: i64,
}

/// What a [`maintain`](Lake::maintain) did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Maintained {
    /// Hours that were written again.
    pub hours: u64,
    /// Files that were in them.
    pub files: u64,
    /// Requests that were written again.
    pub rows: u64,
    /// Files dropped because they were past retention.
    pub dropped: u64,
    /// Wishes to be forgotten that all files now follow.
    pub forgotten: u64,
    /// Damaged objects moved aside.
    pub quarantined: u64,
}

/// What there is in a lake.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LakeSummary {
    /// Number of the manifest.
    pub manifest: u64,
    /// First log record that is not yet joined.
    pub next_offset: u64,
    /// Files of requests.
    pub files: u64,
    /// Requests written.
    pub rows: u64,
    /// Their candidates.
    pub candidates: u64,
    /// Bytes of the files of requests, items and corrections.
    pub bytes: u64,
    /// Bytes of the state that is needed to go on.
    pub state_bytes: u64,
    /// Requests that wait for their labels.
    pub open_requests: u64,
    /// How long a request waits, s.
    pub wait_seconds: f64,
    /// Time of the latest request, ms since 1970 UTC; `None` before the first.
    pub log_time_ms: Option<i64>,
    /// By action type, how long it takes to come.
    pub delays: Vec<DelayReport>,
    /// By action type, how many came after their row was written.
    pub late_positives: Vec<u64>,
    /// Candidates of the corrections that are not yet folded in.
    pub corrections: u64,
    /// Users whose wish to be forgotten is not yet in the files.
    pub forgotten: u64,
    /// Objects that were damaged, as they were named; they are under `quarantine/`.
    pub quarantined: Vec<String>,
}

impl Lake {
    /// What there is, as of the last commit.
    pub fn summary(&self) -> LakeSummary {
        let m = &self.manifest;
        let bytes = |objects: &[super::manifest::Object]| objects.iter().map(|o| o.bytes).sum::<u64>();
        let files = m.files.iter().map(|f| f.requests.bytes + f.items.bytes).sum::<u64>();
        LakeSummary {
            manifest: m.number,
            next_offset: m.next_offset,
            files: m.files.len() as u64,
            rows: m.files.iter().map(|f| f.rows).sum(),
            candidates: m.files.iter().map(|f| f.candidates).sum(),
            bytes: files + m.corrections.iter().map(|c| c.object.bytes).sum::<u64>(),
            state_bytes: bytes(&m.state) + bytes(&m.since),
            open_requests: m.counts.open_requests,
            wait_seconds: m.counts.wait_ms as f64 / 1000.0,
            log_time_ms: Some(m.counts.log_time_ms).filter(|ms| *ms > i64::MIN && m.number > 0),
            delays: m.counts.delays.clone(),
            late_positives: m.counts.late.clone(),
            corrections: m.corrections.iter().map(|c| c.rows).sum(),
            forgotten: m.forgotten.len() as u64,
            quarantined: m.quarantined.clone(),
        }
    }
}
