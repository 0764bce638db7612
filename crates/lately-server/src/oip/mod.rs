//! The Open Inference Protocol (KServe v2), over JSON (`http/oip.rs`) and gRPC (`grpc/inference.rs`), with what both
//! share: one model, `lately`, whose tensors are a user, candidates, and their scores.

mod infer;

use lately_rank::ModelSummary;

use crate::app::App;
use crate::error::ApiError;

pub(crate) use infer::{Infer, Input, Output, OutputData, Parameter, Parameters, infer};

/// The model's only name.
pub(crate) const MODEL: &str = "lately";
/// Versions of the server that clients see.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A tensor as metadata describes it; -1 is any size.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: &'static str,
    pub(crate) datatype: &'static str,
    pub(crate) shape: Vec<i64>,
}

const BYTES: &str = "BYTES";

fn tensor(name: &'static str, datatype: &'static str, shape: impl Into<Vec<i64>>) -> Tensor {
    Tensor { name, datatype, shape: shape.into() }
}

/// What the model takes; `surface` may be left out.
pub(crate) fn inputs() -> [Tensor; 3] {
    [tensor("user", BYTES, [1]), tensor("candidates", BYTES, [-1]), tensor("surface", BYTES, [1])]
}

/// What the model gives, for so many candidates (-1: any) and heads.
pub(crate) fn outputs(candidates: i64, heads: usize) -> [Tensor; 3] {
    [
        tensor("score", "FP32", [candidates]),
        tensor("probabilities", "FP32", [candidates, heads as i64]),
        tensor("position", "INT32", [candidates]),
    ]
}

/// Refuses other models, and versions that are not served.
pub(crate) fn check_name(app: &App, name: &str, version: Option<&str>) -> Result<(), ApiError> {
    if name != MODEL {
        return Err(ApiError::not_found("unknown_model", format!("the only model is `{MODEL}`")));
    }
    let served = app.ranker.slot().current();
    match version {
        Some(version) if served.is_none_or(|served| served.version() != version) => Err(unknown_version()),
        _ => Ok(()),
    }
}

fn unknown_version() -> ApiError {
    let message = "this version is not served: leave the version out, or see GET /v2/models/lately";
    ApiError::not_found("unknown_version", message)
}

/// The served model, if one is loaded.
pub(crate) fn served(app: &App) -> Option<ModelSummary> {
    app.ranker.slot().current().map(|served| served.summary())
}

/// Number of heads of every model of this schema.
pub(crate) fn heads(app: &App) -> usize {
    app.schema.heads.len()
}
