//! The geometry on which speed is quoted, that of the article and of its PyTorch module: 32-wide items, 20 action types of
//! 32, d = 96, 2 layers, first 10 and max-pool, 400 further numbers, 2 full-rank cross layers over all 1,456, MLP 512-256,
//! 4 heads, in compatibility mode.

use std::error::Error;

use lately_features::{FeatureBatch, Schema};
use lately_model::{Model, ModelConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

const ITEM: usize = 32;
const NUMBERS: usize = 400;
const ACTIONS: usize = 20;
pub(crate) const HEADS: usize = 4;
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
pub(crate) fn batch(requests: usize, candidates: usize, tokens: usize) -> FeatureBatch {
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

/// The model, at random weights.
pub(crate) fn model() -> Result<Model, Failure> {
    let config = ModelConfig { compatibility: true, ..ModelConfig::paper() };
    let model = Model::new(config, &schema()?, 1)?;
    if !model.parameters().iter().any(|p| p.shape == [WIDTH, WIDTH]) {
        return Err(format!("no cross layer is {WIDTH} wide: the geometry has changed").into());
    }
    Ok(model)
}
