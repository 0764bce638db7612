//! The same kernels on a card, where there is one: `cargo test -p lately-cuda card -- --nocapture`.

use std::sync::Arc;
use std::time::Instant;

use lately_model::{ModelConfig, ServingPrecision};

use super::score::{cpu, near};
use super::world::{batch, model, schema, tiny};
use crate::{CudaEngine, CudaError, Device};

/// The first card; none where there is none, which is said loudly.
fn card() -> Option<Arc<Device>> {
    match Device::open(0) {
        Ok(device) => Some(device),
        Err(error @ (CudaError::Missing { .. } | CudaError::NoDevice { .. })) => {
            eprintln!("SKIPPED: nothing is run on a card: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_card_scores_as_the_cpu() {
    let Some(device) = card() else { return };
    let (usual, small) = (schema(32, 100), schema(4, 20));
    let mixed = [(0, 3), (100, 200), (1, 1), (15, 2), (16, 2), (17, 50)];
    for (config, schema, requests) in [
        (ModelConfig::default(), &usual, &mixed[..]),
        (ModelConfig::paper(), &usual, &mixed[..]),
        (ModelConfig::paper(), &usual, &[(100, 2049)]),
        (ModelConfig { layers: 4, ffn: 384, ..ModelConfig::default() }, &usual, &[(100, 64)]),
        (ModelConfig { rate_hidden: 5, cross_width: 20, ..tiny() }, &small, &[(20, 70), (0, 1), (3, 9)]),
    ] {
        let model = model(&config, schema);
        let engine = CudaEngine::new(&device, Arc::clone(&model)).unwrap();
        let b = batch(schema, requests, 3, |_| false);
        let got = engine.score(&b).unwrap();
        near(&format!("{config:?}"), &model, &b, &got);
        // A recording played again, and by several threads at once.
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| assert_eq!(engine.score(&b).unwrap(), got));
            }
        });
    }
}

/// Milliseconds a call; nothing is asserted of them.
#[test]
#[ignore = "a measurement, for a card"]
fn how_long_a_call_takes() {
    let Some(device) = card() else { return };
    let schema = schema(32, 100);
    let model = model(&ModelConfig::paper(), &schema);
    let engine = CudaEngine::new(&device, Arc::clone(&model)).unwrap();
    eprintln!("{device:?}");
    for rows in [1, 100, 500, 1_000, 2_000] {
        let b = batch(&schema, &[(100, rows)], 3, |_| false);
        let mut times: Vec<f64> = (0..50)
            .map(|_| {
                let start = Instant::now();
                engine.score(&b).unwrap();
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let start = Instant::now();
        cpu(&model, &b, ServingPrecision::of_machine());
        let cpu = start.elapsed().as_secs_f64() * 1e3;
        eprintln!("{rows} rows: median {:.3} ms, p95 {:.3} ms; the CPU {cpu:.1} ms", times[25], times[47]);
    }
}
