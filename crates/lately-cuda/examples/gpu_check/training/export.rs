//! The case that PyTorch trains on too: the weights at the start and the batches of [`super::curve`], and the CPU's loss and
//! gradient's length of the first one, as a safetensors file. `scripts/gpu_check_torch_training.py` reads it.

use std::collections::HashMap;
use std::path::Path;

use lately_model::Precision;
use lately_model::training::{StagedBatch, TrainingPlan};

use super::Learning;
use super::curve::{self, Course};
use super::rows::Rows;
use crate::Failure;
use crate::export::{Tensor, serialized, weights};
use crate::inputs::{ITEM, LENGTH};
use crate::place::Place;

/// Writes the file.
pub(crate) fn write(place: &Place, path: &Path) -> Result<(), Failure> {
    let course = Course::new(curve::rows(place), 0.0)?;
    std::fs::write(path, bytes(&course)?).map_err(|e| format!("{}: {e}", path.display()).into())
}

fn bytes(course: &Course) -> Result<Vec<u8>, Failure> {
    let (model, plan) = (&course.model, TrainingPlan::of(&course.model)?);
    let mut tensors = weights(model);
    for (i, (rows, staged)) in course.batches.iter().enumerate() {
        tensors.extend(batch(&plan, rows, staged)?.into_iter().map(|t| t.within(&format!("batch.{i}."))));
    }
    let mut exact = Learning::on_cpu(model, Precision::F32);
    let (rows, staged) = &course.batches[0];
    let loss = exact.gradient(rows, staged, None)?;
    tensors.push(Tensor::floats("loss", vec![1], &[loss as f32]));
    tensors.push(Tensor::floats("norm", vec![1], &[exact.norm()? as f32]));
    let tables: Vec<&str> = plan.tables.iter().map(|t| model.parameters()[t.table].name.as_str()).collect();
    let information = [
        ("tables", tables.join(",")),
        ("batches", course.batches.len().to_string()),
        ("steps", curve::STEPS.to_string()),
        ("rate", curve::RATE.to_string()),
        ("beta1", curve::BETAS.0.to_string()),
        ("beta2", curve::BETAS.1.to_string()),
        ("first", plan.encoder.as_ref().map_or(0, |e| e.first_k).to_string()),
        ("tokens", LENGTH.to_string()),
    ];
    let information: HashMap<_, _> = information.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    serialized(&tensors, Some(information))
}

/// A batch's tensors. The columns beside the encoder's are those that the card is given, before and after the trained tables'.
fn batch(plan: &TrainingPlan, rows: &Rows, staged: &StagedBatch) -> Result<Vec<Tensor>, Failure> {
    let b = &rows.batch;
    let (count, heads) = (b.rows(), plan.heads);
    let lengths = b.token_offsets.windows(2).map(|w| i64::from(w[1] - w[0]));
    let requests = b.token_offsets.len() - 1;
    let request = b.row_offsets.windows(2).enumerate();
    let request = request.flat_map(|(i, w)| std::iter::repeat_n(i as i64, (w[1] - w[0]) as usize));
    let width = plan.inputs - plan.output();
    let columns = |t: &lately_model::training::TableIds| plan.parameters[t.table].columns;
    let first = plan.tables.first().map_or(plan.inputs, |t| t.offset);
    let mut end = first;
    for table in &plan.tables {
        if table.offset != end || table.slots != 1 {
            return Err("PyTorch's model takes tables that lie side by side and have one slot".into());
        }
        end += columns(table);
    }
    let (first, end) = (first - plan.output(), end - plan.output());
    let features = || staged.stretches.iter().flat_map(|s| s.features.chunks_exact(width));
    let before: Vec<f32> = features().flat_map(|row| row[..first].iter().copied()).collect();
    let after: Vec<f32> = features().flat_map(|row| row[end..].iter().copied()).collect();
    let mut tensors = vec![
        Tensor::integers("action", vec![b.tokens()], b.token_action.iter().map(|a| i64::from(*a))),
        Tensor::floats("item", vec![b.tokens(), ITEM], &b.token_item),
        Tensor::integers("length", vec![requests], lengths),
        Tensor::integers("request", vec![count], request),
        Tensor::floats("candidate", vec![count, ITEM], &b.candidate),
        Tensor::floats("before", vec![count, first], &before),
        Tensor::floats("after", vec![count, width - end], &after),
        Tensor::floats("label", vec![count, heads], &b.label),
        Tensor::floats("weight", vec![count, heads], &rows.weight),
    ];
    for i in 0..plan.tables.len() {
        let indices = staged.stretches.iter().flat_map(|s| s.tables[i].indices.iter());
        tensors.push(Tensor::integers(format!("table.{i}"), vec![count], indices.map(|x| i64::from(*x))));
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn the_file_has_what_pytorch_trains_on() {
        let course = Course::new(12, 0.0).unwrap();
        let bytes = bytes(&course).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let shape = |name: &str| file.tensor(name).unwrap().shape().to_vec();
        assert_eq!(shape("weight.transact.action.weight"), [20, 32]);
        assert_eq!(shape("batch.7.candidate"), [12, 32]);
        assert_eq!(shape("batch.0.length"), [2]);
        // Affinities before the tables of surfaces and topics, numbers and the embedding after them.
        assert_eq!(shape("batch.0.before"), [12, 80]);
        assert_eq!(shape("batch.0.after"), [12, 432]);
        assert_eq!(shape("batch.0.table.1"), [12]);
        let inputs = shape("weight.cross.0.weight")[0];
        assert_eq!(inputs, 1_056 + 80 + 4 + 4 + 432);
        let loss = file.tensor("loss").unwrap();
        let loss = f32::from_le_bytes(loss.data().try_into().unwrap());
        assert!(loss > 0.0 && loss.is_finite());
    }
}
