//! `GET /v1/models`: what is served.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
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
}

/// The served model.
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
}

/// The served model.
#[utoipa::path(get, path = "/v1/models", responses((status = 200, body = ModelsReply)))]
pub(crate) async fn get_models(State(app): State<Arc<App>>) -> Json<ModelsReply> {
    Json(reply(&app))
}

pub(super) fn reply(app: &App) -> ModelsReply {
    let slot = app.ranker.slot();
    let current = slot.current().map(|loaded| {
        let m = loaded.summary();
        CurrentReply {
            version: m.version,
            generation: m.generation,
            schema_hash: m.schema_hash,
            heads: m.heads,
            embedding_version: m.embedding_version,
            data_range_ms: m.data_range_ms.map(|(from, to)| [from, to]),
            parent: m.parent,
            parameters: m.parameters,
        }
    });
    ModelsReply { schema_hash: slot.schema_hash().to_owned(), current }
}
