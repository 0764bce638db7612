//! One ranking, stage after stage: admit, hydrate, (retrieve,) tokens, score, value, select, log.
//!
//! The watermark is taken before anything is read, so that training can rebuild what the model saw. What fails on the
//! way makes the ranking worse, says so in `degraded`, and never makes it fail: `ladder` has what is done instead.

mod candidates;
mod challenger;
mod experiments;
mod ladder;
mod respond;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use lately_features::{
    Assembler, Features, ItemId, RequestContext, RequestId, Schema, Token, UserId, UserSequence, tokens,
};
use lately_store::{Store, StoreError};

use crate::batcher::{Batcher, Work};
use crate::clock::{StageClock, now_ms};
use crate::config::{ImpressionMode, RankConfig};
use crate::draw;
use crate::error::{RankConfigError, RankError};
use crate::experiment::{Exposure, Plan};
use crate::explore::explore;
use crate::follower::Follower;
use crate::guardrails::Guardrails;
use crate::impression::ImpressionLog;
use crate::last_known::LastKnown;
use crate::model_slot::{LoadedModel, ModelSlot};
use crate::policy::Policy;
use crate::recently_shown::RecentlyShown;
use crate::request::{
    Dropped, Explain, FeedRequest, Pin, Priority, RankRequest, RankResponse, RankedItem, Reason, Rules, Rung,
    Variant,
};
use crate::retrieve::{Snapshot, Topics};
use crate::select::{Pool, blend, by_score, place};
use crate::shadow::Shadow;
use candidates::Candidate;

/// Where a user's sequence comes from: the store, or in a test what fails.
type ReadSequence = Box<dyn Fn(&UserId) -> Result<Arc<UserSequence>, StoreError> + Send + Sync>;

/// What time it is, ms since 1970 UTC.
type Now = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Ranks. Share it by `Arc`; every method blocks: call it on a thread that may.
pub struct Ranker {
    store: Arc<Store>,
    slot: Arc<ModelSlot>,
    schema: Arc<Schema>,
    config: RankConfig,
    assembler: Arc<Assembler>,
    topics: Topics,
    /// What a request goes by that is in no experiment.
    policy: Arc<Policy>,
    experiments: ArcSwap<Plan>,
    heads: Vec<String>,
    shown: RecentlyShown,
    last_known: LastKnown,
    read_sequence: ReadSequence,
    now: Now,
    challenger: Option<Arc<ModelSlot>>,
    shadow: Option<Shadow>,
    guardrails: Arc<Guardrails>,
    batcher: Arc<Batcher>,
    follower: Follower,
    impressions: ImpressionLog,
}

impl std::fmt::Debug for Ranker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ranker").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What was asked, after admission.
struct Ask {
    user: UserId,
    candidates: Candidates,
    surface: Option<String>,
    surface_position: u16,
    limit: usize,
    request: RequestId,
    deadline: Instant,
    priority: Priority,
    explain: bool,
    rules: Rules,
    pins: Vec<Pin>,
    dropped: Vec<Dropped>,
    /// The rung on which this ranking is put on purpose.
    forced: Option<Rung>,
    /// What this ranking goes by.
    policy: Arc<Policy>,
    /// What ranks for the user, until the end.
    model: Option<Arc<LoadedModel>>,
    /// The user's arm, while a canary runs.
    variant: Option<Variant>,
    /// Variants that are forced on it.
    forced_variants: Vec<(String, String)>,
    /// The experiments that it is in.
    exposures: Vec<Exposure>,
    /// Whether the response is what the user sees: its length was asked for.
    slate: bool,
}

/// What is shown.
struct Slate {
    items: Vec<RankedItem>,
    propensities: Vec<f32>,
}

impl Ask {
    /// Weights of the heads, for this person on this surface.
    fn weights(&self) -> Vec<f32> {
        self.policy.value_model.weights_for(&self.user, self.surface_position)
    }
}

enum Candidates {
    Given(Vec<ItemId>),
    Retrieve,
}

/// What is known of the user.
struct Known {
    context: RequestContext,
    /// For the rules and for retrieval.
    sequence: Arc<UserSequence>,
    /// What the model is to see: another one only where a rung is exercised, so that what was hidden stays hidden.
    model_sequence: Arc<UserSequence>,
    sequence_age_ms: Option<u64>,
    user: Option<Arc<Features>>,
}

