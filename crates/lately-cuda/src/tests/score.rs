//! The kernels' logits against those of the CPU's engine.

use std::sync::Arc;

use lately_features::FeatureBatch;
use lately_model::{
    Calibration, Encoder, Engine as Cpu, EngineMemory, Fusion, HeadCalibration, Model, ModelConfig,
    ModelError, Outputs, ServingPrecision, rank_correlation,
};

use super::world::{batch, model, schema, tiny, trained};
use crate::CudaError;
use crate::driver::emulation::{Emulation, compiler};
use crate::engine::Engine;

/// How far logits are from others, in units of those's deviation from 0.
#[derive(Debug)]
struct Agreement {
    /// Root of the mean square of the errors.
    error: f64,
    largest: f64,
    /// The least rank correlation of a head.
    correlation: f64,
}

fn agreement(got: &[f32], want: &[f32], heads: usize) -> Agreement {
    assert_eq!(got.len(), want.len());
    assert!(got.iter().all(|x| x.is_finite()));
    let size = |x: &mut dyn Iterator<Item = f64>| {
        let (sum, count) = x.fold((0.0, 0.0), |(sum, count), x| (sum + x * x, count + 1.0));
        (sum / f64::max(count, 1.0)).sqrt()
    };
    let scale = size(&mut want.iter().map(|x| f64::from(*x)));
    let errors = || got.iter().zip(want).map(|(a, b)| f64::from((a - b).abs()) / scale);
    let column = |x: &[f32], h: usize| x.iter().skip(h).step_by(heads).copied().collect::<Vec<_>>();
    let correlations = (0..heads).map(|h| rank_correlation(&column(got, h), &column(want, h)));
    let largest = errors().fold(0.0, f64::max);
    Agreement { error: size(&mut errors()), largest, correlation: correlations.fold(1.0, f64::min) }
}

pub(super) fn cpu(model: &Arc<Model>, batch: &FeatureBatch, precision: ServingPrecision) -> Vec<f32> {
    Cpu::new(Arc::clone(model), precision).score(batch, &mut EngineMemory::default()).unwrap()
}

/// Holds logits against the CPU's in f32; the CPU's in bfloat16 say how far they may be.
pub(super) fn near(what: &str, model: &Arc<Model>, batch: &FeatureBatch, got: &[f32]) {
    let heads = model.heads();
    let exact = cpu(model, batch, ServingPrecision::F32);
    let found = agreement(got, &exact, heads);
    let of_bf16 = agreement(&cpu(model, batch, ServingPrecision::Bf16), &exact, heads);
    eprintln!("{what}: {found:?}; the CPU's bf16 {of_bf16:?}");
    assert!(found.error < 1e-2, "{what}: {found:?}");
    assert!(found.largest < 1e-2 + 1.5 * of_bf16.largest, "{what}: {found:?}, the CPU's bf16 {of_bf16:?}");
    // Ranks of a few rows say nothing.
    assert!(batch.rows() < 60 || found.correlation >= 0.999, "{what}: {found:?}");
}

/// The emulated card; in both orders of threads, which must give the same bits.
pub(super) fn agrees(what: &str, model: &Arc<Model>, batch: &FeatureBatch) {
    if compiler().is_none() {
        return;
    }
    let driver = Arc::new(Emulation::default());
    let engine = Engine::new(&driver, Arc::clone(model)).unwrap();
    let got = engine.score(batch).unwrap();
    near(what, model, batch, &got);
    driver.turn_around(true);
    assert_eq!(got, engine.score(batch).unwrap(), "{what}: threads in another order give other numbers");
}

#[test]
fn the_default_geometry_scores_as_the_cpu() {
    let schema = schema(32, 100);
    let model = model(&ModelConfig::default(), &schema);
    for (rows, tokens) in [(1, 100), (2, 17), (63, 16), (64, 1), (65, 15)] {
        let b = batch(&schema, &[(tokens, rows)], 3, |_| false);
        agrees(&format!("{rows} rows, {tokens} tokens"), &model, &b);
    }
    let b = batch(&schema, &[(0, 3), (100, 2), (1, 1), (15, 2), (0, 1), (16, 2), (17, 50)], 4, |_| false);
    agrees("mixed", &model, &b);
}

#[test]
fn the_papers_geometry_scores_as_the_cpu() {
    let schema = schema(32, 100);
    let model = model(&ModelConfig::paper(), &schema);
    for (i, requests) in [vec![(100, 2), (0, 2), (5, 3)], vec![(17, 65)]].iter().enumerate() {
        agrees(&format!("paper {i}"), &model, &batch(&schema, requests, 5, |_| false));
    }
}

#[test]
fn four_layers_with_a_wide_feed_forward_score_as_the_cpu() {
    let schema = schema(32, 40);
    let model = model(&ModelConfig { layers: 4, ffn: 384, ..ModelConfig::default() }, &schema);
    agrees("4 layers of 384", &model, &batch(&schema, &[(40, 3), (20, 4)], 6, |_| false));
}

