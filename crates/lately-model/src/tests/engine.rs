//! The compiled form against the model as it trains, and its bits in any company.

use std::sync::Arc;

use lately_features::FeatureBatch;

use super::score::{configs, pick};
use super::world::{batch, small};
use crate::{Engine, EngineMemory, Model, ModelConfig, Scratch, ServingPrecision};

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
