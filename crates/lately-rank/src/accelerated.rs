//! A model on a device: checked against the CPU before it serves, and given up where the device fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lately_features::FeatureBatch;
use lately_model::{Accelerator, AcceleratorError, Model, Scorer, ServingPrecision};

use crate::agreement::{Agreement, PROBABILITY_ERROR, RANK_CORRELATION};

/// Failed calls in a row after which the device is asked no more. One may be memory that is short for a moment; after a fault
/// of a kernel every later call of the process fails, and the CPU should then share a request among its threads again.
const GIVE_UP: u32 = 3;

/// A model on a device.
#[derive(Debug)]
pub(crate) struct Accelerated {
    device: String,
    scorer: Box<dyn Scorer>,
    heads: usize,
    /// Failed calls since the last one that did not fail; at [`GIVE_UP`] it stays.
    failures: AtomicU32,
}

/// Why a model does not serve on a device.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    #[error(
        "its probabilities differ from those of the CPU in f32 by up to {:.4} (at most {PROBABILITY_ERROR} may be), rank \
         correlation {:.5} (at least {RANK_CORRELATION})",
        .0.error, .0.correlation
    )]
    Differs(Agreement),
}

impl Accelerated {
    /// Loads a model, which must then give nearly what it gives on the CPU in f32: `exact` are batches with those logits.
    pub(crate) fn load(
        accelerator: &dyn Accelerator,
        model: &Arc<Model>,
        exact: &[(&FeatureBatch, Vec<f32>)],
    ) -> Result<Self, Unfit> {
        let scorer = sheltered(|| accelerator.load(model))?;
        let (device, heads) = (accelerator.name().to_owned(), model.heads());
        let loaded = Self { device, scorer, heads, failures: AtomicU32::new(0) };
        for (batch, exact) in exact {
            let agreement = Agreement::of(batch, exact, &loaded.logits(batch)?, heads);
            if !agreement.holds() {
                return Err(Unfit::Differs(agreement));
            }
        }
        Ok(loaded)
    }

    /// The device, as operators call it.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// In what it multiplies.
    pub(crate) fn precision(&self) -> ServingPrecision {
        self.scorer.precision()
    }

    /// Whether it is still asked.
    pub(crate) fn is_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < GIVE_UP
    }

    /// Rows x heads, all finite; `None`: it is not asked any more.
    pub(crate) fn score(&self, batch: &FeatureBatch) -> Option<Result<Vec<f32>, AcceleratorError>> {
        if !self.is_up() {
            fell_back("given_up");
            return None;
        }
        let result = self.logits(batch);
        if result.is_ok() {
            metrics::counter!("lately_accelerator_calls_total").increment(1);
            // Not one that was given up meanwhile: its requests are cut for the CPU by now.
            let running = |failures| (failures < GIVE_UP).then_some(0);
            self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, running).ok();
        }
        Some(result)
    }

    /// The CPU answered what it failed on, so that the batch was not to blame.
    pub(crate) fn failed(&self, error: &AcceleratorError) {
        fell_back(error.reason());
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let device = &self.device;
        if failures < GIVE_UP {
            tracing::warn!(device, %error, "the device failed; the CPU answered");
        } else if failures == GIVE_UP {
            tracing::error!(device, %error, failures, "the device is given up until the next swap: scoring on the CPU");
        }
    }

    /// What the scorer promises, held against what it gives.
    fn logits(&self, batch: &FeatureBatch) -> Result<Vec<f32>, AcceleratorError> {
        let logits = sheltered(|| self.scorer.score(batch))?;
        let (got, want) = (logits.len(), batch.rows() * self.heads);
        if got != want {
            return Err(AcceleratorError::Length { want, got });
        }
        match logits.iter().filter(|x| !x.is_finite()).count() {
            0 => Ok(logits),
            count => Err(AcceleratorError::NotFinite { count }),
        }
    }
}

fn fell_back(reason: &'static str) {
    metrics::counter!("lately_accelerator_fallbacks_total", "reason" => reason).increment(1);
}

/// A panic of a driver's bindings must not take the thread with it: the CPU can still answer.
fn sheltered<T>(call: impl FnOnce() -> Result<T, AcceleratorError>) -> Result<T, AcceleratorError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(AcceleratorError::Failed("it panicked".into())))
}

#[cfg(test)]
pub(crate) mod tests;
