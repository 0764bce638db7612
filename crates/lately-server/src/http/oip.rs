//! `/v2/...`: the Open Inference Protocol over JSON. What it means is in `oip`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::header::{CONTENT_TYPE, ORIGIN, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::admitted::Admitted;
use crate::app::App;
use crate::error::ApiError;
use crate::json::Body;
use crate::oip::{self, Infer, Input, Output, OutputData, Parameter, Parameters, Tensor};

/// The body of an error in this protocol.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipErrorBody {
    /// For people; says what to do.
    error: String,
    /// Stable name for programs, the same as elsewhere.
    code: &'static str,
}

/// An error in the form of this protocol.
pub(crate) struct OipError(ApiError);

impl From<ApiError> for OipError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for OipError {
    fn into_response(self) -> Response {
        let body = OipErrorBody { error: self.0.message.clone(), code: self.0.code };
        instead(self.0, body)
    }
}

/// Another body with an error's status and `Retry-After`.
fn instead(error: ApiError, body: impl Serialize) -> Response {
    let (head, _) = error.into_response().into_parts();
    let mut response = (head.status, Json(body)).into_response();
    if let Some(retry) = head.headers.get(RETRY_AFTER) {
        response.headers_mut().insert(RETRY_AFTER, retry.clone());
    }
    response
}

/// About the server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipServer {
    name: &'static str,
    version: &'static str,
    extensions: [String; 0],
}

/// Whether the server answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipLive {
    live: bool,
}

/// Whether the server, or the model, can rank.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipReady {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    ready: bool,
}

/// About the model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipModel {
    name: &'static str,
    /// The one that is served; none where none is loaded yet.
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<OipTensor>,
    outputs: Vec<OipTensor>,
}

/// A tensor; -1 is any size.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipTensor {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<i64>,
}

/// What to infer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OipInfer {
    /// Comes back in the answer. It is not the ranking's id.
    #[serde(default)]
    id: String,
    /// `deadline_ms`, a number; `request`, the ranking's id.
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
    /// `user` BYTES [1], `candidates` BYTES [N], and if you like `surface` BYTES [1].
    inputs: Vec<OipInput>,
    /// `score`, `probabilities`, `position`; default: all.
    #[serde(default)]
    outputs: Vec<OipAskedOutput>,
}

/// An input tensor.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OipInput {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    /// None has a meaning here.
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
    data: Vec<String>,
}

/// The name of a wanted output.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OipAskedOutput {
    name: String,
    /// None but `binary_data`, which is not followed: answers are JSON.
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
}

/// What was inferred.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipInferred {
    model_name: &'static str,
    /// Left out where no model ranked, see `degraded` among the parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<String>,
    id: String,
    /// `request` (the ranking's id), `watermark`, `degraded` and `heads` (names, separated by commas), `generation`.
    parameters: BTreeMap<String, Value>,
    outputs: Vec<OipOutput>,
}

/// An output tensor, in the order of the candidates.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipOutput {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<i64>,
    data: OipData,
}

/// Its numbers, row after row.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OipData {
    /// FP32.
    Fp32(Vec<f32>),
    /// INT32.
    Int32(Vec<i32>),
}

/// About the server.
#[utoipa::path(get, path = "/v2", responses((status = 200, body = OipServer)))]
pub(crate) async fn server() -> Json<OipServer> {
    Json(OipServer { name: oip::MODEL, version: oip::VERSION, extensions: [] })
}

/// 200 as long as the process answers.
#[utoipa::path(get, path = "/v2/health/live", responses((status = 200, body = OipLive)))]
pub(crate) async fn live() -> Json<OipLive> {
    Json(OipLive { live: true })
}

/// As `/readyz`.
#[utoipa::path(get, path = "/v2/health/ready", responses(
    (status = 200, body = OipReady), (status = 503, body = OipReady)))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    readiness(&app, None)
}

fn readiness(app: &App, name: Option<&'static str>) -> Response {
    let ready = app.ready();
    let body = OipReady { name, ready: ready.is_ok() };
    match ready {
        Ok(()) => Json(body).into_response(),
        Err((code, message)) => instead(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message), body),
    }
}

/// About the model, whose name is `lately`.
#[utoipa::path(get, path = "/v2/models/{name}", params(("name" = String, Path, description = "lately")), responses(
    (status = 200, body = OipModel), (status = 404, body = OipErrorBody)))]
pub(crate) async fn model(State(app): State<Arc<App>>, named: Named) -> Result<Json<OipModel>, OipError> {
    named.check(&app)?;
    let tensors = |tensors: [Tensor; 3]| {
        let form = |t: Tensor| OipTensor { name: t.name, datatype: t.datatype, shape: t.shape };
        tensors.map(form).into()
    };
    Ok(Json(OipModel {
        name: oip::MODEL,
        versions: oip::served(&app).into_iter().map(|model| model.version).collect(),
        platform: oip::MODEL,
        inputs: tensors(oip::inputs()),
        outputs: tensors(oip::outputs(-1, oip::heads(&app))),
    }))
}

