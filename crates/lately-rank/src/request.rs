//! What a caller asks and gets.

use std::time::Duration;

use lately_features::{ItemId, RequestId, UserId};

use crate::experiment::Exposure;

/// Rules that a caller may switch on for a ranking; a feed has all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Drop items on which the user ever did something negative, and what the user blocked.
    pub hidden: bool,
    /// Drop items that were shown to the user a short while ago.
    pub shown: bool,
    /// Space items of one topic.
    pub spacing: bool,
}

/// Who waits for whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// A person waits for it.
    #[default]
    Interactive,
    /// It can wait: scored only where nothing interactive waits, and shed first.
    Background,
}

impl Priority {
    /// Its name in requests and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Background => "background",
        }
    }
}

/// The arm of a canary that a person is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// The champion ranks for them.
    Champion,
    /// The challenger does.
    Challenger,
}

impl Variant {
    /// Its name in impressions and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Champion => "champion",
            Self::Challenger => "challenger",
        }
    }

    /// The arm that a logged variant names, if it names one.
    pub(crate) fn named(name: Option<&str>) -> Option<Self> {
        let parts = name?.split(';');
        [Self::Champion, Self::Challenger].into_iter().find(|v| parts.clone().any(|part| part == v.name()))
    }
}

/// An item that has its place whatever its score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Which; it need not be among the candidates.
    pub item: ItemId,
    /// Its place, from 0; beyond the page's end it is the last.
    pub position: u16,
}

/// Rank these.
#[derive(Debug, Clone)]
pub struct RankRequest {
    /// For whom.
    pub user: UserId,
    /// What, 1 to 2,000; a repeated one is dropped and named in the response.
    pub candidates: Vec<ItemId>,
    /// Name of a surface of the schema.
    pub surface: Option<String>,
    /// Only the first of them; `None`: all.
    pub limit: Option<usize>,
    /// The ranking's id; made where none is given.
    pub request: Option<RequestId>,
    /// Time for the ranking; `None`: the configured one.
    pub deadline: Option<Duration>,
    /// Whether to explain the scores.
    pub explain: bool,
    /// What to drop and space; nothing by default.
    pub rules: Rules,
    /// Variants of experiments, as (experiment, variant), whoever the user is: for trying them out. They are not logged.
    pub variants: Vec<(String, String)>,
    /// Items that have their places, at most 16; those that cannot are in `dropped`.
    pub pins: Vec<Pin>,
    /// Whether a person waits for it.
    pub priority: Priority,
    /// How long it has waited already; this counts against the deadline.
    pub waited: Duration,
}

impl RankRequest {
    /// A plain ranking of candidates.
    pub fn new(user: UserId, candidates: Vec<ItemId>) -> Self {
        Self {
            user,
            candidates,
            surface: None,
            limit: None,
            request: None,
            deadline: None,
            explain: false,
            rules: Rules::default(),
            variants: Vec::new(),
            pins: Vec::new(),
            priority: Priority::default(),
            waited: Duration::ZERO,
        }
    }
}

/// Find candidates and rank them.
#[derive(Debug, Clone)]
pub struct FeedRequest {
    /// For whom.
    pub user: UserId,
    /// Items at most.
    pub limit: usize,
    /// Name of a surface of the schema.
    pub surface: Option<String>,
    /// The ranking's id; made where none is given. The random candidates follow from it.
    pub request: Option<RequestId>,
    /// Time for the ranking; `None`: the configured one.
    pub deadline: Option<Duration>,
    /// Whether to explain the scores.
    pub explain: bool,
    /// As [`RankRequest::variants`].
    pub variants: Vec<(String, String)>,
    /// Items that have their places, at most 16; those that cannot are in `dropped`.
    pub pins: Vec<Pin>,
    /// Whether a person waits for it.
    pub priority: Priority,
    /// How long it has waited already; this counts against the deadline.
    pub waited: Duration,
}

impl FeedRequest {
    /// A plain feed.
    pub fn new(user: UserId, limit: usize) -> Self {
        Self {
            user,
            limit,
            surface: None,
            request: None,
            deadline: None,
            explain: false,
            variants: Vec::new(),
            pins: Vec::new(),
            priority: Priority::default(),
            waited: Duration::ZERO,
        }
    }
}

/// What was wrong, and on which rung of the ladder the ranking was made instead. Such an impression stays out of training,
/// but where there was no model yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// Why: no model is loaded.
    NoModel,
    /// Why: scoring took longer than the deadline.
    ScoreDeadline,
    /// Why: the model failed, or gave a logit that is not finite.
    ModelError,
    /// The user's sequence could not be read: ranked with what it was at the user's last ranking.
    StaleSequence,
    /// The user's sequence could not be read: ranked without.
    NoSequence,
    /// The time was too short for all: the model scored those that looked best, the others follow.
    FirstN,
    /// The model failed: the one before it scored; for those in the challenger's arm of a canary the champion.
    LastGoodModel,
    /// No model scored: ordered by the scores of the user's last ranking, what was not in it by popularity below.
    CachedRanking,
    /// No model scored: ordered by popularity.
    Popularity,
    /// No model scored, and nothing is known of any candidate: in the order given, or found.
    InputOrder,
    /// Put on that rung on purpose, to prove that it holds.
    Exercise,
}

