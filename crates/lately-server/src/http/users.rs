//! `/v1/users/{id}`: what is known of a user, and its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use lately_features::batch::Layout;
use lately_features::schema::FeatureKind;
use lately_features::{Features, Schema, SequenceEntry, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::{ApiError, ErrorBody};

/// What is known of a user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserReply {
    /// Who.
    pub(crate) user: String,
    /// The latest actions, newest first.
    pub(crate) sequence: Vec<EntryReply>,
    /// The features as the model sees them; null where none were sent.
    pub(crate) features: Option<FeaturesReply>,
}

/// One action.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EntryReply {
    /// With what.
    pub(crate) item: String,
    /// What.
    pub(crate) action: String,
    /// When, ms since 1970 UTC.
    pub(crate) time_ms: i64,
    /// Where.
    pub(crate) surface: Option<String>,
}

/// Features as the model sees them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FeaturesReply {
    /// Hash buckets of the values.
    pub(crate) categorical: BTreeMap<String, Vec<u32>>,
    /// Numbers, after the logarithm where declared; null where missing.
    pub(crate) numeric: BTreeMap<String, Option<f32>>,
    /// Fixed vectors.
    pub(crate) embedding: BTreeMap<String, Vec<f32>>,
}

/// What was removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForgottenReply {
    /// Who.
    user: String,
    /// Records of the log that are gone.
    removed_records: u64,
}

/// The user's sequence and features.
#[utoipa::path(get, path = "/v1/users/{id}", params(("id" = String, Path, description = "The user")), responses(
    (status = 200, body = UserReply), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(crate) async fn get_user(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<UserReply>, ApiError> {
    Ok(Json(known(&app, user_id(id)?).await?))
}

/// The user's sequence and features.
pub(crate) async fn known(app: &App, user: UserId) -> Result<UserReply, ApiError> {
    let (store, id) = (app.store.clone(), user.clone());
    let (sequence, features) = app.writes.run(move || (store.sequence(&id), store.user(&id))).await?;
    let sequence = sequence?;
    if sequence.entries().is_empty() && features.is_none() {
        return Err(ApiError::not_found("unknown_user", "nothing is known of this user"));
    }
    Ok(UserReply {
        user: user.into(),
        sequence: sequence.entries().iter().map(|e| entry(&app.schema, e)).collect(),
        features: features.map(|f| named(&app.schema.user_features, &f)),
    })
}

/// Forget a user: sequence, features and every record of the log. Cannot be undone.
#[utoipa::path(delete, path = "/v1/users/{id}", params(("id" = String, Path, description = "The user")), responses(
    (status = 200, body = ForgottenReply), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn delete_user(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ForgottenReply>, ApiError> {
    let user = user_id(id)?;
    let removed_records = forget(&app, user.clone()).await?;
    Ok(Json(ForgottenReply { user: user.into(), removed_records }))
}

/// Forgets the user; how many records of the log are gone.
pub(crate) async fn forget(app: &App, user: UserId) -> Result<u64, ApiError> {
    let ranker = app.ranker.clone();
    Ok(app.writes.run(move || ranker.forget(&user)).await??)
}

fn user_id(id: Result<Path<String>, PathRejection>) -> Result<UserId, ApiError> {
    let bad = |message: String| ApiError::unprocessable("bad_id", message);
    let Path(id) = id.map_err(|e| bad(e.body_text()))?;
    UserId::new(id).map_err(|e| bad(e.to_string()))
}

fn entry(schema: &Schema, entry: &SequenceEntry) -> EntryReply {
    let surface = usize::from(entry.surface).checked_sub(1).and_then(|i| schema.surfaces.get(i));
    EntryReply {
        item: entry.item.to_string(),
        action: schema.actions.get(usize::from(entry.action)).map_or_else(String::new, |a| a.name.clone()),
        time_ms: entry.time_ms,
        surface: surface.cloned(),
    }
}

fn named(kinds: &[FeatureKind], features: &Features) -> FeaturesReply {
    let slots = |start: usize, len: usize| {
        let buckets = features.categorical.get(start..start + len).unwrap_or_default();
        buckets.iter().copied().filter(|b| *b != 0).collect()
    };
    let categorical = Layout::of(kinds).categorical.into_iter();
    let mut reply = FeaturesReply {
        categorical: categorical.map(|c| (c.name, slots(c.start, c.slots))).collect(),
        numeric: BTreeMap::new(),
        embedding: BTreeMap::new(),
    };
    let (mut numbers, mut vector) = (features.numeric.iter(), &*features.embedding);
    for kind in kinds {
        match kind {
            FeatureKind::Categorical { .. } => {}
            FeatureKind::Numeric { name, .. } => {
                let value = numbers.next().copied().filter(|x| x.is_finite());
                reply.numeric.insert(name.clone(), value);
            }
            FeatureKind::Embedding { name, dim } => {
                let (own, rest) = vector.split_at(usize::from(*dim).min(vector.len()));
                reply.embedding.insert(name.clone(), own.to_vec());
                vector = rest;
            }
        }
    }
    reply
}