#[test]
fn masked_tokens_are_not_looked_at() {
    let schema = schema(32, 40);
    let model =
        model(&ModelConfig { compatibility: true, attention_heads: 1, ..ModelConfig::default() }, &schema);
    let requests = [(40, 3), (17, 2), (1, 1), (0, 1)];
    type Masked = fn(usize) -> bool;
    let masks: [(&str, Masked); 4] =
        [("none", |_| false), ("all", |_| true), ("one", |i| i == 7), ("a tile", |i| i < 16)];
    let mut all = Vec::new();
    for (name, masked) in masks {
        let b = batch(&schema, &requests, 8, masked);
        agrees(&format!("masked: {name}"), &model, &b);
        all.push(cpu(&model, &b, ServingPrecision::F32));
    }
    for pair in all.windows(2) {
        // So that the tests above would see a mask that does nothing.
        let found = agreement(&pair[1], &pair[0], model.heads());
        assert!(found.error > 3e-2, "the mask makes a difference of {found:?}");
    }
}

#[test]
fn small_geometries_of_every_form_score_as_the_cpu() {
    let forms = [
        ("tiny", tiny()),
        ("1 layer", ModelConfig { layers: 1, ..tiny() }),
        ("3 layers", ModelConfig { layers: 3, ffn: 40, ..tiny() }),
        ("first k alone", ModelConfig { outputs: Some(Outputs::FirstK), ..tiny() }),
        ("maximum alone", ModelConfig { outputs: Some(Outputs::Max), ..tiny() }),
        ("all tokens", ModelConfig { outputs: Some(Outputs::All), ..tiny() }),
        ("projected", ModelConfig { cross_width: 20, cross_layers: 3, ..tiny() }),
        ("projected, no cross layers", ModelConfig { cross_width: 20, cross_layers: 0, ..tiny() }),
        ("no cross layers", ModelConfig { cross_layers: 0, ..tiny() }),
        ("heads alone", ModelConfig { cross_layers: 0, hidden: vec![], ..tiny() }),
        ("a rate tower", ModelConfig { rate_hidden: 5, ..tiny() }),
        ("no encoder", ModelConfig { encoder: Encoder::None, ..tiny() }),
        ("no affinity", ModelConfig { affinity: false, ..tiny() }),
        (
            "surfaces and ages",
            ModelConfig { token_surface: true, age_buckets: 8, multi_action: true, ..tiny() },
        ),
        ("odd widths", ModelConfig { action_dim: 5, ..tiny() }),
    ];
    let schema = schema(4, 20);
    let requests: Vec<_> = (0..12).map(|i| ([0, 1, 5, 17, 20][i % 5], 1 + i * 5 % 9)).collect();
    let b = batch(&schema, &requests, 2, |_| false);
    for (name, config) in forms {
        agrees(name, &model(&config, &schema), &b);
    }
}

/// Batches of more rows than a launch takes, and more requests.
#[test]
fn a_large_batch_goes_by_stretches() {
    let schema = schema(4, 20);
    let model = model(&ModelConfig { layers: 1, ..tiny() }, &schema);
    let b = batch(&schema, &[(3, 700), (0, 1), (20, 1348)], 9, |_| false);
    agrees("2,049 rows", &model, &b);
    let requests: Vec<_> = (0..600).map(|i| (i % 21, usize::from(i % 3 > 0))).collect();
    agrees("600 requests, some without rows", &model, &batch(&schema, &requests, 9, |_| false));
}

#[test]
fn sums_that_cannot_be_trusted_take_the_plain_path() {
    let schema = schema(4, 20);
    let mut model = trained(&tiny(), &schema);
    for (name, data) in model.parameters_mut() {
        if name.ends_with("layers.0.self_attn.in_proj_weight") {
            data.iter_mut().for_each(|x| *x *= 8.0);
        }
    }
    let model = Arc::new(model);
    let b = batch(&schema, &[(20, 30), (18, 20)], 2, |_| false);
    let mut memory = EngineMemory::default();
    let want = Cpu::new(Arc::clone(&model), ServingPrecision::F32).score(&b, &mut memory).unwrap();
    assert!((1..50).contains(&memory.fallbacks()), "{} of 50", memory.fallbacks());
    if compiler().is_none() {
        return;
    }
    let engine = Engine::new(&Arc::new(Emulation::default()), Arc::clone(&model)).unwrap();
    let found = agreement(&engine.score(&b).unwrap(), &want, model.heads());
    // Logits of hundreds leave bfloat16 less: the CPU's is no better.
    let bf16 = agreement(&cpu(&model, &b, ServingPrecision::Bf16), &want, model.heads());
    assert!(found.error < 1.5 * bf16.error.max(5e-3), "{found:?}, the CPU's bf16 {bf16:?}");
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let model = model(&tiny(), &schema);
    let engine = Engine::new(&Arc::new(Emulation::default()), Arc::clone(&model)).unwrap();
    let all = engine.score(&batch(&schema, &[(20, 70)], 2, |_| false)).unwrap();
    let other = batch(&schema, &[(20, 70), (3, 5)], 2, |_| false);
    assert_eq!(all[..], engine.score(&other).unwrap()[..all.len()]);
}