/// The scores of the candidates.
struct Scores {
    score: Vec<f32>,
    /// candidates x heads; of the first ones only, or of none, where the model did not score the others.
    probabilities: Vec<f32>,
    /// What was scored, by which model.
    work: Option<Arc<Work>>,
}

impl Ranker {
    /// Starts the scoring threads, the thread that follows the log and the one that logs impressions. They end when
    /// the ranker is dropped; impressions that wait are written first.
    ///
    /// # Errors
    /// [`RankConfigError`] where a number is out of range, a weight names no head, or a thread cannot start.
    pub fn new(
        store: Arc<Store>,
        slot: Arc<ModelSlot>,
        schema: Arc<Schema>,
        config: RankConfig,
    ) -> Result<Self, RankConfigError> {
        let policy = Arc::new(Policy::new(&config, &schema)?);
        let assembler = Arc::new(Assembler::new(&schema));
        let topics = Topics::new(&schema);
        let guardrails = Arc::new(Guardrails::new(&config.guardrails, &schema, &policy.value_model));
        Ok(Self {
            policy,
            experiments: ArcSwap::default(),
            heads: schema.heads.iter().map(|h| h.name.clone()).collect(),
            shown: RecentlyShown::new(&config.select),
            last_known: LastKnown::new(config.stale_sequence_bytes, config.cached_ranking_bytes),
            read_sequence: {
                let store = store.clone();
                Box::new(move |user| store.sequence(user))
            },
            now: Arc::new(now_ms),
            challenger: None,
            shadow: None,
            batcher: Arc::new(Batcher::start(&config)?),
            follower: Follower::start(
                store.clone(),
                &schema,
                topics.clone(),
                guardrails.clone(),
                &config.retrieve,
            )?,
            guardrails,
            impressions: ImpressionLog::start(
                store.clone(),
                config.log_impressions,
                config.impression_queue_items,
            )?,
            store,
            slot,
            schema,
            config,
            assembler,
            topics,
        })
    }

    /// Takes the time of rankings from `now`, ms since 1970 UTC, instead of the machine's clock: for simulations and
    /// replays.
    #[must_use]
    pub fn with_clock(mut self, now: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        self.now = now;
        self
    }

    /// Ranks given candidates.
    ///
    /// # Errors
    /// [`RankError`] where the request is refused or shed; trouble on the way is a [`Rung`] in the response instead.
    pub fn rank(&self, ask: RankRequest) -> Result<RankResponse, RankError> {
        let clock = StageClock::start();
        let limit = self.config.max_candidates;
        if ask.candidates.is_empty() {
            return Err(RankError::NoCandidates);
        }
        if ask.candidates.len() > limit {
            return Err(RankError::TooManyCandidates { got: ask.candidates.len(), limit });
        }
        let (candidates, dropped) = unique(ask.candidates);
        let ask = Ask {
            surface_position: self.surface(ask.surface.as_deref())?,
            deadline: self.deadline(&clock, ask.deadline, ask.waited)?,
            priority: ask.priority,
            user: ask.user,
            candidates: Candidates::Given(candidates),
            surface: ask.surface,
            slate: ask.limit.is_some(),
            limit: ask.limit.unwrap_or(limit),
            request: ask.request.unwrap_or_else(new_request),
            explain: ask.explain,
            rules: ask.rules,
            pins: ask.pins,
            dropped,
            policy: Arc::clone(&self.policy),
            forced: None, // drawn below, and so are model and arm
            model: None,
            variant: None,
            forced_variants: ask.variants,
            exposures: Vec::new(),
        };
        self.run(ask, clock)
    }

    /// Finds candidates and ranks them, without those that the user hid or was shown a short while ago, spaced by
    /// topic. Where too few are left, those shown a short while ago come again.
    ///
    /// # Errors
    /// As [`Ranker::rank`].
    pub fn feed(&self, ask: FeedRequest) -> Result<RankResponse, RankError> {
        let clock = StageClock::start();
        let limit = self.config.max_candidates;
        if ask.limit > limit {
            return Err(RankError::TooManyCandidates { got: ask.limit, limit });
        }
        let ask = Ask {
            surface_position: self.surface(ask.surface.as_deref())?,
            deadline: self.deadline(&clock, ask.deadline, ask.waited)?,
            priority: ask.priority,
            user: ask.user,
            candidates: Candidates::Retrieve,
            surface: ask.surface,
            slate: true,
            limit: ask.limit,
            request: ask.request.unwrap_or_else(new_request),
            explain: ask.explain,
            rules: Rules { spacing: true, ..Rules::default() }, // retrieval excludes the rest
            pins: ask.pins,
            dropped: Vec::new(),
            policy: Arc::clone(&self.policy),
            forced: None, // drawn below, and so are model and arm
            model: None,
            variant: None,
            forced_variants: ask.variants,
            exposures: Vec::new(),
        };
        self.run(ask, clock)
    }

