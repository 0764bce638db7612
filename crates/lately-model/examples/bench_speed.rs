//! Measures the model on one thread, at the geometry on which its speed is quoted.
//!
//! `cargo xtask bench model-speed`. 32-wide items, 20 action types of 32, d = 96, 2 layers, first 10 and max-pool, 400 further
//! numbers, 2 full-rank cross layers over all 1,456, MLP 512-256, 4 heads: in compatibility mode, so that it is the very
//! model of the article and of its PyTorch module.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use lately_features::{FeatureBatch, Schema};
use lately_model::{Gradients, Model, ModelConfig, Scratch};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn Error + Send + Sync>;

const ITEM: usize = 32;
const NUMBERS: usize = 400;
const ACTIONS: usize = 20;
const HEADS: usize = 4;
/// Width of the cross layers' input.
const WIDTH: usize = 1_456;

fn schema() -> Result<Schema, Failure> {
    let actions: Vec<String> =
        (0..ACTIONS).map(|i| format!(r#"{{ name = "a{i}", polarity = "positive" }}"#)).collect();
    let heads: Vec<String> =
        (0..HEADS).map(|i| format!(r#"{{ name = "h{i}", actions = ["a{i}"] }}"#)).collect();
    let numbers: Vec<String> =
        (0..NUMBERS).map(|i| format!(r#"{{ kind = "numeric", name = "n{i}" }}"#)).collect();
    Ok(Schema::from_toml(&format!(
        "item_embedding = \"vector\"\nactions = [{}]\nheads = [{}]\nitem_features = [\
         {{ kind = \"embedding\", name = \"vector\", dim = {ITEM} }}, {}]",
        actions.join(", "),
        heads.join(", "),
        numbers.join(", "),
    ))?)
}

/// Requests of `tokens` tokens and `candidates` candidates each.
fn batch(requests: usize, candidates: usize, tokens: usize) -> FeatureBatch {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| random.random::<f32>() - 0.5).collect() };
    let (rows, all) = (requests * candidates, requests * tokens);
    let mut b = FeatureBatch {
        row_offsets: (0..=requests).map(|r| (r * candidates) as u32).collect(),
        token_offsets: (0..=requests).map(|r| (r * tokens) as u32).collect(),
        surface: vec![0; requests],
        token_surface: vec![0; all],
        token_item: floats(all * ITEM),
        candidate: floats(rows * ITEM),
        ..FeatureBatch::default()
    };
    b.item.embedding.clone_from(&b.candidate);
    b.item.numeric = floats(rows * NUMBERS);
    b.token_action = (0..all).map(|_| random.random_range(1..ACTIONS as u8)).collect();
    b.token_age_ms = (0..all).map(|i| (i % tokens) as i64 * 60_000).collect();
    b.label = (0..rows * HEADS).map(|_| f32::from(u8::from(random.random_bool(0.1)))).collect();
    b
}

/// Calls `work` for the time given, at least 5 times after a warm-up, and prints rows a second of every call.
fn measure(
    name: &str,
    rows: usize,
    time: Duration,
    mut work: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    work()?;
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < time || samples.len() < 5 {
        let begin = Instant::now();
        work()?;
        samples.push(rows as f64 / begin.elapsed().as_secs_f64());
    }
    println!("{}", serde_json::json!({ "name": name, "unit": "rows/s", "samples": samples }));
    Ok(())
}

fn main() -> Result<(), Failure> {
    let seconds = std::env::args().nth(1).map_or(Ok(10.0), |a| a.parse())?;
    let time = Duration::from_secs_f64(seconds);
    let config = ModelConfig { compatibility: true, ..ModelConfig::paper() };
    let model = Model::new(config, &schema()?, 1)?;
    let cross = [WIDTH, WIDTH];
    if !model.parameters().iter().any(|p| p.shape == cross) {
        return Err(format!("no cross layer is {WIDTH} wide: the geometry has changed").into());
    }
    let mut scratch = Scratch::default();
    for tokens in [80, 46] {
        let b = batch(1, 1_000, tokens);
        let name = format!("score, 1 request x 1,000 candidates, {tokens} tokens, 1 thread");
        measure(&name, b.rows(), time, || {
            black_box(model.score(&b, &mut scratch)?);
            Ok(())
        })?;
    }
    let mut gradients = Gradients::zeros(&model);
    for (requests, candidates, tokens) in [(64, 1, 46), (16, 16, 100)] {
        let b = batch(requests, candidates, tokens);
        let weight = vec![1.0 / b.label.len() as f32; b.label.len()];
        let name = format!(
            "loss and gradient, {requests} requests x {candidates}, {tokens} tokens, dropout, 1 thread"
        );
        let mut seed = 0;
        measure(&name, b.rows(), time, || {
            seed += 1;
            gradients.clear();
            black_box(model.loss_and_gradient(&b, &weight, Some(seed), &mut scratch, &mut gradients)?);
            Ok(())
        })?;
    }
    Ok(())
}