/// As `/v2/health/ready`, for the one model.
#[utoipa::path(get, path = "/v2/models/{name}/ready", params(("name" = String, Path, description = "lately")),
    responses((status = 200, body = OipReady), (status = 404, body = OipErrorBody), (status = 503, body = OipReady)))]
pub(crate) async fn model_ready(State(app): State<Arc<App>>, named: Named) -> Result<Response, OipError> {
    named.check(&app)?;
    Ok(readiness(&app, Some(oip::MODEL)))
}

/// Scores candidates for a user, in the order in which they were sent. With `/versions/{version}` before `/infer` only
/// that version answers.
#[utoipa::path(post, path = "/v2/models/{name}/infer", params(("name" = String, Path, description = "lately")),
    request_body = OipInfer, responses(
    (status = 200, body = OipInferred), (status = 400, body = OipErrorBody), (status = 404, body = OipErrorBody),
    (status = 413, body = OipErrorBody), (status = 415, body = OipErrorBody), (status = 422, body = OipErrorBody),
    (status = 429, body = OipErrorBody), (status = 503, body = OipErrorBody)))]
pub(crate) async fn infer(
    State(app): State<Arc<App>>,
    named: Named,
    body: Result<Admitted<Sent>, ApiError>,
) -> Result<Json<OipInferred>, OipError> {
    named.check(&app)?;
    let Admitted(permit, Sent(body)) = body?;
    let (id, asked) = read(body, named.version)?;
    let inferred = oip::infer(&app, permit, asked).await?;
    let value = |(name, parameter)| {
        let value = match parameter {
            Parameter::Bool(value) => value.into(),
            Parameter::Number(value) => value.into(),
            Parameter::Text(value) => value.into(),
            Parameter::Other => Value::Null,
        };
        (name, value)
    };
    Ok(Json(OipInferred {
        model_name: oip::MODEL,
        model_version: inferred.version,
        id,
        parameters: inferred.parameters.into_iter().map(value).collect(),
        outputs: inferred.outputs.into_iter().map(Into::into).collect(),
    }))
}

/// The body of an inference. Clients of Triton send it without a type; what a browser sends without one names the page
/// that it comes from.
pub(crate) struct Sent(OipInfer);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, ApiError> {
        let headers = request.headers_mut();
        if headers.contains_key("inference-header-content-length") {
            let message = "send tensors as JSON: the binary extension is not there";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message));
        }
        if !headers.contains_key(CONTENT_TYPE) && !headers.contains_key(ORIGIN) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let Body(body) = Body::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// Parts of the path.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    name: String,
    version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = OipError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, OipError> {
        let unreadable = |e: PathRejection| ApiError::not_found("unknown_model", e.body_text());
        let Path(named) = Path::from_request_parts(parts, state).await.map_err(unreadable)?;
        Ok(named)
    }
}

impl Named {
    fn check(&self, app: &App) -> Result<(), ApiError> {
        oip::check_name(app, &self.name, self.version.as_deref())
    }
}

fn read(body: OipInfer, version: Option<String>) -> Result<(String, Infer), ApiError> {
    for input in &body.inputs {
        refuse(&format!("input `{}`", input.name), &input.parameters, "")?;
    }
    for output in &body.outputs {
        refuse(&format!("output `{}`", output.name), &output.parameters, "binary_data")?;
    }
    let inputs = body.inputs.into_iter().map(|i| Input {
        name: i.name,
        datatype: i.datatype,
        shape: i.shape,
        data: i.data,
    });
    let infer = Infer {
        version,
        parameters: parameters(body.parameters),
        inputs: inputs.collect(),
        outputs: body.outputs.into_iter().map(|output| output.name).collect(),
        waits: None,
    };
    Ok((body.id, infer))
}

/// Refuses parameters of a tensor, but for one that changes nothing.
fn refuse(what: &str, parameters: &BTreeMap<String, Value>, but: &str) -> Result<(), ApiError> {
    match parameters.keys().find(|name| *name != but) {
        Some(name) => Err(crate::ask::bad(format!(
            "{what} has the parameter `{name}`, which has no meaning here: send tensors as JSON, without extensions"
        ))),
        None => Ok(()),
    }
}

fn parameters(values: BTreeMap<String, Value>) -> Parameters {
    let read = |(name, value)| {
        let value = match value {
            Value::Bool(value) => Parameter::Bool(value),
            Value::String(value) => Parameter::Text(value),
            Value::Number(number) => number.as_u64().map_or(Parameter::Other, Parameter::Number),
            _ => Parameter::Other,
        };
        (name, value)
    };
    values.into_iter().map(read).collect()
}

impl From<Output> for OipOutput {
    fn from(output: Output) -> Self {
        let Tensor { name, datatype, shape } = output.tensor;
        let data = match output.data {
            OutputData::Fp32(numbers) => OipData::Fp32(numbers),
            OutputData::Int32(numbers) => OipData::Int32(numbers),
        };
        Self { name, datatype, shape, data }
    }
}
