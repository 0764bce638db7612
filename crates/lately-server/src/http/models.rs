//! `GET /v1/models`: what is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use lately_rank::guardrails::{Comparison, Reading, Watched};
use lately_rank::{ModelSummary, ShadowSummary};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;

/// What is served.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelsReply {
    /// Hash of the schema that models must have.
    schema_hash: String,
    /// The served model; null where none is loaded yet.
    current: Option<CurrentReply>,
    /// The model that scores a share of the rankings unseen; null where none is loaded, or that share is 0.
    challenger: Option<ChallengerReply>,
    /// The champion since its swap, beside the version before it; null while nothing is watched.
    watch: Option<WatchedReply>,
    /// The canary, and the challenger beside the champion in it; null while none runs.
    canary: Option<CanaryReply>,
}

/// The canary.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CanaryReply {
    /// Share of the people for whom the challenger ranks.
    share: f64,
    /// How it does; null before the first look.
    watch: Option<WatchedReply>,
}

/// A version beside another one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WatchedReply {
    /// The version that is watched.
    version: String,
    /// The one with which it is compared.
    reference: String,
    /// Since when, ms since 1970 UTC.
    since_ms: i64,
    /// Its rankings since then.
    rankings: u64,
    /// Those of the other one that are compared.
    reference_rankings: u64,
    /// By guardrail and head.
    guardrails: Vec<GuardrailReply>,
}

/// What a guardrail says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GuardrailReply {
    /// errors, deadline, score, calibration, negative or positive.
    guardrail: &'static str,
    /// Of which head; null: of the model as a whole.
    head: Option<String>,
    /// The watched version's number.
    value: f64,
    /// The other one's.
    reference: f64,
    /// Where a breach begins.
    bound: f64,
    /// How sure a breach is; it is one from 1 on.
    evidence: f64,
    /// Whether the value lies within the bound, surely or not.
    within: bool,
}

/// A loaded model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CurrentReply {
    /// Version in the registry.
    version: String,
    /// Swaps since the server's start.
    generation: u64,
    /// Hash of its schema.
    schema_hash: String,
    /// Names of its heads.
    heads: Vec<String>,
    /// Version of the item embeddings it was trained with.
    embedding_version: String,
    /// First and last time of its training data, ms since 1970 UTC.
    data_range_ms: Option<[i64; 2]>,
    /// The version it was trained on from.
    parent: Option<String>,
    /// Trained numbers.
    parameters: usize,
    /// In what it multiplies: f32, bf16 or int8.
    precision: &'static str,
    /// What scores it: cpu, or the name of a device.
    device: String,
}

/// The challenger, and how it compares with the champion.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChallengerReply {
    #[serde(flatten)]
    model: CurrentReply,
    /// Over the rankings that both scored since either of them was loaded; null before the first.
    shadow: Option<ShadowReply>,
}

/// Means over rankings that champion and challenger scored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShadowReply {
    /// Version of the champion.
    champion: String,
    /// How many rankings.
    rankings: u64,
    /// Difference of a candidate's probability, without sign, by head.
    probability_difference: BTreeMap<String, f64>,
    /// Rank correlation (Spearman) of a ranking's scores, -1 to 1.
    rank_correlation: f64,
    /// Share of the first three items that are the same, 0 to 1.
    top_3_overlap: f64,
    /// Time that the challenger took for a candidate, us.
    us_per_candidate: f64,
}

/// The served model, and the challenger.
#[utoipa::path(get, path = "/v1/models", responses((status = 200, body = ModelsReply)))]
pub(crate) async fn get_models(State(app): State<Arc<App>>) -> Json<ModelsReply> {
    Json(reply(&app))
}

pub(super) fn reply(app: &App) -> ModelsReply {
    let slot = app.ranker.slot();
    let challenger = app.ranker.challenger().map(|(model, shadow)| {
        let shadow = shadow.map(|s| ShadowReply::new(s, &model.heads));
        ChallengerReply { model: model.into(), shadow }
    });
    let current = slot.current().map(|loaded| loaded.summary().into());
    let standing = app.ranker.guardrails().standing();
    let watch = standing.champion.map(WatchedReply::from);
    let canary = app
        .ranker
        .canary()
        .map(|share| CanaryReply { share, watch: standing.canary.map(WatchedReply::from) });
    ModelsReply { schema_hash: slot.schema_hash().to_owned(), current, challenger, watch, canary }
}

impl From<Watched> for WatchedReply {
    fn from(w: Watched) -> Self {
        let Comparison { rankings, reference_rankings, readings } = w.comparison;
        Self {
            version: w.version,
            reference: w.reference,
            since_ms: w.since_ms,
            rankings,
            reference_rankings,
            guardrails: readings.into_iter().map(GuardrailReply::from).collect(),
        }
    }
}

impl From<Reading> for GuardrailReply {
    fn from(r: Reading) -> Self {
        let Reading { guardrail, head, value, reference, bound, evidence, within } = r;
        Self { guardrail, head, value, reference, bound, evidence, within }
    }
}

impl From<ModelSummary> for CurrentReply {
    fn from(m: ModelSummary) -> Self {
        Self {
            version: m.version,
            generation: m.generation,
            schema_hash: m.schema_hash,
            heads: m.heads,
            embedding_version: m.embedding_version,
            data_range_ms: m.data_range_ms.map(|(from, to)| [from, to]),
            parent: m.parent,
            parameters: m.parameters,
            precision: m.precision,
            device: m.device,
        }
    }
}

impl ShadowReply {
    fn new(s: ShadowSummary, heads: &[String]) -> Self {
        Self {
            champion: s.champion,
            rankings: s.rankings,
            probability_difference: heads.iter().cloned().zip(s.probability_difference).collect(),
            rank_correlation: s.rank_correlation,
            top_3_overlap: s.top_3_overlap,
            us_per_candidate: s.us_per_candidate,
        }
    }
}
