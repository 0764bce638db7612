//! Measures the model on one thread, at the geometry on which its speed is quoted: `cargo xtask bench model-speed`.

mod geometry;

use std::hint::black_box;
use std::time::{Duration, Instant};

use geometry::{Failure, batch, model};
use lately_model::{Gradients, Scratch};

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
    let model = model()?;
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