impl Rung {
    /// The rungs below a full model with a fresh sequence, best first.
    pub const LADDER: [Self; 7] = [
        Self::StaleSequence,
        Self::NoSequence,
        Self::FirstN,
        Self::LastGoodModel,
        Self::CachedRanking,
        Self::Popularity,
        Self::InputOrder,
    ];

    /// Its name in responses, impressions and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoModel => "no_model",
            Self::ScoreDeadline => "score_deadline",
            Self::ModelError => "model_error",
            Self::StaleSequence => "stale_sequence",
            Self::NoSequence => "no_sequence",
            Self::FirstN => "first_n",
            Self::LastGoodModel => "last_good_model",
            Self::CachedRanking => "cached_ranking",
            Self::Popularity => "popularity",
            Self::InputOrder => "input_order",
            Self::Exercise => "exercise",
        }
    }
}

/// Why a candidate is not in the response, other than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It was sent more than once.
    Duplicate,
    /// The user did something negative with it.
    Hidden,
    /// The user blocked a value of one of its features.
    Blocked,
    /// It was shown a short while ago.
    Shown,
    /// It was pinned, and is not a known item, or its place is taken, not on the page, or one pin too many.
    Pin,
}

impl Reason {
    /// Its name in responses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Hidden => "hidden",
            Self::Blocked => "blocked",
            Self::Shown => "shown",
            Self::Pin => "pin",
        }
    }
}

/// Where a feed's candidate came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Popularity.
    Popular,
    /// A topic that the user follows.
    Followed,
    /// Nearness of item embeddings to what the user liked last.
    Nearest,
    /// More actions now than usual.
    Trending,
    /// Newness, and few impressions.
    Fresh,
    /// Chance.
    Random,
}

impl Source {
    /// Its name in responses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Popular => "popular",
            Self::Followed => "followed",
            Self::Nearest => "nearest",
            Self::Trending => "trending",
            Self::Fresh => "fresh",
            Self::Random => "random",
        }
    }
}

/// A candidate that is not in the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Which.
    pub item: ItemId,
    /// Why.
    pub reason: Reason,
}

/// One ranked item.
#[derive(Debug, Clone, PartialEq)]
pub struct RankedItem {
    /// Which.
    pub item: ItemId,
    /// The value model's score; finite. On `first_n` those that were not scored have the lowest of those that were; on
    /// `cached_ranking` it is that of the user's last ranking, and the lowest of those for what was not in it; on
    /// `popularity` the decayed number of positive actions; on `input_order` 0.
    pub score: f32,
    /// Probability a head, in the order of [`RankResponse::heads`]; empty where no model scored this item.
    pub heads: Vec<f32>,
    /// Place, from 0.
    pub position: u16,
    /// Where it came from, in a feed.
    pub source: Option<Source>,
}

/// The model that ranked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    /// Version in the registry.
    pub version: String,
    /// Swaps since the server's start, this one included.
    pub generation: u64,
    /// Version of the item embeddings that it was trained with.
    pub embedding_version: String,
}

/// How a score came about: each item's score is the sum over heads of weight x probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    /// Weight of each head, in the order of [`RankResponse::heads`].
    pub weights: Vec<f32>,
    /// Tokens of the user's sequence that the model saw.
    pub tokens: usize,
    /// Age of the newest known action, ms; `None` where there is none.
    pub newest_action_age_ms: Option<i64>,
}

/// A ranking: a permutation of a subset of the candidates, with finite scores.
#[derive(Debug, Clone, PartialEq)]
pub struct RankResponse {
    /// The ranking's id: name it in the actions that follow.
    pub request: RequestId,
    /// For whom.
    pub user: UserId,
    /// What ranked; `None`: no model did, see `degraded`.
    pub model: Option<ModelRef>,
    /// The person's arm; `None` while no canary runs.
    pub variant: Option<Variant>,
    /// The experiments that could make a difference to this ranking, with the person's variants.
    pub exposures: Vec<Exposure>,
    /// How likely each item was to stand at its place, where some of the order is left to chance (`[rank.explore]`); then
    /// it need not be by score. Empty: it was certain.
    pub propensities: Vec<f32>,
    /// Hash of the schema.
    pub schema_hash: String,
    /// All log records with an offset below this were known.
    pub watermark: u64,
    /// The server's clock, ms since 1970 UTC.
    pub time_ms: i64,
    /// What was wrong and the rungs in force; empty is best.
    pub degraded: Vec<Rung>,
    /// On `stale_sequence`: ms since the sequence was read.
    pub sequence_age_ms: Option<u64>,
    /// Names of the heads.
    pub heads: Vec<String>,
    /// The ranking.
    pub items: Vec<RankedItem>,
    /// Candidates that a rule dropped; those beyond the limit are not listed.
    pub dropped: Vec<Dropped>,
    /// Where it was asked for.
    pub explain: Option<Explain>,
    /// Microseconds a stage, and `total`; `queue` is the part of `score` before the first row was scored.
    pub timings_us: Vec<(&'static str, u64)>,
}
