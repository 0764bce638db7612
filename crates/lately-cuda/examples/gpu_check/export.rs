//! The case that PyTorch scores too: weights, one request of 2,000 candidates, and the CPU's logits in f32, as a safetensors
//! file. The request's 100 tokens stand there once; `scripts/gpu_check_torch.py` reads it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use lately_features::FeatureBatch;
use lately_model::{Engine, EngineMemory, Model, ServingPrecision};
use safetensors::tensor::{Dtype, TensorView};

use crate::Failure;
use crate::inputs::{Geometry, ITEM, LENGTH, NUMBERS, Recipe, shared};

/// Candidates, of which fewer are taken as they come.
const CANDIDATES: usize = 2_000;
/// The reference program takes times, not ages: ms since 1970 UTC.
const REQUEST_MS: i64 = 1_700_000_000_000;

/// Writes the file.
pub(crate) fn write(path: &Path) -> Result<(), Failure> {
    let (model, schema) = shared(Geometry::Official)?;
    let batch = Recipe::one(LENGTH, CANDIDATES, 1).batch(&schema);
    let engine = Engine::new(Arc::clone(&model), ServingPrecision::F32);
    let logits = engine.score(&batch, &mut EngineMemory::default())?;
    std::fs::write(path, bytes(&model, &batch, &logits)?)
        .map_err(|e| format!("{}: {e}", path.display()).into())
}

fn bytes(model: &Model, batch: &FeatureBatch, logits: &[f32]) -> Result<Vec<u8>, Failure> {
    let rows = batch.rows();
    let actions = batch.token_action.iter().map(|a| i64::from(*a));
    let times = batch.token_age_ms.iter().map(|age| REQUEST_MS - age);
    let mut tensors = weights(model);
    tensors.extend([
        Tensor::integers("input.action_type", vec![1, LENGTH], actions),
        Tensor::floats("input.item", vec![1, LENGTH, ITEM], &batch.token_item),
        Tensor::integers("input.action_time", vec![1, LENGTH], times),
        Tensor::integers("input.request_time", vec![1], [REQUEST_MS]),
        Tensor::floats("input.candidate", vec![rows, ITEM], &batch.candidate),
        Tensor::floats("input.dense", vec![rows, NUMBERS], &batch.item.numeric),
        Tensor::floats("logits", vec![rows, model.heads()], logits),
    ]);
    serialized(&tensors, None)
}

/// A tensor of a file for PyTorch.
pub(crate) struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Tensor {
    pub(crate) fn floats(name: impl Into<String>, shape: Vec<usize>, data: &[f32]) -> Self {
        let data = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F32, shape, data }
    }

    pub(crate) fn integers(
        name: impl Into<String>,
        shape: Vec<usize>,
        data: impl IntoIterator<Item = i64>,
    ) -> Self {
        let data = data.into_iter().flat_map(i64::to_le_bytes).collect();
        Self { name: name.into(), dtype: Dtype::I64, shape, data }
    }

    /// The same, its name behind a prefix.
    pub(crate) fn within(self, prefix: &str) -> Self {
        Self { name: format!("{prefix}{}", self.name), ..self }
    }
}

/// A model's weights, each by its name behind `weight.`.
pub(crate) fn weights(model: &Model) -> Vec<Tensor> {
    let all = model.parameters().iter();
    all.map(|p| Tensor::floats(format!("weight.{}", p.name), p.shape.clone(), &p.data)).collect()
}

/// The bytes of a safetensors file.
pub(crate) fn serialized(
    tensors: &[Tensor],
    information: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, Failure> {
    let views = (tensors.iter())
        .map(|t| Ok((t.name.as_str(), TensorView::new(t.dtype, t.shape.clone(), &t.data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok(safetensors::serialize(views, information)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn the_file_has_what_the_reference_program_names() {
        let (model, schema) = shared(Geometry::Official).unwrap();
        let batch = Recipe::one(LENGTH, 3, 1).batch(&schema);
        let logits = vec![0.5; 3 * model.heads()];
        let bytes = bytes(&model, &batch, &logits).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (name, shape) in [
            ("weight.transact.action.weight", vec![20, 32]),
            ("weight.transact.encoder.layers.1.self_attn.in_proj_weight", vec![288, 96]),
            ("weight.transact.pool.bias", vec![96]),
            ("weight.cross.1.weight", vec![1_456, 1_456]),
            ("weight.mlp.0.weight", vec![512, 1_456]),
            ("weight.heads.bias", vec![4]),
            ("input.action_type", vec![1, 100]),
            ("input.candidate", vec![3, 32]),
            ("logits", vec![3, 4]),
        ] {
            assert_eq!(file.tensor(name).unwrap().shape(), shape, "{name}");
        }
        assert_eq!(file.tensor("logits").unwrap().data()[..4], 0.5f32.to_le_bytes());
    }
}