    fn run(&self, mut ask: Ask, mut clock: StageClock) -> Result<RankResponse, RankError> {
        let mut degraded = Vec::new();
        let forced = draw::exercise(&ask.request, self.config.exercise_share);
        self.assign(&mut ask)?;
        ask.forced = forced.filter(|_| ask.model.is_some());
        clock.lap("admit");

        let known = self.hydrate(&ask, &mut degraded);
        clock.lap("hydrate");

        let mut candidates = match std::mem::replace(&mut ask.candidates, Candidates::Retrieve) {
            Candidates::Given(items) => self.admitted(&mut ask, &known, items),
            Candidates::Retrieve => self.retrieved(&ask, &known),
        };
        self.pinned(&mut ask, &known, &mut candidates);
        metrics::histogram!("lately_rank_candidates").record(candidates.len() as f64);
        clock.lap("retrieve");

        let item = |id: &ItemId| self.store.item(id);
        let tokens = tokens(&self.assembler, &known.model_sequence, known.context.watermark, item);
        let explain = ask.explain.then(|| explain(&ask, &known, &tokens));
        clock.lap("tokens");

        let (logits, waited) = self.score(&ask, &known, tokens, &mut candidates, &mut degraded)?;
        clock.lap("score");
        clock.part("queue", waited);

        let scores = self.value(&ask, &known, logits, &mut candidates, &mut degraded);
        clock.lap("value");

        let mut items = self.select(&ask, &candidates, &scores);
        let propensities = leave_to_chance(&ask, &mut items, &degraded);
        clock.lap("select");

        let slate = Slate { items, propensities };
        let response = self.respond(ask, &known, &scores, slate, degraded, explain, clock);
        self.shadow(&response, scores);
        Ok(response)
    }

    /// Watermark first, then everything that is read.
    fn hydrate(&self, ask: &Ask, degraded: &mut Vec<Rung>) -> Known {
        let watermark = self.store.next_offset();
        let time_ms = (self.now)();
        let context = RequestContext { time_ms, surface: ask.surface_position, watermark };
        let known = self.sequence(ask, context, degraded);
        if let Some(newest) = known.sequence.entries().first() {
            let age = (time_ms - newest.time_ms).max(0) as f64 / 1e3;
            metrics::histogram!("lately_rank_sequence_age_seconds").record(age);
        }
        known
    }

    /// Blends where spacing was asked for, and places the pins.
    fn select(&self, ask: &Ask, candidates: &[Candidate], scores: &Scores) -> Vec<RankedItem> {
        let chosen = if ask.rules.spacing {
            self.blend(ask, candidates, &scores.score)
        } else {
            by_score(&scores.score)
        };
        let pins: Vec<(usize, usize)> = ask
            .pins
            .iter()
            .filter_map(|pin| {
                Some((candidates.iter().position(|c| c.item == pin.item)?, usize::from(pin.position)))
            })
            .collect();
        let heads = |i: usize| {
            let h = self.heads.len();
            scores.probabilities.get(i * h..(i + 1) * h).map_or_else(Vec::new, <[f32]>::to_vec)
        };
        let chosen = place(chosen, &pins, ask.limit).into_iter().take(ask.limit).enumerate();
        let ranked = chosen.map(|(position, i)| RankedItem {
            item: candidates[i].item.clone(),
            score: scores.score[i],
            heads: heads(i),
            position: position as u16, // at most 2,000
            source: candidates[i].source,
        });
        ranked.collect()
    }

    fn blend(&self, ask: &Ask, candidates: &[Candidate], scores: &[f32]) -> Vec<usize> {
        let features: Vec<_> = candidates.iter().map(|c| c.features.as_deref()).collect();
        let topics: Vec<u32> = features.iter().map(|f| self.topic(*f)).collect();
        let embeddings: Vec<&[f32]> = features.iter().map(|f| self.embedding(*f)).collect();
        let labels = ask.policy.select.labels.of(&features);
        let dim = self.schema.item_embedding_dim();
        let pool = Pool { scores, topics: &topics, embeddings: &embeddings, dim, labels: &labels };
        blend(pool, ask.limit, &ask.policy.select.config)
    }

