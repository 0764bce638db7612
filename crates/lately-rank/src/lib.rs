//! The request path in process: hydrate, assemble, score, select, log what was served. No network, no async.
//!
//! Read [`ranker`] first: it is the walk of one request, stage after stage, and `ranker/ladder.rs` what is done where one
//! of them cannot. Then `batcher` (the CPU threads), [`model_slot`] (hot swap), `shadow` (a challenger scores what was
//! served), [`guardrails`] (how a new version does beside the one before it), [`value_model`], [`select`], `retrieve/` (where
//! a feed's candidates come from, over what `follower` keeps up with the log) and `impression` (what was served is written
//! to the same log).
//!
//! # Metrics
//! No label ever holds an id of a user or an item.
//!
//! | name | kind | meaning |
//! | --- | --- | --- |
//! | `lately_rank_seconds` | histogram | one ranking, all stages |
//! | `lately_rank_stage_seconds{stage}` | histogram | admit, hydrate, retrieve, tokens, score, value, select, log |
//! | `lately_rank_candidates` | histogram | candidates of one ranking |
//! | `lately_rank_page_topics`, `lately_rank_page_topic_entropy` | histogram | topics of a page, and their entropy, nats |
//! | `lately_rank_page_distance` | histogram | mean of 1 - cosine over the pairs of a page |
//! | `lately_rank_sequence_age_seconds` | histogram | age of the user's newest known action, by event time |
//! | `lately_rank_unknown_candidates_total` | counter | candidates without features in the store |
//! | `lately_rank_degraded_total{reason}` | counter | rankings that stood on a lower rung, not on purpose |
//! | `lately_rank_exercised_total{rung}` | counter | rankings that were put on a rung on purpose |
//! | `lately_rank_shed_total{reason,priority}` | counter | rankings refused as overloaded; reasons: [`Shed::name`] |
//! | `lately_rank_queue_units{priority}` | gauge | work that waits for a CPU thread, units |
//! | `lately_rank_queue_seconds{priority}` | histogram | time in the queue of requests that were scored |
//! | `lately_rank_batch_rows`, `lately_rank_batch_requests` | histogram | rows and requests of a call of the model |
//! | `lately_rank_batch_retries_total` | counter | calls that failed, whose requests were scored one by one |
//! | `lately_rank_part_cache_total{result}` | counter | request parts kept from the last ranking (hit) or made (miss) |
//! | `lately_rank_part_cache_bytes` | gauge | bytes of the parts kept |
//! | `lately_rank_underflow_total` | counter | candidates whose first attention took the plain path |
//! | `lately_rank_unit_seconds` | gauge | what a unit of work takes a thread, as measured |
//! | `lately_accelerator_calls_total` | counter | calls that the device answered |
//! | `lately_accelerator_fallbacks_total{reason}` | counter | calls that the CPU answered for it: failed, not_finite, length, batch, given_up |
//! | `lately_impressions_total{result}` | counter | logged, or dropped (a training row lost, never an action) |
//! | `lately_model_generation{alias}` | gauge | swaps since the start |
//! | `lately_model_generations_live{alias}` | gauge | generations in memory: two, and those that requests still hold |
//! | `lately_model_swaps_total{alias, result}` | counter | swapped or refused |
//! | `lately_shadow_rankings_total{result}` | counter | compared, busy (something waited), full (its queue was), failed |
//! | `lately_shadow_probability_difference{head}` | histogram | mean difference of a ranking's probabilities |
//! | `lately_shadow_rank_correlation` | histogram | of the scores of a ranking |
//! | `lately_arm_rankings_total{arm, result}` | counter | a model was asked by arm: scored, failed, late |
//! | `lately_arm_rank_seconds{arm}` | histogram | one ranking, all stages, by arm |
//! | `lately_guardrail_unwatched_total` | counter | rankings whose actions were not waited for, as too many were |
//! | `lately_rank_hidden_errors_total` | counter | rankings that went by the latest actions alone for what is hidden |
//! | `lately_follower_errors_total` | counter | failed reads of the log by the follower |
//! | `lately_retrieve_items{kind}` | gauge | active items: embedded (have an embedding), indexed (in the graph), changed (since it was made), fresh, trending |
//! | `lately_retrieve_index_seconds{kind}` | histogram | making the graph: full or grown |
//! | `lately_retrieve_index_errors_total` | counter | graphs that could not be made or searched; then all items are looked at |

mod accelerated;
mod agreement;
mod batcher;
mod clock;
mod config;
mod draw;
mod error;
mod estimate;
pub mod experiment;
mod explore;
mod follower;
mod generations;
pub mod guardrails;
mod impression;
mod last_known;
pub mod model_slot;
mod policy;
pub mod ranker;
mod recently_shown;
mod request;
pub mod retrieve;
pub mod select;
mod shadow;
pub mod value_model;

pub use config::{ImpressionMode, RankConfig, RankDevice, RankPrecision};
pub use error::{RankConfigError, RankError, Shed};
pub use experiment::{Book, Exposure};
pub use explore::ExploreConfig;
pub use guardrails::{GuardrailConfig, Guardrails};
pub use model_slot::{LoadedModel, ModelSlot, ModelSummary, SwapError};
pub use ranker::Ranker;
pub use request::{
    Dropped, Explain, FeedRequest, ModelRef, Pin, Priority, RankRequest, RankResponse, RankedItem, Reason,
    Rules, Rung, Source, Variant,
};
pub use retrieve::RetrieveConfig;
pub use select::{
    BlockRule, CapRule, Diversity, DppConfig, PageDiversity, SelectConfig, SpacingMode, SpacingRule,
    SsdConfig, page_diversity,
};
pub use shadow::ShadowSummary;
pub use value_model::{PerturbationConfig, SurfaceWeights, ValueModel, ValueModelConfig, perturbation};
