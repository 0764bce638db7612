//! `/admin/v1/experiments`: declare, start, ramp, report, stop.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lately_rank::experiment::{Book, Change, Entry, ExperimentDefinition, ExperimentError};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::error::ApiError;
use crate::experiments::{DeskError, ExperimentDesk};
use crate::json::Body;

/// All experiments.
#[derive(Debug, Serialize)]
pub(crate) struct BookReply {
    /// Changes so far.
    revision: u64,
    /// Share of the people in no experiment at all.
    holdout: f64,
    experiments: Vec<Entry>,
}

/// A share of the people.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RampBody {
    /// Above 0 to 1.
    ramp: f64,
}

/// A share of the people.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoldoutBody {
    /// 0 to below 1.
    share: f64,
}

impl From<Book> for BookReply {
    fn from(book: Book) -> Self {
        Self { revision: book.revision, holdout: book.holdout, experiments: book.experiments }
    }
}

/// All experiments.
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<BookReply>, ApiError> {
    let desk = desk(&app)?;
    let book = app.writes.run(move || (desk.book)(())).await?.map_err(ApiError::from)?;
    Ok(Json(book.into()))
}

/// A new experiment, or another definition of a draft.
pub(super) async fn declare(
    State(app): State<Arc<App>>,
    Body(definition): Body<ExperimentDefinition>,
) -> Result<Response, ApiError> {
    let name = definition.name.clone();
    Ok((StatusCode::CREATED, changed(&app, Change::Declare(definition), name).await?).into_response())
}

/// Puts a share of its people in.
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Body(RampBody { ramp }): Body<RampBody>,
) -> Result<Json<Entry>, ApiError> {
    changed(&app, Change::Start { name: name.clone(), ramp }, name).await
}

/// Another share.
pub(super) async fn ramp(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Body(RampBody { ramp }): Body<RampBody>,
) -> Result<Json<Entry>, ApiError> {
    changed(&app, Change::Ramp { name: name.clone(), ramp }, name).await
}

/// How it stands: all numbers as JSON, or the table where `Accept` asks for `text/plain`.
pub(super) async fn report(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let desk = desk(&app)?;
    let report = app.reports.run(move || (desk.report)(name)).await?.map_err(ApiError::from)?;
    let asked = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds = asked.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    Ok(match kinds.map(str::trim).any(|kind| kind.eq_ignore_ascii_case("text/plain")) {
        true => report.text.into_response(),
        false => Json(report.json).into_response(),
    })
}

/// Ends it for all.
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Entry>, ApiError> {
    changed(&app, Change::Stop { name: name.clone() }, name).await
}

/// Forgets a draft or a stopped one.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    change(&app, Change::Remove { name }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Another share of the people in no experiment at all.
pub(super) async fn holdout(
    State(app): State<Arc<App>>,
    Body(HoldoutBody { share }): Body<HoldoutBody>,
) -> Result<Json<BookReply>, ApiError> {
    Ok(Json(change(&app, Change::Holdout { share }).await?.into()))
}

async fn changed(app: &Arc<App>, what: Change, name: String) -> Result<Json<Entry>, ApiError> {
    let book = change(app, what).await?;
    let entry = book.get(&name).map_err(|e| ApiError::from(DeskError::Refused(e)))?;
    Ok(Json(entry.clone()))
}

async fn change(app: &Arc<App>, change: Change) -> Result<Book, ApiError> {
    let desk = desk(app)?;
    app.writes.run(move || (desk.change)(change)).await?.map_err(ApiError::from)
}

fn desk(app: &App) -> Result<ExperimentDesk, ApiError> {
    app.experiments.clone().ok_or_else(|| {
        ApiError::not_found("no_experiments", "this server was started without a place for experiments")
    })
}

impl From<DeskError> for ApiError {
    fn from(error: DeskError) -> Self {
        let message = error.to_string();
        match &error {
            DeskError::Refused(ExperimentError::Unknown(_)) => Self::not_found("no_such_experiment", message),
            DeskError::Refused(
                ExperimentError::State { .. }
                | ExperimentError::Taken(_)
                | ExperimentError::Full { .. }
                | ExperimentError::Overlap { .. },
            )
            | DeskError::Conflict(_) => Self::new(StatusCode::CONFLICT, "not_now", message),
            DeskError::Refused(_) => Self::unprocessable("bad_experiment", message),
            DeskError::Failed(_) => Self::internal("experiments", &error),
        }
    }
}
