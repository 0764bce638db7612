//! What an evaluation gives: values with intervals, by head, group of rows and scorer. Written as JSON as it stands.

use serde::{Deserialize, Serialize};

use crate::chunks::ChunkKind;
use crate::dataset::Request;
use crate::metrics::Metrics;

/// A value with its 95 % interval; `None` where it is not defined (a class is absent, or the scorer gives no
/// probabilities).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// On the rows as they are.
    pub value: Option<f64>,
    /// 2.5th percentile over the resamples.
    pub low: Option<f64>,
    /// 97.5th percentile.
    pub high: Option<f64>,
}

/// The rows that are looked at together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// All rows.
    All,
    /// Core users by the schema's rule.
    Core,
    /// The rest.
    NonCore,
    /// Requests without any token.
    History0,
    /// 1 to 9 tokens.
    History1To9,
    /// 10 to 99 tokens.
    History10To99,
    /// 100 tokens and more.
    History100Up,
}

impl Group {
    /// All groups in the order of reports.
    pub const EACH: [Self; 7] = [
        Self::All,
        Self::Core,
        Self::NonCore,
        Self::History0,
        Self::History1To9,
        Self::History10To99,
        Self::History100Up,
    ];

    /// Words for tables and plots.
    pub fn words(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Core => "core",
            Self::NonCore => "non-core",
            Self::History0 => "history 0",
            Self::History1To9 => "history 1-9",
            Self::History10To99 => "history 10-99",
            Self::History100Up => "history 100+",
        }
    }

    pub(crate) fn holds(self, request: &Request) -> bool {
        let history = request.tokens.len();
        match self {
            Self::All => true,
            Self::Core => request.core,
            Self::NonCore => !request.core,
            Self::History0 => history == 0,
            Self::History1To9 => (1..10).contains(&history),
            Self::History10To99 => (10..100).contains(&history),
            Self::History100Up => history >= 100,
        }
    }
}

/// One scorer's numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ScorerReport {
    /// Its name.
    pub name: String,
    /// The numbers.
    #[serde(flatten)]
    pub metrics: Metrics<Estimate>,
}

/// The first scorer minus another, with paired intervals.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// The other scorer.
    pub against: String,
    /// First minus other.
    #[serde(flatten)]
    pub metrics: Metrics<Estimate>,
}

/// One head within one group of rows.
#[derive(Debug, Clone, Serialize)]
pub struct GroupReport {
    /// Which rows.
    pub group: Group,
    /// Their number.
    pub rows: usize,
    /// Those whose label is 1.
    pub positives: usize,
    /// Chunks of HIT@3.
    pub chunks: usize,
    /// HIT@3 that a random order has on average.
    pub random_hit_at_3: Option<f64>,
    /// For each scorer.
    pub scorers: Vec<ScorerReport>,
    /// The first scorer against each other one.
    pub differences: Vec<Difference>,
}

/// One head.
#[derive(Debug, Clone, Serialize)]
pub struct HeadReport {
    /// Its name.
    pub head: String,
    /// Groups that have rows.
    pub groups: Vec<GroupReport>,
}

/// All numbers of an evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct EvalReport {
    /// Requests evaluated.
    pub requests: usize,
    /// Rows evaluated.
    pub rows: usize,
    /// Users.
    pub users: usize,
    /// What a chunk is.
    pub chunk_kind: ChunkKind,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Seed.
    pub seed: u64,
    /// By head.
    pub heads: Vec<HeadReport>,
}

impl EvalReport {
    /// The report of a head's group.
    pub fn group(&self, head: &str, group: Group) -> Option<&GroupReport> {
        self.heads.iter().find(|h| h.head == head)?.groups.iter().find(|g| g.group == group)
    }
}
