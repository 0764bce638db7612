//! What a join counted: the numbers to look at when rows or labels are fewer than expected.

use serde::Serialize;

/// What a join counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JoinStats {
    /// Records read.
    pub events: u64,
    /// Actions, repeats included.
    pub actions: u64,
    /// Actions whose event id had been seen before.
    pub repeated_actions: u64,
    /// Actions of a type that the schema no longer has.
    pub unknown_actions: u64,
    /// Item and user records that the schema no longer takes; the features before them stay.
    pub bad_features: u64,
    /// Impressions, all.
    pub impressions: u64,
    /// Impressions whose request id had been seen before.
    pub repeated_impressions: u64,
    /// Impressions left out because the server had degraded other than by having no model yet.
    pub degraded: u64,
    /// Impressions left out because more was logged between their watermark and themselves than `slack` covers.
    pub unknowable: u64,
    /// Impressions outside of the range of time.
    pub outside: u64,
    /// Requests dropped because their user asked to be forgotten.
    pub forgotten: u64,
    /// Requests in the dataset.
    pub requests: u64,
    /// Rows in the dataset.
    pub rows: u64,
    /// Tokens in the dataset.
    pub tokens: u64,
    /// For each head the rows whose label is 1.
    pub positives: Vec<u64>,
    /// Actions that were joined to a row.
    pub joined_actions: u64,
    /// Actions on an impression that is no row: degraded, unknowable or outside.
    pub left_out_actions: u64,
    /// Actions before their impression or after the attribution window.
    pub late_actions: u64,
    /// Actions for which there is no impression.
    pub unjoined_actions: u64,
}
