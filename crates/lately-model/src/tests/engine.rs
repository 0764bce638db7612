//! The compiled form against the model as it trains, and its bits in any company.

use std::sync::Arc;

use lately_features::FeatureBatch;

use super::score::{configs, pick};
use super::world::{batch, small};
use crate::{Engine, EngineMemory, Model, ModelConfig, PartCache, Scratch, ServingPrecision};

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max)
}

/// All small configurations, and one with a rate tower and no cross layers.
fn all() -> Vec<ModelConfig> {
    let mut all = configs();
    // With one head the encoder has a compiled form.
    all.extend(configs().into_iter().map(|c| ModelConfig { attention_heads: 1, ..c }));
    all.push(ModelConfig { attention_heads: 1, layers: 3, ffn: 40, ..super::world::tiny() });
    all.push(ModelConfig { rate_hidden: 5, cross_layers: 0, ..super::world::tiny() });
    all.push(ModelConfig { cross_layers: 0, hidden: vec![], ..super::world::tiny() });
    all
}

#[test]
fn the_compiled_model_scores_as_the_model() {
    let schema = small();
    // More than one group of lanes and of rows; histories of nothing, of one vector and of more.
    let requests: Vec<_> = (0..40).map(|i| ([0, 1, 5, 3, 6][i % 5], 1 + i % 9)).collect();
    let b = batch(&schema, &requests, 2);
    for config in all() {
        let model = Arc::new(Model::new(config.clone(), &schema, 1).unwrap());
        let exact = model.score(&b, &mut Scratch::default()).unwrap();
        let mut memory = EngineMemory::default();
        let engine = Engine::new(model.clone(), ServingPrecision::F32);
        let got = engine.score(&b, &mut memory).unwrap();
        assert!(worst(&got, &exact) < 1e-5, "{} in f32, {config:?}", worst(&got, &exact));
        for precision in [ServingPrecision::Bf16, ServingPrecision::Int8] {
            let engine = Engine::new(model.clone(), precision);
            let got = engine.score(&b, &mut memory).unwrap();
            assert!(worst(&got, &exact) < 3e-2, "{} in {precision:?}, {config:?}", worst(&got, &exact));
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company_and_order() {
    let schema = small();
    let requests: Vec<_> = (0..70).map(|i| (i % 7, 1 + i % 4)).collect();
    let b = batch(&schema, &requests, 2);
    for config in all() {
        let model = Arc::new(Model::new(config.clone(), &schema, 1).unwrap());
        for precision in [ServingPrecision::F32, ServingPrecision::Bf16, ServingPrecision::Int8] {
            let engine = Engine::new(model.clone(), precision);
            let mut memory = EngineMemory::default();
            let mut score = |b: &FeatureBatch| engine.score(b, &mut memory).unwrap();
            let (all, heads) = (score(&b), model.heads());
            assert_eq!(all, score(&b));
            for r in [0, 1, 13, 42, 69] {
                let rows = b.row_offsets[r] as usize * heads..b.row_offsets[r + 1] as usize * heads;
                let what = format!("{precision:?} {config:?}");
                assert_eq!(score(&pick(&b, &[r], false)), all[rows.clone()], "{what}");
                let turned = score(&pick(&b, &[33, r, 5], true));
                let from = b.row_offsets[34] as usize - b.row_offsets[33] as usize;
                let turned = &turned[from * heads..][..rows.len()];
                let mut back: Vec<_> = turned.chunks(heads).collect();
                back.reverse();
                assert_eq!(back.concat(), all[rows], "{what}");
            }
        }
    }
}

#[test]
fn what_a_persons_requests_share_is_kept_until_an_action_or_a_model_changes_it() {
    let schema = small();
    let config = ModelConfig { attention_heads: 1, ..super::world::tiny() };
    let model = Arc::new(Model::new(config.clone(), &schema, 1).unwrap());
    let b = batch(&schema, &[(5, 3), (4, 2)], 2);
    for precision in [ServingPrecision::F32, ServingPrecision::Bf16] {
        let engine = Engine::new(model.clone(), precision);
        let (cache, mut memory) = (PartCache::new(1 << 20), EngineMemory::default());
        let mut score = |engine: &Engine, b: &FeatureBatch, cache: &PartCache| {
            let plain = engine.score(b, &mut memory).unwrap();
            assert_eq!(plain, engine.score_cached(b, &[7, 8], cache, &mut memory).unwrap());
        };
        score(&engine, &b, &cache);
        assert_eq!(cache.counts(), (0, 2));
        score(&engine, &b, &cache);
        assert_eq!(cache.counts(), (2, 2));
        // One acts again.
        let mut acted = b.clone();
        acted.token_action[1] = (acted.token_action[1] + 1) % 4;
        score(&engine, &acted, &cache);
        assert_eq!(cache.counts(), (3, 3));
        // Another model comes.
        let other = Engine::new(Arc::new(Model::new(config.clone(), &schema, 2).unwrap()), precision);
        score(&other, &acted, &cache);
        assert_eq!(cache.counts(), (3, 5));
        // Nothing is kept beyond the bound.
        let bytes = cache.bytes();
        assert!(bytes > 0 && bytes < 1 << 20, "{bytes}");
        let none = PartCache::new(0);
        score(&engine, &b, &none);
        score(&engine, &b, &none);
        assert_eq!((none.counts(), none.bytes()), ((0, 4), 0));
    }
    let mut memory = EngineMemory::default();
    let engine = Engine::new(model, ServingPrecision::F32);
    assert!(engine.score_cached(&b, &[7], &PartCache::new(0), &mut memory).is_err());
}

/// First-layer maps that are large make maxima of the tokens' and the candidate's logits lie far apart.
#[test]
fn sums_that_cannot_be_trusted_are_made_anew_and_counted() {
    let schema = small();
    let mut model =
        Model::new(ModelConfig { attention_heads: 1, ..super::world::tiny() }, &schema, 1).unwrap();
    for (name, data) in model.parameters_mut() {
        if name.ends_with("layers.0.self_attn.in_proj_weight") {
            data.iter_mut().for_each(|x| *x *= 25.0);
        }
    }
    let b = batch(&schema, &[(5, 30), (4, 20)], 2);
    let exact = model.score(&b, &mut Scratch::default()).unwrap();
    let engine = Engine::new(Arc::new(model), ServingPrecision::F32);
    let mut memory = EngineMemory::default();
    let got = engine.score(&b, &mut memory).unwrap();
    assert!(worst(&got, &exact) < 1e-3, "{}", worst(&got, &exact));
    assert!((1..50).contains(&memory.fallbacks()), "{} of 50", memory.fallbacks());
}
