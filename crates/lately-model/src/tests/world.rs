//! Schemas and random batches for tests.

use lately_features::{FeatureBatch, Schema, action_bit};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::ModelConfig;

/// Two heads, several-valued categories, numbers and embeddings on both sides.
pub(crate) const SMALL: &str = r#"
    item_embedding = "vector"
    surfaces = ["home", "related"]
    actions = [
        { name = "pad", polarity = "neutral" },
        { name = "click", polarity = "positive" },
        { name = "save", polarity = "positive" },
        { name = "hide", polarity = "negative" },
    ]
    heads = [{ name = "click", actions = ["click"] }, { name = "save", actions = ["save"] }]
    sequence = { length = 5, stored = 8 }
    user_features = [
        { kind = "categorical", name = "country", buckets = 5, dim = 2 },
        { kind = "numeric", name = "age" },
        { kind = "embedding", name = "taste", dim = 3 },
    ]
    item_features = [
        { kind = "numeric", name = "views", log = true },
        { kind = "embedding", name = "vector", dim = 4 },
        { kind = "categorical", name = "topic", buckets = 6, dim = 3, max_values = 3 },
        { kind = "categorical", name = "author", buckets = 9, dim = 2 },
        { kind = "numeric", name = "length" },
    ]
"#;

pub(crate) fn small() -> Schema {
    Schema::from_toml(SMALL).unwrap()
}

/// A tiny configuration of every part.
pub(crate) fn tiny() -> ModelConfig {
    ModelConfig {
        layers: 2,
        attention_heads: 2,
        ffn: 6,
        first_k: 3,
        din_hidden: 5,
        action_dim: 4,
        hidden: vec![9, 7],
        ..ModelConfig::default()
    }
}

/// A batch of the schema: for each request (tokens, candidates).
pub(crate) fn batch(schema: &Schema, requests: &[(usize, usize)], seed: u64) -> FeatureBatch {
    use lately_features::batch::{Columns, Layout};
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = move || random.random::<f32>() * 2.0 - 1.0;
    let mut b = FeatureBatch::default();
    let d = schema.item_embedding_dim();
    let (user, item) = (Layout::of(&schema.user_features), Layout::of(&schema.item_features));
    let (start, _) = Layout::item_embedding(schema);
    let mut push = |layout: &Layout, columns: &mut Columns| {
        for slots in &layout.categorical {
            let index = |x: f32| ((x + 1.0) * 0.5 * slots.buckets as f32) as u32 % slots.buckets as u32;
            columns.categorical.extend((0..slots.slots).map(|_| index(uniform())));
        }
        columns.numeric.extend((0..layout.numeric_width).map(|_| uniform() * 2.0));
        columns.embedding.extend((0..layout.embedding_width).map(|_| uniform()));
    };
    let mut random = ChaCha8Rng::seed_from_u64(seed + 1);
    for (tokens, candidates) in requests {
        push(&user, &mut b.user);
        b.surface.push(random.random_range(0..=schema.surfaces.len() as u16));
        for _ in 0..*tokens {
            b.token_action.push(random.random_range(0..schema.actions.len() as u8));
            b.token_surface.push(b.token_action.len() as u16 % (schema.surfaces.len() as u16 + 1));
            let also = (b.token_action.len() * 7 % 11 % schema.actions.len()) as u8;
            b.token_actions.push(action_bit(b.token_action[b.token_action.len() - 1]) | action_bit(also));
            b.token_age_ms.push(random.random_range(-200..1_000));
            b.token_item.extend((0..d).map(|_| random.random::<f32>() * 2.0 - 1.0));
        }
        for _ in 0..*candidates {
            push(&item, &mut b.item);
            let embedding = b.item.embedding.len() - item.embedding_width + start;
            b.candidate.extend_from_slice(&b.item.embedding[embedding..embedding + d]);
            b.label.extend((0..schema.heads.len()).map(|_| random.random_range(0..2u8) as f32));
        }
        b.token_offsets.push((b.tokens() + tokens) as u32);
        b.row_offsets.push((b.rows() + candidates) as u32);
    }
    if let Some(x) = b.item.numeric.first_mut() {
        *x = f32::NAN; // a missing number
    }
    b
}
