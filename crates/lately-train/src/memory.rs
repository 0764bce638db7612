//! What training holds in memory, to be held against a bound before the first step.

use std::collections::HashSet;
use std::fmt;
use std::mem::size_of;
use std::ops::Range;
use std::sync::Arc;

use lately_features::{Features, Token};
use lately_model::{Gradients, Model, Scratch};

use crate::ahead::{ALIVE, Maker};
use crate::dataset::{Candidate, Dataset, Request};
use crate::examples::{Examples, Part};
use crate::sampler::Epoch;
use crate::trainer::TrainError;

/// Bytes by what holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Rows, tokens and features.
    pub dataset: u64,
    /// Weights, Adam's moments and what a save of the state takes for a moment.
    pub model: u64,
    /// The gradient; of a run on a device, which holds its own: none.
    pub gradient: u64,
    /// Activations, assembled rows and the shards' gradients of one step. On a device: its rows, and the staged batches that
    /// wait for it.
    pub step: u64,
    /// An epoch's order.
    pub order: u64,
}

impl Memory {
    /// Of a run on the CPU that is about to begin. A step's part is measured on the batch with the most tokens of the
    /// first epoch.
    pub(crate) fn measure(model: &Model, examples: &Examples<'_>) -> Result<Self, TrainError> {
        let mut gradients = Gradients::zeros(model);
        let epoch = Epoch::new(examples, 0);
        let step = step(model, examples, &epoch, &mut gradients)?;
        Ok(Self { gradient: gradients.bytes() as u64, step, ..Self::at_rest(model, examples) })
    }

    /// Of a run on a device, what it takes of the host: weights and moments are kept here for saves.
    pub(crate) fn beside_device(
        model: &Model,
        examples: &Examples<'_>,
        maker: &mut Maker<'_>,
    ) -> Result<Self, TrainError> {
        let epoch = Epoch::new(examples, 0);
        let step = match largest(examples, &epoch) {
            Some(batch) => {
                let ready = maker.make(&epoch, batch.clone())?;
                (maker.part.bytes() + ALIVE * ready.staged.bytes()) as u64
            }
            None => 0,
        };
        Ok(Self { step, ..Self::at_rest(model, examples) })
    }

    /// All but what steps take.
    fn at_rest(model: &Model, examples: &Examples<'_>) -> Self {
        let parameters = 4 * model.parameter_count() as u64;
        let largest = model.parameters().iter().map(|p| 4 * p.data.len() as u64).max().unwrap_or(0);
        Self {
            dataset: dataset(examples.slice.dataset),
            model: 3 * parameters + largest,
            gradient: 0,
            step: 0,
            // Numbers of requests in groups, and of groups with their sizes in the epoch's order.
            order: 40 * examples.slice.requests.len() as u64,
        }
    }

    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        self.dataset + self.model + self.order + self.gradient + self.step
    }

    /// Refuses a bound that is too low.
    pub(crate) fn check(&self, limit: u64) -> Result<(), TrainError> {
        if self.total() <= limit {
            return Ok(());
        }
        Err(TrainError::Memory { limit, memory: Box::new(*self) })
    }
}

/// What is large, and what makes it smaller.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: u64| Size(bytes);
        write!(
            f,
            "{} for the rows (fewer days, or a lower [schema] sequence.length), {} for weights, moments and gradients \
             (fewer buckets of categorical features, narrower `hidden` or `cross_width`), {} for a step (a smaller \
             `batch_rows` or `list_rows`)",
            size(self.dataset + self.order),
            size(self.model + self.gradient),
            size(self.step),
        )
    }
}

/// Bytes in words.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / f64::from(1 << 20);
        if mib < 1024.0 { write!(f, "{mib:.1} MiB") } else { write!(f, "{:.2} GiB", mib / 1024.0) }
    }
}

/// An epoch's batch with the most tokens.
fn largest<'e>(examples: &Examples<'_>, epoch: &'e Epoch) -> Option<&'e Range<usize>> {
    epoch.batches.iter().max_by_key(|batch| examples.tokens(&epoch.groups[(*batch).clone()]))
}

/// Activations and assembled rows of the largest batch, by computing it once.
fn step(
    model: &Model,
    examples: &Examples<'_>,
    epoch: &Epoch,
    gradients: &mut Gradients,
) -> Result<u64, TrainError> {
    let config = examples.config;
    let Some(largest) = largest(examples, epoch) else { return Ok(0) };
    let (mut part, mut scratch) = (Part::default(), Scratch::with_threads(config.threads));
    examples.assemble(epoch.number, &epoch.groups[largest.clone()], 1.0, &mut part);
    let head_weight = config.list_head_weights(&examples.slice.dataset.schema)?;
    model.objective_and_gradient(
        &part.batch,
        &part.objective(&head_weight),
        None,
        &mut scratch,
        gradients,
    )?;
    Ok((part.bytes() + scratch.bytes()) as u64)
}

/// Rows, tokens, and every vector of features once.
fn dataset(dataset: &Dataset) -> u64 {
    let mut known = HashSet::new();
    let mut features = 0;
    let mut see = |entity: Option<&Arc<Features>>| {
        if let Some(f) = entity.filter(|f| known.insert(Arc::as_ptr(f))) {
            let values = f.categorical.len() + f.numeric.len() + f.embedding.len();
            features += size_of::<Features>() + 2 * size_of::<usize>() + 4 * values;
        }
    };
    let mut rows = 0;
    for request in &dataset.requests {
        see(request.features.as_ref());
        request.tokens.iter().for_each(|token| see(token.item.as_ref()));
        request.candidates.iter().for_each(|candidate| see(candidate.features.as_ref()));
        rows += size_of::<Request>()
            + request.tokens.len() * size_of::<Token>()
            + request.candidates.len() * size_of::<Candidate>();
    }
    (rows + features) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_is_too_low_is_refused_with_what_to_lower() {
        let memory = Memory { dataset: 500, model: 300, gradient: 100, step: 50, order: 0 };
        assert!(memory.check(950).is_ok());
        let refused = memory.check(949).unwrap_err().to_string();
        assert!(
            refused.contains("`batch_rows`") && refused.contains("[schema] sequence.length"),
            "{refused}"
        );
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(
            (Size(5 << 19).to_string(), Size(3 << 29).to_string()),
            ("2.5 MiB".into(), "1.50 GiB".into())
        );
    }
}
