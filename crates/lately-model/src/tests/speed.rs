use std::hint::black_box;
use std::time::Instant;

use lately_features::Schema;

use super::world::batch;
use crate::training::Stager;
use crate::{Gradients, Model, ModelConfig, Objective, Scratch};

/// Inputs about 1,200 wide: 1,056 of the sequence and 141 others.
const PAPER: &str = r#"
    item_embedding = "vector"
    actions = [{ name = "click", polarity = "positive" }, { name = "save", polarity = "positive" }]
    heads = [{ name = "click", actions = ["click"] }, { name = "save", actions = ["save"] }]
    user_features = [
        { kind = "categorical", name = "country", buckets = 100, dim = 16 },
        { kind = "categorical", name = "id", buckets = 10000, dim = 16 },
        { kind = "numeric", name = "age" },
    ]
    item_features = [
        { kind = "embedding", name = "vector", dim = 32 },
        { kind = "categorical", name = "topic", buckets = 100, dim = 32, max_values = 2 },
        { kind = "categorical", name = "author", buckets = 10000, dim = 40 },
    ]
"#;

/// Calls `work` for about `seconds` and returns rows a second of the median call.
fn rate(rows: usize, seconds: f64, mut work: impl FnMut()) -> f64 {
    work();
    let (start, mut took) = (Instant::now(), Vec::new());
    while start.elapsed().as_secs_f64() < seconds {
        let begin = Instant::now();
        work();
        took.push(begin.elapsed().as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    rows as f64 / took[took.len() / 2]
}

/// `cargo test --release -p lately-model speed -- --ignored --nocapture`; one core.
#[test]
#[ignore = "a measurement: minutes in the dev profile"]
fn speed() {
    let schema = Schema::from_toml(PAPER).unwrap();
    let model = Model::new(ModelConfig::default(), &schema, 1).unwrap();
    let (mut scratch, mut gradients) = (Scratch::default(), Gradients::zeros(&model));
    println!("inputs {} wide", model.network.plan.inputs);
    for (tokens, requests, candidates) in
        [(46, 64, 1), (46, 8, 8), (100, 64, 1), (100, 1, 1_000), (100, 200, 10), (0, 64, 1)]
    {
        let b = batch(&schema, &vec![(tokens, candidates); requests], 3);
        let rows = b.rows();
        let weight = vec![1.0 / rows as f32; b.label.len()];
        let forward = rate(rows, 1.0, || {
            black_box(model.score(&b, &mut scratch).unwrap());
        });
        let mut train = |seed| {
            rate(rows, 2.0, || {
                gradients.clear();
                let loss = model.loss_and_gradient(&b, &weight, seed, &mut scratch, &mut gradients);
                black_box(loss.unwrap());
            })
        };
        let (plain, dropped) = (train(None), train(Some(1)));
        let mut stager = Stager::new(&model, 1);
        let staged = rate(rows, 1.0, || {
            black_box(stager.stage(&b, &Objective::rows(&weight)).unwrap());
        });
        println!(
            "{tokens} tokens, {requests} x {candidates}: forward {forward:.0} rows/s, \
             forward and backward {plain:.0}, with dropout {dropped:.0}; staged for a device {staged:.0}"
        );
    }
}