#[test]
fn logits_are_calibrated() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let mut calibrated = trained(&tiny(), &schema);
    let b = batch(&schema, &[(20, 3)], 2, |_| false);
    let driver = Arc::new(Emulation::default());
    let raw = Engine::new(&driver, Arc::new(calibrated.clone())).unwrap().score(&b).unwrap();
    let line = HeadCalibration::Platt { slope: 0.5, intercept: -1.0 };
    let calibration = Calibration { heads: vec![line; calibrated.heads()], rows: 9 };
    calibrated.set_calibration(Some(calibration)).unwrap();
    let got = Engine::new(&driver, Arc::new(calibrated)).unwrap().score(&b).unwrap();
    assert!(got.iter().zip(&raw).all(|(got, raw)| (got - (0.5 * raw - 1.0)).abs() < 1e-6));
}

#[test]
fn threads_share_an_engine() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let engine = Engine::new(&Arc::new(Emulation::default()), model(&tiny(), &schema)).unwrap();
    let batches: Vec<_> = (0..10).map(|i| batch(&schema, &[(i, 3)], i as u64, |_| false)).collect();
    let alone: Vec<_> = batches.iter().map(|b| engine.score(b).unwrap()).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = batches.iter().map(|b| scope.spawn(|| engine.score(b).unwrap())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn what_cannot_be_served_is_refused() {
    if compiler().is_none() {
        return;
    }
    let driver = Arc::new(Emulation::default());
    let small = schema(4, 20);
    let refused = |config: ModelConfig, schema: &lately_features::Schema| {
        Engine::new(&driver, model(&config, schema)).err().map(|e| e.to_string()).unwrap_or_default()
    };
    for config in [
        ModelConfig { encoder: Encoder::Din, ..tiny() },
        ModelConfig { encoder: Encoder::Mean, ..tiny() },
        ModelConfig { encoder: Encoder::Bst, ..tiny() },
        ModelConfig { attention_heads: 2, ..tiny() },
        ModelConfig { fusion: Fusion::Append, ..tiny() },
        ModelConfig { fusion: Fusion::None, ..tiny() },
    ] {
        let message = refused(config.clone(), &small);
        assert!(message.contains("no kernel for this encoder"), "{config:?}: {message}");
    }
    let message = refused(ModelConfig { action_dim: 200, ..tiny() }, &small);
    assert!(message.contains("tokens of width 208, the most is 192"), "{message}");
    let message = refused(tiny(), &schema(4, 257));
    assert!(message.contains("histories of 257 actions"), "{message}");

    let mut broken = trained(&tiny(), &small);
    broken.parameters_mut().last().unwrap().1[0] = f32::NAN;
    let error = Engine::new(&driver, Arc::new(broken)).err();
    assert_eq!(error, Some(CudaError::Model(ModelError::NotFinite("a weight of the model"))));

    let engine = Engine::new(&driver, model(&tiny(), &small)).unwrap();
    let launches = driver.launches();
    let mut bad = batch(&small, &[(3, 2)], 2, |_| false);
    bad.candidate[1] = f32::NAN;
    let error = engine.score(&bad).unwrap_err();
    assert_eq!(error, CudaError::Model(ModelError::NotFinite("candidate")));
    let error = engine.score(&batch(&small, &[(33, 2)], 2, |_| false)).unwrap_err();
    assert_eq!(error, CudaError::Tokens { got: 33, limit: 20 });
    assert_eq!(engine.score(&FeatureBatch::default()).unwrap(), [] as [f32; 0]);
    assert_eq!(driver.launches(), launches, "nothing was launched for them");
}

/// An embedding table is not among the weights, and its numbers come with the features.
#[test]
fn logits_that_are_not_finite_are_counted() {
    if compiler().is_none() {
        return;
    }
    let schema = schema(4, 20);
    let mut model = trained(&ModelConfig { cross_layers: 0, hidden: vec![], ..tiny() }, &schema);
    for (name, data) in model.parameters_mut() {
        if name == "item.topic" {
            data[4..8].fill(f32::INFINITY); // bucket 1
        }
    }
    let mut b = batch(&schema, &[(3, 5)], 2, |_| false);
    // Topics of the last row alone.
    let last = b.item.categorical.len() - 3;
    b.item.categorical[..last].fill(0);
    b.item.categorical[last..].fill(1);
    let engine = Engine::new(&Arc::new(Emulation::default()), Arc::new(model)).unwrap();
    assert_eq!(engine.score(&b), Err(CudaError::NotFinite { count: 3, of: 15 }));
}
