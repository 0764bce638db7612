//! `[rank]` of `lately.toml`: every number with its unit.

use lately_model::ServingPrecision;
use serde::{Deserialize, Serialize};

use crate::error::RankConfigError;
use crate::explore::ExploreConfig;
use crate::guardrails::GuardrailConfig;
use crate::retrieve::RetrieveConfig;
use crate::select::SelectConfig;
use crate::value_model::ValueModelConfig;

/// Most candidates that one ranking may have, whatever is configured: an impression takes no more.
pub(crate) const MAX_CANDIDATES: usize = lately_features::event::MAX_IMPRESSION_ITEMS;

/// When the record of what was served is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImpressionMode {
    /// By a thread of its own behind a bounded queue: the answer never waits for the disk. When the queue is full or
    /// the write fails, the impression is dropped and counted; that loses training rows, never an action.
    Async,
    /// Before the answer: the caller waits for an fsync, and an answered ranking is in the log.
    BeforeAnswer,
}

/// In what scoring multiplies. A model whose scores in it are not those in f32 is refused, within the bounds of
/// [`crate::SwapError::Precision`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RankPrecision {
    /// As models are trained.
    #[default]
    F32,
    /// Factors rounded to bfloat16.
    Bf16,
    /// The top's factors rounded to whole numbers of 8 bits, the encoder's to bfloat16.
    Int8,
    /// Bf16 where the machine has instructions for it and the model passes the check, else f32.
    Auto,
}

impl RankPrecision {
    /// What it is on this machine.
    pub fn serving(self) -> ServingPrecision {
        match self {
            Self::F32 => ServingPrecision::F32,
            Self::Bf16 => ServingPrecision::Bf16,
            Self::Int8 => ServingPrecision::Int8,
            Self::Auto => ServingPrecision::of_machine(),
        }
    }
}

/// On what models are scored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RankDevice {
    /// A CUDA device where there is one and the model passes the check on it, else the CPU.
    #[default]
    Auto,
    /// A CUDA device; without one no server starts, and a model that fails the check on it is refused.
    Cuda,
    /// The CPU.
    Cpu,
}

/// The request path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RankConfig {
    /// CPU threads that score. 0: one for each core. Default 0.
    pub threads: usize,
    /// Work that may wait for each of those threads, in units: a candidate is as many as its user has tokens, and 24.
    /// Beyond that a request is refused as overloaded. Default 500,000.
    pub queue_units: u64,
    /// How long requests may wait while the queue does not empty, ms, and at least as long as four usual requests take.
    /// Default 50.
    pub queue_target_ms: u64,
    /// For how long they may wait longer before that counts as overload, ms, and at least ten times the target.
    /// Default 500.
    pub queue_interval_ms: u64,
    /// Most candidates, of one or several requests, that a thread scores at once. Default 128.
    pub tile_rows: usize,
    /// Most units that it scores at once; one candidate it always does. Default 20,000.
    pub tile_units: u64,
    /// Memory for what a person's requests share in a model, kept for the next request, bytes; 0: none. Default 64 MiB.
    pub part_cache_bytes: u64,
    /// Precision of the products in scoring on the CPU. Default f32.
    pub precision: RankPrecision,
    /// On what models are scored. Default auto.
    pub device: RankDevice,
    /// Time for a ranking whose request names none, ms. Default 200.
    pub deadline_ms: u64,
    /// Longest time that a request may ask for, ms. Default 5,000.
    pub max_deadline_ms: u64,
    /// Most candidates of one ranking, at most 2,000. Default 2,000.
    pub max_candidates: usize,
    /// Whether the answer waits until what was served is on disk. Default async.
    pub log_impressions: ImpressionMode,
    /// Served items that may wait to be logged (async), about 100 bytes each. Default 200,000.
    pub impression_queue_items: usize,
    /// Memory for the sequences with which users were last ranked, for when one cannot be read, bytes. Default 64 MiB.
    pub stale_sequence_bytes: u64,
    /// Memory for the scores of users' last rankings, for when no model can score, bytes. Default 64 MiB.
    pub cached_ranking_bytes: u64,
    /// Share of the rankings that are put on a rung of the ladder on purpose, 0 to 1. Default 0.001.
    pub exercise_share: f64,
    /// Share of the rankings that the challenger scores too, unseen, 0 to 1. Default 0: it is not loaded.
    pub shadow_share: f64,
    /// Share of the people for whom the challenger ranks instead of the champion, 0 to 0.5. Default 0: nobody.
    pub canary_share: f64,
    /// Weights of the heads.
    pub value_model: ValueModelConfig,
    /// What a slate may look like.
    pub select: SelectConfig,
    /// Where a feed's candidates come from.
    pub retrieve: RetrieveConfig,
    /// How much is left to chance, so that other orders can be judged by what was logged.
    pub explore: ExploreConfig,
    /// When a new version counts as worse than the one before it.
    pub guardrails: GuardrailConfig,
}

impl Default for RankConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            queue_units: 500_000,
            queue_target_ms: 50,
            queue_interval_ms: 500,
            tile_rows: 128,
            tile_units: 20_000,
            part_cache_bytes: 64 << 20,
            precision: RankPrecision::F32,
            device: RankDevice::Auto,
            deadline_ms: 200,
            max_deadline_ms: 5_000,
            max_candidates: MAX_CANDIDATES,
            log_impressions: ImpressionMode::Async,
            impression_queue_items: 200_000,
            stale_sequence_bytes: 64 << 20,
            cached_ranking_bytes: 64 << 20,
            exercise_share: 0.001,
            shadow_share: 0.0,
            canary_share: 0.0,
            value_model: ValueModelConfig::default(),
            select: SelectConfig::default(),
            retrieve: RetrieveConfig::default(),
            explore: ExploreConfig::default(),
            guardrails: GuardrailConfig::default(),
        }
    }
}

impl RankConfig {
    /// Checks the ranges of the numbers.
    pub(crate) fn check(&self) -> Result<(), RankConfigError> {
        let range = |name, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(RankConfigError::Range { name, value, low, high })
        };
        range("threads", self.threads, 0, 1_024)?;
        range("queue_units", self.queue_units as usize, 1, 1 << 40)?;
        range("queue_target_ms", self.queue_target_ms as usize, 1, 600_000)?;
        range("queue_interval_ms", self.queue_interval_ms as usize, 1, 600_000)?;
        range("tile_rows", self.tile_rows, 1, MAX_CANDIDATES)?;
        range("tile_units", self.tile_units as usize, 1, 1 << 40)?;
        range("max_candidates", self.max_candidates, 1, MAX_CANDIDATES)?;
        range("max_deadline_ms", self.max_deadline_ms as usize, 1, 600_000)?;
        range("deadline_ms", self.deadline_ms as usize, 1, self.max_deadline_ms as usize)?;
        range("impression_queue_items", self.impression_queue_items, 1, 1 << 28)?;
        let shares = [
            ("exercise_share", self.exercise_share, 1.0),
            ("shadow_share", self.shadow_share, 1.0),
            // Beyond half it would be the champion that is tried out.
            ("canary_share", self.canary_share, 0.5),
        ];
        for (name, share, most) in shares {
            if !(0.0..=most).contains(&share) {
                return Err(RankConfigError::Share { name, share, most });
            }
        }
        self.guardrails.check()?;
        self.explore.check()?;
        self.select.check()?;
        self.retrieve.check(self.max_candidates)
    }
}
