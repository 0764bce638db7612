//! Why a ranking, or its configuration, is refused.

use std::fmt;
use std::time::Duration;

/// Why a ranking is refused. What merely worsens a ranking is no error but a [`crate::Rung`] in the response.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RankError {
    /// Nothing to rank.
    #[error("no candidates: send at least one")]
    NoCandidates,
    /// Too much to rank.
    #[error("{got} candidates: the limit is {limit}; rank a shortlist")]
    TooManyCandidates {
        /// How many were sent.
        got: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// The surface is not in the schema.
    #[error("unknown surface `{0}`: declare it under [schema] surfaces or leave it out")]
    UnknownSurface(String),
    /// The time asked for is not allowed.
    #[error("deadline_ms {got}: it must be 1 to {limit}")]
    Deadline {
        /// What was asked for, ms.
        got: u128,
        /// The most that is allowed, ms.
        limit: u64,
    },
    /// More is asked for than the CPU threads can score in time.
    #[error("overloaded: {reason}; send again in a moment")]
    Overloaded {
        /// What is too much.
        reason: Shed,
        /// When what waits now will be done, by the estimate.
        retry_after: Duration,
    },
    /// A variant is forced that there is not.
    #[error("{0}")]
    Variant(String),
    /// The ranker is being shut down.
    #[error("shutting down: send again to another server or in a moment")]
    Closed,
}

/// Why a ranking is shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// More work waits than may.
    QueueFull,
    /// By the estimate it would not be done by its deadline.
    Late,
    /// Requests have waited too long for too long.
    Standing,
    /// A background ranking made room for an interactive one.
    Displaced,
}

impl Shed {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Late => "late",
            Self::Standing => "standing",
            Self::Displaced => "displaced",
        }
    }
}

impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue is full",
            Self::Late => "it would not be done by its deadline",
            Self::Standing => "requests have waited too long for a while",
            Self::Displaced => "interactive rankings need the room",
        })
    }
}

/// Why a configuration of the request path is refused.
#[derive(Debug, thiserror::Error)]
pub enum RankConfigError {
    /// A number is out of its range.
    #[error("[rank] {name} is {value}: it must be {low} to {high}")]
    Range {
        /// Key.
        name: &'static str,
        /// Value.
        value: usize,
        /// Smallest.
        low: usize,
        /// Largest.
        high: usize,
    },
    /// A share that is none.
    #[error("[rank] {name} is {share}: it must be 0 to {most}")]
    Share {
        /// Key.
        name: &'static str,
        /// Value.
        share: f64,
        /// Largest.
        most: f64,
    },
    /// A bound of a guardrail that makes no sense.
    #[error("[rank.guardrails] {name} is {value}: it must be {low} to {high}")]
    Guardrail {
        /// Key.
        name: &'static str,
        /// Value.
        value: f64,
        /// Smallest.
        low: f64,
        /// Largest.
        high: f64,
    },
    /// A factor that is out of its range.
    #[error("[rank] {name} is {value}: it must be 0 to 100")]
    Factor {
        /// Key.
        name: &'static str,
        /// Value.
        value: f32,
    },
    /// A rule names what is no categorical feature.
    #[error("[rank.select] names the feature `{name}`: the schema's categorical ones are {features}")]
    UnknownFeature {
        /// What was named.
        name: String,
        /// What there is.
        features: String,
    },
    /// A block's two features cannot be compared.
    #[error("[rank.select.blocked] `{user}` and `{item}` declare different buckets: declare the same")]
    BlockBuckets {
        /// The user feature.
        user: String,
        /// The item feature.
        item: String,
    },
    /// A time of retrieval that makes no sense.
    #[error("[rank.retrieve] {name} is {hours}: it must be more than 0.01 and at most {most} hours")]
    Hours {
        /// Key.
        name: &'static str,
        /// Value, hours.
        hours: f64,
        /// Largest, hours.
        most: f64,
    },
    /// A number of actions that makes no sense.
    #[error("[rank.retrieve] trending_actions is {0}: it must be 1 to 1e9")]
    TrendingActions(f64),
    /// A weight for a head that the schema does not have.
    #[error("[rank.value_model] names the head `{name}`: the schema has {heads}")]
    UnknownHead {
        /// What was named.
        name: String,
        /// What there is.
        heads: String,
    },
    /// A weight that is no number, or too large.
    #[error("[rank.value_model] the weight of `{name}` is {weight}: it must be {low} to {high}")]
    Weight {
        /// Head.
        name: String,
        /// Weight.
        weight: f32,
        /// Smallest.
        low: f32,
        /// Largest.
        high: f32,
    },
    /// Weights for a surface that the schema does not have.
    #[error("[rank.value_model.surfaces] names `{0}`: declare it under [schema] surfaces")]
    UnknownSurface(String),
    /// A floor or a bound of the weights that makes no sense.
    #[error(
        "[rank.value_model] negative_floor is {floor}, max_weight {max}: they must be 0 <= floor <= max <= 1e6"
    )]
    Bounds {
        /// The floor.
        floor: f32,
        /// The bound.
        max: f32,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}; lower [rank] threads or raise the limit of processes")]
    Thread(#[from] std::io::Error),
}
