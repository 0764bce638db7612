//! Schemas, models and random batches for tests.

use std::fmt::Write;
use std::sync::Arc;

use lately_features::batch::{Columns, Layout};
use lately_features::{FeatureBatch, Schema, action_bit};
use lately_model::{Model, ModelConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Item embeddings of the default width; action 0 is what compatibility mode masks.
pub(crate) fn schema(item: usize, length: usize) -> Schema {
    let mut text =
        String::from("item_embedding = \"vector\"\nsurfaces = [\"home\", \"related\"]\nactions = [");
    for (name, polarity) in
        [("pad", "neutral"), ("click", "positive"), ("save", "positive"), ("hide", "negative")]
    {
        write!(text, "{{ name = \"{name}\", polarity = \"{polarity}\" }},").unwrap();
    }
    write!(
        text,
        r#"]
        heads = [{{ name = "click", actions = ["click"] }}, {{ name = "save", actions = ["save"] }},
                 {{ name = "hide", actions = ["hide"] }}]
        sequence = {{ length = {length}, stored = {length} }}
        user_features = [
            {{ kind = "categorical", name = "country", buckets = 5, dim = 3 }},
            {{ kind = "numeric", name = "age" }},
            {{ kind = "embedding", name = "taste", dim = 8 }},
        ]
        item_features = [
            {{ kind = "numeric", name = "views", log = true }},
            {{ kind = "embedding", name = "vector", dim = {item} }},
            {{ kind = "categorical", name = "topic", buckets = 6, dim = 4, max_values = 3 }},
            {{ kind = "numeric", name = "length" }},
        ]
        "#
    )
    .unwrap();
    Schema::from_toml(&text).unwrap()
}

pub(crate) fn model(config: &ModelConfig, schema: &Schema) -> Arc<Model> {
    Arc::new(trained(config, schema))
}

/// A model none of whose parameters is where it started: biases are not 0, gammas not 1, and queries and keys are three times
/// as large, as attention that is nearly even would hide mistakes in it.
pub(crate) fn trained(config: &ModelConfig, schema: &Schema) -> Model {
    let mut model = Model::new(config.clone(), schema, 7).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for (name, data) in model.parameters_mut() {
        if name.ends_with("bias") || name.contains("norm") {
            let range = if name.ends_with("in_proj_bias") { 2.0 } else { 0.6 };
            data.iter_mut().for_each(|x| *x += (random.random::<f32>() - 0.5) * range);
        }
        if name.ends_with("in_proj_weight") {
            let queries_and_keys = data.len() / 3 * 2;
            data[..queries_and_keys].iter_mut().for_each(|x| *x *= 3.0);
        }
    }
    model
}

/// A small geometry, of widths that are no multiples of 16.
pub(crate) fn tiny() -> ModelConfig {
    ModelConfig { ffn: 6, first_k: 3, action_dim: 4, hidden: vec![9, 7], ..ModelConfig::default() }
}

/// For each request (tokens, candidates). `masked`: whether a token, by its place, is one that compatibility mode masks.
pub(crate) fn batch(
    schema: &Schema,
    requests: &[(usize, usize)],
    seed: u64,
    masked: impl Fn(usize) -> bool,
) -> FeatureBatch {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut b = FeatureBatch::default();
    let d = schema.item_embedding_dim();
    let (user, item) = (Layout::of(&schema.user_features), Layout::of(&schema.item_features));
    let (start, _) = Layout::item_embedding(schema);
    for (tokens, candidates) in requests {
        push(&user, &mut b.user, &mut random);
        b.surface.push(random.random_range(0..=schema.surfaces.len() as u16));
        for place in 0..*tokens {
            let action = if masked(place) { 0 } else { random.random_range(1..schema.actions.len() as u8) };
            b.token_action.push(action);
            b.token_actions.push(action_bit(action));
            b.token_surface.push(1);
            b.token_age_ms.push(random.random_range(0..10_000_000));
            b.token_item.extend((0..d).map(|_| random.random::<f32>() * 2.0 - 1.0));
        }
        for _ in 0..*candidates {
            push(&item, &mut b.item, &mut random);
            let at = b.item.embedding.len() - item.embedding_width + start;
            b.candidate.extend_from_slice(&b.item.embedding[at..at + d]);
        }
        b.token_offsets.push((b.tokens() + tokens) as u32);
        b.row_offsets.push((b.rows() + candidates) as u32);
    }
    if let Some(x) = b.item.numeric.first_mut() {
        *x = f32::NAN; // a missing number
    }
    b
}

fn push(layout: &Layout, columns: &mut Columns, random: &mut ChaCha8Rng) {
    for slots in &layout.categorical {
        columns.categorical.extend((0..slots.slots).map(|_| random.random_range(0..slots.buckets as u32)));
    }
    columns.numeric.extend((0..layout.numeric_width).map(|_| random.random::<f32>() * 4.0 - 2.0));
    columns.embedding.extend((0..layout.embedding_width).map(|_| random.random::<f32>() * 2.0 - 1.0));
}
