//! Batches to learn from.

use lately_features::{FeatureBatch, Schema};
use lately_model::training::{StagedBatch, Stager};
use lately_model::{Lists, Objective};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Failure;
use crate::inputs::{HEADS, ITEM, NUMBERS, Recipe};

/// How strongly each head orders the lists, where there are any; one head not at all.
const HEAD_WEIGHT: [f32; HEADS] = [0.5, 0.0, 0.25, 1.0];
/// Numbers of an item that a label depends on.
const TOLD: usize = 4;

/// A batch with labels and weights.
#[derive(Clone)]
pub(crate) struct Rows {
    pub(crate) batch: FeatureBatch,
    /// Rows x heads; about 1 in all, so that losses of batches of any size compare.
    pub(crate) weight: Vec<f32>,
    /// A list a request; none: every row for itself.
    lists: Option<(Vec<u32>, Vec<f32>)>,
}

impl Rows {
    /// (tokens, candidates) of each request. Labels follow from the item's numbers and embedding with some noise, so that
    /// there is something to learn.
    pub(crate) fn new(schema: &Schema, requests: &[(usize, usize)], seed: u64) -> Self {
        let recipe = Recipe { requests: requests.to_vec(), ..Recipe::one(0, 0, seed) };
        let mut batch = recipe.batch(schema);
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
        let rows = batch.rows();
        let numbers = batch.item.numeric.chunks_exact(NUMBERS).zip(batch.candidate.chunks_exact(ITEM));
        batch.label = numbers
            .flat_map(|(numbers, embedding)| {
                let noise: [f32; HEADS] = std::array::from_fn(|_| random.random::<f32>() - 0.5);
                (0..HEADS).map(move |head| {
                    let told: f32 = numbers[head * TOLD..][..TOLD].iter().sum();
                    f32::from(u8::from(told + embedding[head] + 3.0 * noise[head] > 0.7))
                })
            })
            .collect();
        let scale = 1.0 / (rows * HEADS).max(1) as f32;
        let weight = (0..rows * HEADS).map(|_| (0.5 + random.random::<f32>()) * scale).collect();
        Self { batch, weight, lists: None }
    }

    /// The same with a list a request, some of whose rows count twice.
    pub(crate) fn with_lists(self) -> Self {
        let mut offsets = self.batch.row_offsets.clone();
        offsets.dedup();
        let copies = (0..self.batch.rows()).map(|i| if i % 4 == 0 { 2.0 } else { 1.0 }).collect();
        Self { lists: Some((offsets, copies)), ..self }
    }

    pub(crate) fn objective(&self) -> Objective<'_> {
        let lists = self.lists.as_ref();
        let lists = lists.map(|(offsets, copies)| Lists { offsets, head_weight: &HEAD_WEIGHT, copies });
        Objective { weight: &self.weight, lists }
    }

    pub(crate) fn stage(&self, stager: &mut Stager) -> Result<StagedBatch, Failure> {
        Ok(stager.stage(&self.batch, &self.objective())?)
    }
}

/// So many rows, in requests of the same number of candidates, each with so many tokens.
pub(crate) fn even(rows: usize, candidates: usize, tokens: usize) -> Vec<(usize, usize)> {
    let whole = std::iter::repeat_n((tokens, candidates), rows / candidates);
    whole.chain((!rows.is_multiple_of(candidates)).then_some((tokens, rows % candidates))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Geometry;

    #[test]
    fn labels_are_of_both_kinds_and_weights_add_up_to_one() {
        let schema = Geometry::Default.schema().unwrap();
        let rows = Rows::new(&schema, &even(64, 10, 2), 1).with_lists();
        assert_eq!(rows.batch.rows(), 64);
        let share = rows.batch.label.iter().sum::<f32>() / (64 * HEADS) as f32;
        assert!((0.1..0.9).contains(&share), "{share}");
        let weight: f32 = rows.weight.iter().sum();
        assert!((weight - 1.0).abs() < 0.2, "{weight}");
        assert_eq!(rows.objective().lists.unwrap().offsets, [0, 10, 20, 30, 40, 50, 60, 64]);
        assert_eq!(even(20, 10, 3), [(3, 10), (3, 10)]);
    }
}