    /// An item's first topic; 0: none.
    fn topic(&self, features: Option<&Features>) -> u32 {
        features.and_then(|f| self.topics.of_item(f).next()).unwrap_or(0)
    }

    fn embedding<'a>(&self, features: Option<&'a Features>) -> &'a [f32] {
        features.map_or(&[], |f| self.assembler.item_embedding(f))
    }

    fn surface(&self, name: Option<&str>) -> Result<u16, RankError> {
        match name {
            None => Ok(0),
            Some(name) => self.schema.surface(name).ok_or_else(|| RankError::UnknownSurface(name.to_owned())),
        }
    }

    fn deadline(
        &self,
        clock: &StageClock,
        asked: Option<Duration>,
        waited: Duration,
    ) -> Result<Instant, RankError> {
        let limit = self.config.max_deadline_ms;
        let time = asked.unwrap_or(Duration::from_millis(self.config.deadline_ms));
        if time.is_zero() || time > Duration::from_millis(limit) {
            return Err(RankError::Deadline { got: time.as_millis(), limit });
        }
        Ok(clock.started() + time.saturating_sub(waited))
    }

    /// The slot of the served model.
    pub fn slot(&self) -> &Arc<ModelSlot> {
        &self.slot
    }

    /// Catches up with the log now, so that popularity and a feed's candidates hold all that was appended. Without
    /// it they do so about once a second.
    ///
    /// # Errors
    /// [`StoreError`] where the log cannot be read.
    pub fn refresh(&self) -> Result<(), StoreError> {
        self.follower.refresh()
    }

    /// What feeds draw on now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.follower.snapshot()
    }

    /// Waits until what was served before is in the log, or was counted as dropped.
    pub fn flush_impressions(&self) {
        if self.config.log_impressions == ImpressionMode::Async {
            self.impressions.flush();
        }
    }

    /// Forgets a user: also what waits to be logged, what was shown, and the last sequence and ranking. Returns the
    /// removed log records. A ranking that is under way may still be logged and remembered after it; counts of
    /// popularity name no user and stay.
    ///
    /// # Errors
    /// [`StoreError`] where the store refuses.
    pub fn forget(&self, user: &UserId) -> Result<u64, StoreError> {
        self.impressions.forget(user);
        self.shown.forget(user);
        let removed = self.store.forget(user, (self.now)())?;
        // After it: a ranking before it reads the sequence once more.
        self.last_known.forget(user);
        Ok(removed)
    }
}

/// Shuffles the first places of a share of the slates that a full model made.
fn leave_to_chance(ask: &Ask, items: &mut [RankedItem], degraded: &[Rung]) -> Vec<f32> {
    if !ask.slate || !degraded.is_empty() {
        return Vec::new();
    }
    let pinned = |place: &usize| ask.pins.iter().any(|pin| pin.item == items[*place].item);
    let places: Vec<usize> = (0..items.len()).filter(|place| !pinned(place)).collect();
    let propensities = explore(items, &places, &ask.policy.explore, &ask.request);
    // At most 2,000.
    items.iter_mut().enumerate().for_each(|(place, item)| item.position = place as u16);
    propensities
}

fn explain(ask: &Ask, known: &Known, tokens: &[Token]) -> Explain {
    Explain {
        weights: ask.weights(),
        tokens: tokens.len(),
        newest_action_age_ms: tokens.first().map(|t| known.context.time_ms - t.time_ms),
    }
}

/// Each item once, and the repeated ones.
fn unique(items: Vec<ItemId>) -> (Vec<ItemId>, Vec<Dropped>) {
    let mut seen = HashSet::with_capacity(items.len());
    let (once, again) = items.into_iter().partition::<Vec<_>, _>(|item| seen.insert(item.clone()));
    (once, again.into_iter().map(|item| Dropped { item, reason: Reason::Duplicate }).collect())
}

/// 128 random bits in hex.
fn new_request() -> RequestId {
    let id = format!("{:032x}", rand::random::<u128>());
    RequestId::new(id).expect("32 hex digits are an id")
}

#[cfg(test)]
pub(crate) mod tests;
