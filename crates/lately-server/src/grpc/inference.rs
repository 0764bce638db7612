//! `inference.GRPCInferenceService`: the Open Inference Protocol over gRPC. What it means is in `oip`.

use std::collections::HashMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::deadline::waits;
use super::pb::inference as pb;
use super::priority::priority;
use crate::app::App;
use crate::ask::bad;
use crate::error::ApiError;
use crate::oip::{self, Infer, Input, Output, OutputData, Parameter, Parameters, Tensor};

pub(super) struct Inference(pub(super) Arc<App>);

#[tonic::async_trait]
impl pb::grpc_inference_service_server::GrpcInferenceService for Inference {
    async fn server_live(
        &self,
        _: Request<pb::ServerLiveRequest>,
    ) -> Result<Response<pb::ServerLiveResponse>, Status> {
        Ok(Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<pb::ServerReadyRequest>,
    ) -> Result<Response<pb::ServerReadyResponse>, Status> {
        Ok(Response::new(pb::ServerReadyResponse { ready: self.0.ready().is_ok() }))
    }

    async fn model_ready(
        &self,
        call: Request<pb::ModelReadyRequest>,
    ) -> Result<Response<pb::ModelReadyResponse>, Status> {
        let asked = call.get_ref();
        oip::check_name(&self.0, &asked.name, given(&asked.version))?;
        Ok(Response::new(pb::ModelReadyResponse { ready: self.0.ready().is_ok() }))
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        let (name, version) = (oip::MODEL.to_owned(), oip::VERSION.to_owned());
        Ok(Response::new(pb::ServerMetadataResponse { name, version, extensions: Vec::new() }))
    }

    async fn model_metadata(
        &self,
        call: Request<pb::ModelMetadataRequest>,
    ) -> Result<Response<pb::ModelMetadataResponse>, Status> {
        let asked = call.get_ref();
        oip::check_name(&self.0, &asked.name, given(&asked.version))?;
        Ok(Response::new(pb::ModelMetadataResponse {
            name: oip::MODEL.to_owned(),
            versions: oip::served(&self.0).into_iter().map(|model| model.version).collect(),
            platform: oip::MODEL.to_owned(),
            inputs: oip::inputs().map(metadata).into(),
            outputs: oip::outputs(-1, oip::heads(&self.0)).map(metadata).into(),
        }))
    }

    async fn model_infer(
        &self,
        call: Request<pb::ModelInferRequest>,
    ) -> Result<Response<pb::ModelInferResponse>, Status> {
        let (metadata, extensions, asked) = call.into_parts();
        let permit = self.0.admit(priority(&metadata)?).await?;
        oip::check_name(&self.0, &asked.model_name, given(&asked.model_version))?;
        // Clients that send raw tensors read raw ones.
        let (id, raw) = (asked.id.clone(), !asked.raw_input_contents.is_empty());
        let infer = Infer { waits: waits(&extensions), ..read(asked)? };
        let inferred = oip::infer(&self.0, permit, infer).await?;
        let mut reply = pb::ModelInferResponse {
            model_name: oip::MODEL.to_owned(),
            model_version: inferred.version.unwrap_or_default(),
            id,
            parameters: inferred.parameters.into_iter().map(|(name, p)| (name, parameter(p))).collect(),
            ..pb::ModelInferResponse::default()
        };
        for output in inferred.outputs {
            write(&mut reply, output, raw);
        }
        Ok(Response::new(reply))
    }
}

/// An empty version means that any will do.
fn given(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

fn metadata(tensor: Tensor) -> pb::model_metadata_response::TensorMetadata {
    pb::model_metadata_response::TensorMetadata {
        name: tensor.name.to_owned(),
        datatype: tensor.datatype.to_owned(),
        shape: tensor.shape,
    }
}

fn read(asked: pb::ModelInferRequest) -> Result<Infer, ApiError> {
    let raw = asked.raw_input_contents;
    if !raw.is_empty() && raw.len() != asked.inputs.len() {
        return Err(bad("raw_input_contents has another number of tensors than inputs"));
    }
    let mut raw = raw.into_iter();
    let inputs = asked.inputs.into_iter().map(|input| {
        let (name, raw) = (input.name, raw.next());
        let data = match (raw, input.contents) {
            (Some(_), Some(_)) => {
                return Err(bad(format!("input `{name}` has both contents and raw contents")));
            }
            (Some(raw), None) => raw_texts(&name, &raw)?,
            (None, contents) => {
                let texts = contents.unwrap_or_default().bytes_contents;
                texts.into_iter().map(|bytes| text(&name, bytes)).collect::<Result<_, _>>()?
            }
        };
        Ok(Input { name, datatype: input.datatype, shape: input.shape, data })
    });
    Ok(Infer {
        version: given(&asked.model_version).map(str::to_owned),
        parameters: read_parameters(asked.parameters),
        inputs: inputs.collect::<Result<_, _>>()?,
        outputs: asked.outputs.into_iter().map(|output| output.name).collect(),
        waits: None,
    })
}

/// Raw texts: each a length (u32, little-endian) and its bytes.
fn raw_texts(name: &str, mut raw: &[u8]) -> Result<Vec<String>, ApiError> {
    let mut texts = Vec::new();
    while !raw.is_empty() {
        let cut = || bad(format!("input `{name}`: its raw contents end within a text"));
        let (length, rest) = raw.split_first_chunk::<4>().ok_or_else(cut)?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut)?;
        texts.push(text(name, bytes.to_vec())?);
        raw = rest;
    }
    Ok(texts)
}

fn text(name: &str, bytes: Vec<u8>) -> Result<String, ApiError> {
    String::from_utf8(bytes).map_err(|_| bad(format!("input `{name}` holds a text that is not UTF-8")))
}

fn read_parameters(parameters: HashMap<String, pb::InferParameter>) -> Parameters {
    use pb::infer_parameter::ParameterChoice as Choice;
    let read = |(name, parameter): (String, pb::InferParameter)| {
        let value = match parameter.parameter_choice {
            Some(Choice::BoolParam(value)) => Parameter::Bool(value),
            Some(Choice::Int64Param(value)) => {
                u64::try_from(value).map_or(Parameter::Other, Parameter::Number)
            }
            Some(Choice::Uint64Param(value)) => Parameter::Number(value),
            Some(Choice::StringParam(value)) => Parameter::Text(value),
            Some(Choice::DoubleParam(_)) | None => Parameter::Other,
        };
        (name, value)
    };
    parameters.into_iter().map(read).collect()
}

fn parameter(parameter: Parameter) -> pb::InferParameter {
    use pb::infer_parameter::ParameterChoice as Choice;
    let choice = match parameter {
        Parameter::Bool(value) => Some(Choice::BoolParam(value)),
        // The specification's first form of a number; offsets and generations are far below its end.
        Parameter::Number(value) => Some(Choice::Int64Param(value.min(i64::MAX as u64) as i64)),
        Parameter::Text(value) => Some(Choice::StringParam(value)),
        Parameter::Other => None,
    };
    pb::InferParameter { parameter_choice: choice }
}

fn write(reply: &mut pb::ModelInferResponse, output: Output, raw: bool) {
    let mut tensor = pb::model_infer_response::InferOutputTensor {
        name: output.tensor.name.to_owned(),
        datatype: output.tensor.datatype.to_owned(),
        shape: output.tensor.shape,
        ..Default::default()
    };
    if raw {
        reply.raw_output_contents.push(match output.data {
            OutputData::Fp32(numbers) => numbers.into_iter().flat_map(f32::to_le_bytes).collect(),
            OutputData::Int32(numbers) => numbers.into_iter().flat_map(i32::to_le_bytes).collect(),
        });
    } else {
        let mut contents = pb::InferTensorContents::default();
        match output.data {
            OutputData::Fp32(numbers) => contents.fp32_contents = numbers,
            OutputData::Int32(numbers) => contents.int_contents = numbers,
        }
        tensor.contents = Some(contents);
    }
    reply.outputs.push(tensor);
}
