//! What a candidate costs, of two models in turns.

use std::sync::Arc;
use std::time::Instant;

use lately_features::FeatureBatch;
use lately_model::{Engine, EngineMemory, Model, ModelError, ServingPrecision};

/// Times that each model scores the batch: a median of as many stands a few that were interrupted.
const ROUNDS: usize = 21;

/// Time for a candidate, us, the median of some rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// Of the challenger.
    pub challenger: f64,
    /// Of the champion; `None` where there is none.
    pub champion: Option<f64>,
}

/// Scores a batch by both models in turns, each in its compiled form on this thread.
///
/// # Errors
/// Where a model refuses the batch.
pub fn latency(
    challenger: &Model,
    champion: Option<&Model>,
    batch: &FeatureBatch,
) -> Result<Latency, ModelError> {
    let compiled = |model: &Model| Engine::new(Arc::new(model.clone()), ServingPrecision::F32);
    let engines: Vec<Engine> = [Some(challenger), champion].into_iter().flatten().map(compiled).collect();
    let mut memory = EngineMemory::default();
    let mut times = vec![Vec::with_capacity(ROUNDS); engines.len()];
    for _ in 0..ROUNDS {
        for (engine, times) in engines.iter().zip(&mut times) {
            let begun = Instant::now();
            engine.score(batch, &mut memory)?;
            times.push(begun.elapsed().as_secs_f64() * 1e6 / batch.rows().max(1) as f64);
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    let mut medians = times.iter_mut().map(median);
    let own = medians.next().unwrap_or(f64::INFINITY);
    Ok(Latency { challenger: own, champion: medians.next() })
}
