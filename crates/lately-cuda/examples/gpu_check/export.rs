//! The case that PyTorch scores too: weights, one request of 2,000 candidates, and the CPU's logits in f32, as a safetensors
//! file. The request's 100 tokens stand there once; `scripts/gpu_check_torch.py` reads it.

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
    let floats = |x: &[f32]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let integers = |x: Vec<i64>| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let actions = batch.token_action.iter().map(|a| i64::from(*a)).collect();
    let times = batch.token_age_ms.iter().map(|age| REQUEST_MS - age).collect();
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = (model.parameters().iter())
        .map(|p| (format!("weight.{}", p.name), Dtype::F32, p.shape.clone(), floats(&p.data)))
        .collect();
    let inputs = [
        ("input.action_type", Dtype::I64, vec![1, LENGTH], integers(actions)),
        ("input.item", Dtype::F32, vec![1, LENGTH, ITEM], floats(&batch.token_item)),
        ("input.action_time", Dtype::I64, vec![1, LENGTH], integers(times)),
        ("input.request_time", Dtype::I64, vec![1], integers(vec![REQUEST_MS])),
        ("input.candidate", Dtype::F32, vec![rows, ITEM], floats(&batch.candidate)),
        ("input.dense", Dtype::F32, vec![rows, NUMBERS], floats(&batch.item.numeric)),
        ("logits", Dtype::F32, vec![rows, model.heads()], floats(logits)),
    ];
    tensors.extend(inputs.map(|(name, dtype, shape, data)| (name.to_owned(), dtype, shape, data)));
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), data)?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    Ok(safetensors::serialize(views, None)?)
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
