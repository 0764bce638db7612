//! What is being watched now, for whoever asks.

use serde::Serialize;

use super::rules::Comparison;

/// A version that is watched.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Watched {
    /// Which.
    pub version: String,
    /// With which it is compared.
    pub reference: String,
    /// Since when, ms since 1970 UTC.
    pub since_ms: i64,
    /// How they compare.
    pub comparison: Comparison,
}

/// What is being watched.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Standing {
    /// The champion since its swap, beside the one before it.
    pub champion: Option<Watched>,
    /// The challenger of a canary, beside the champion for the other people.
    pub canary: Option<Watched>,
}
