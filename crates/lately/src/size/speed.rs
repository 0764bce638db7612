//! Candidates that one core scores in a second.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lately_features::{
    Assembler, FeatureBatch, Features, RequestContext, Schema, Token, action_bit, assemble,
};
use lately_model::{Engine, EngineMemory, Model, ServingPrecision};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::config::Config;
use crate::load::made::features;

/// Age of a token beside its neighbour, ms.
const APART_MS: i64 = 60_000;
/// A measurement has at least so many calls, also where one takes longer than the time.
const CALLS: u32 = 3;

/// What was measured on one thread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Speed {
    pub(crate) candidates_per_second: f64,
    /// The model's weights, as they are and packed, bytes.
    pub(crate) model_bytes: usize,
    /// Working memory of the thread, bytes.
    pub(crate) scratch_bytes: usize,
}

/// Scores one request's candidates over and over for a time, as the server does: in tiles of `rank.tile_rows`, with
/// random weights.
pub(crate) fn measure(
    config: &Config,
    precision: ServingPrecision,
    tokens: usize,
    candidates: usize,
    time: Duration,
) -> Result<Speed> {
    let length = usize::from(config.schema.sequence.length);
    ensure!(tokens <= length, "{tokens} tokens: the schema's sequence has at most {length}");
    ensure!(candidates > 0, "0 candidates: score at least one");
    let engine = Engine::new(Arc::new(Model::new(config.model.clone(), &config.schema, 1)?), precision);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let tiles: Vec<FeatureBatch> = (0..candidates)
        .step_by(config.rank.tile_rows.max(1))
        .map(|from| (candidates - from).min(config.rank.tile_rows.max(1)))
        .map(|rows| tile(&config.schema, tokens, rows, &mut random))
        .collect::<Result<_>>()?;
    let mut memory = EngineMemory::default();
    let mut request =
        || tiles.iter().try_for_each(|tile| engine.score(tile, &mut memory).map(|l| drop(black_box(l))));
    request()?; // what is made once is made before
    let (start, mut calls) = (Instant::now(), 0);
    while start.elapsed() < time || calls < CALLS {
        request()?;
        calls += 1;
    }
    let candidates_per_second = candidates as f64 * f64::from(calls) / start.elapsed().as_secs_f64();
    let model_bytes = engine.model().parameter_count() * size_of::<f32>() + engine.bytes();
    Ok(Speed { candidates_per_second, model_bytes, scratch_bytes: memory.bytes() })
}

/// One request with random features, by the function that serving uses.
fn tile(schema: &Schema, tokens: usize, rows: usize, random: &mut ChaCha8Rng) -> Result<FeatureBatch> {
    let mut item =
        || Ok(Arc::new(Features::encode(&schema.item_features, &features(&schema.item_features, random))?));
    let candidates = (0..rows).map(|_| item()).collect::<Result<Vec<_>>>()?;
    let seen = (0..tokens).map(|_| item()).collect::<Result<Vec<_>>>()?;
    let user = Features::encode(&schema.user_features, &features(&schema.user_features, random))?;
    let types: Vec<u8> =
        (0..=u8::MAX).zip(&schema.actions).filter(|(_, a)| a.sequence).map(|(n, _)| n).collect();
    ensure!(tokens == 0 || !types.is_empty(), "no action type of the schema feeds the sequence");
    let token = |(n, item): (usize, Arc<Features>)| {
        let action = types[random.random_range(0..types.len())];
        let time_ms = -(n as i64 + 1) * APART_MS;
        Token { action, actions: action_bit(action), surface: 0, time_ms, item: Some(item) }
    };
    let tokens: Vec<Token> = seen.into_iter().enumerate().map(token).collect();
    let context = RequestContext { time_ms: 0, surface: 0, watermark: 0 };
    let mut batch = FeatureBatch::default();
    let candidates = candidates.iter().map(|item| Some(&**item));
    assemble(&mut batch, &Assembler::new(schema), &context, Some(&user), &tokens, candidates);
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::load::Preset;

    #[test]
    fn every_preset_is_scored_with_and_without_tokens() {
        for preset in [Preset::Nano, Preset::Default] {
            let config = Config::parse(&preset.toml(&[]).unwrap(), Path::new("x")).unwrap();
            for tokens in [0, 10] {
                let speed = measure(&config, ServingPrecision::F32, tokens, 5, Duration::ZERO).unwrap();
                assert!(speed.candidates_per_second > 0.0 && speed.scratch_bytes > 0, "{speed:?}");
                assert!(speed.model_bytes > 1_000, "{speed:?}");
            }
            assert!(measure(&config, ServingPrecision::F32, 101, 5, Duration::ZERO).is_err());
        }
    }

    #[test]
    fn a_tile_is_what_serving_would_score() {
        let config = Config::parse(&Preset::Nano.toml(&[]).unwrap(), Path::new("x")).unwrap();
        let batch = tile(&config.schema, 7, 3, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        assert_eq!((batch.requests(), batch.rows(), batch.tokens()), (1, 3, 7));
        assert!(batch.token_action.iter().all(|a| config.schema.actions[usize::from(*a)].sequence));
        assert!(batch.token_age_ms.is_sorted() && batch.token_age_ms[0] > 0, "newest first");
    }
}
