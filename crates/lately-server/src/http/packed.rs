//! The packed form of `POST /v1/rank` beside JSON: which one was sent, and which one to answer in.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lately_rank::{RankRequest, RankResponse, Rules};

use super::rank::RankBody;
use crate::admission::Permit;
use crate::app::App;
use crate::ask::bad;
use crate::error::ApiError;
use crate::json::{Body, body_bytes, check_plain};
use crate::packed::{self, Answer, MEDIA_TYPE, PackedError, Ranked};

/// A form of `POST /v1/rank`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Form {
    Json,
    Packed,
}

/// A ranking as it was asked for in either form, and the form of its answer.
pub(crate) struct Asked {
    pub(crate) ask: RankRequest,
    pub(crate) answer: Form,
}

impl<S: Send + Sync> FromRequest<S> for Asked {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let headers = request.headers();
        let answer = if names(headers, header::ACCEPT) { Form::Packed } else { Form::Json };
        if !names(headers, header::CONTENT_TYPE) {
            let Body(body) = Body::<RankBody>::from_request(request, state).await?;
            return Ok(Self { ask: body.into(), answer });
        }
        check_plain(headers)?;
        let ask = packed::Request::decode(&body_bytes(request, state).await?)?;
        Ok(Self { ask: ask.into(), answer })
    }
}

/// Whether the packed form is among the media types of a header.
fn names(headers: &HeaderMap, name: header::HeaderName) -> bool {
    let packed = |text: &str| {
        let kind = text.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case(MEDIA_TYPE)
    };
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(packed))
}

/// Ranks, and packs the answer.
pub(crate) async fn packed_answer(app: &App, permit: Permit, ask: RankRequest) -> Result<Response, ApiError> {
    // The first of equal candidates is the one that the ranker keeps.
    let mut places = HashMap::with_capacity(ask.candidates.len());
    for (place, item) in ask.candidates.iter().enumerate() {
        places.entry(item.clone()).or_insert(place);
    }
    let candidates = ask.candidates.len();
    let response = app.rank(permit, ask).await?;
    let item = |item: &lately_rank::RankedItem| Ranked {
        // At most 2,000: the ranker refuses more.
        candidate: places.get(&item.item).map_or(u16::MAX, |place| *place as u16),
        score: item.score,
        probabilities: item.heads.clone(),
    };
    let items = response.items.iter().map(item).collect();
    let bytes = packed(response, items, candidates as u16)
        .encode()
        .map_err(|error| ApiError::internal("packing an answer", &error))?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], bytes).into_response())
}

fn packed(r: RankResponse, items: Vec<Ranked>, candidates: u16) -> Answer {
    Answer {
        request: r.request.into(),
        embedding_version: r.model.as_ref().map_or_else(String::new, |m| m.embedding_version.clone()),
        heads: if r.model.is_some() { r.heads } else { Vec::new() },
        model: r.model.map(|m| (m.version, m.generation)),
        schema_hash: r.schema_hash,
        watermark: r.watermark,
        degraded: r.degraded.into_iter().map(|rung| rung.name().to_owned()).collect(),
        candidates,
        items,
    }
}

impl From<packed::Request> for RankRequest {
    fn from(ask: packed::Request) -> Self {
        Self {
            surface: ask.surface,
            limit: Some(usize::from(ask.limit)).filter(|limit| *limit > 0),
            request: ask.request,
            deadline: Some(Duration::from_millis(ask.deadline_ms.into())).filter(|time| !time.is_zero()),
            rules: Rules { hidden: ask.hidden, shown: ask.shown, spacing: ask.spacing },
            ..Self::new(ask.user, ask.candidates)
        }
    }
}

impl From<PackedError> for ApiError {
    fn from(error: PackedError) -> Self {
        match error {
            PackedError::Text { .. } | PackedError::Id { .. } => bad(error.to_string()),
            _ => Self::new(StatusCode::BAD_REQUEST, "bad_packed", error.to_string()),
        }
    }
}
