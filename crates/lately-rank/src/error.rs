//! Why a ranking, or its configuration, is refused.

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
    /// The queue in front of the CPU threads is full.
    #[error("overloaded: {waiting} tiles wait, the limit is {limit}; send again in a moment")]
    Overloaded {
        /// Tiles in the queue.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// The ranker is being shut down.
    #[error("shutting down: send again to another server or in a moment")]
    Closed,
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
    #[error("[rank] {name} is {share}: it must be 0 to 1")]
    Share {
        /// Key.
        name: &'static str,
        /// Value.
        share: f64,
    },
    /// A half-life that makes no sense.
    #[error("[rank.retrieve] half_life_hours is {0}: it must be more than 0.01 and at most 1,000,000")]
    HalfLife(f64),
    /// A weight for a head that the schema does not have.
    #[error("[rank.value_model] names the head `{name}`: the schema has {heads}")]
    UnknownHead {
        /// What was named.
        name: String,
        /// What there is.
        heads: String,
    },
    /// A weight that is no number.
    #[error(
        "[rank.value_model] the weight of `{name}` is {weight}: it must be finite and at most 1e6 in size"
    )]
    Weight {
        /// Head.
        name: String,
        /// Weight.
        weight: f32,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}; lower [rank] threads or raise the limit of processes")]
    Thread(#[from] std::io::Error),
}
