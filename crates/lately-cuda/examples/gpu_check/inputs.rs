//! Models of random weights, and batches of random features.

use std::fmt::Write;
use std::sync::Arc;

use lately_features::batch::{Columns, Layout};
use lately_features::{FeatureBatch, Schema, action_bit};
use lately_model::{Model, ModelConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Failure;

/// Most tokens of a request.
pub(crate) const LENGTH: usize = 100;
/// Numbers of an item beside its embedding: that of the article's geometry.
pub(crate) const NUMBERS: usize = 400;
/// Width of an item's embedding.
pub(crate) const ITEM: usize = 32;
/// Types of actions; the first is what compatibility mode masks.
pub(crate) const ACTIONS: usize = 20;
/// Heads, each predicting one action.
pub(crate) const HEADS: usize = 4;
/// Buckets of the one categorical feature; 0 is an empty slot.
const TOPICS: u32 = 6;

/// A geometry that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Geometry {
    /// Lately's.
    Default,
    /// The article's, in Lately's own mode.
    Paper,
    /// The article's as its PyTorch module has it.
    Official,
}

impl Geometry {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Paper => "paper",
            Self::Official => "paper, compatible",
        }
    }

    fn config(self) -> ModelConfig {
        match self {
            Self::Default => ModelConfig::default(),
            Self::Paper => ModelConfig::paper(),
            Self::Official => ModelConfig { compatibility: true, ..ModelConfig::paper() },
        }
    }

    /// Of the features that a PyTorch module takes no categorical ones are among them.
    pub(crate) fn schema(self) -> Result<Schema, Failure> {
        let mut text =
            String::from("item_embedding = \"vector\"\nsurfaces = [\"home\", \"related\"]\nactions = [");
        for i in 0..ACTIONS {
            write!(text, "{{ name = \"a{i}\", polarity = \"positive\" }}, ")?;
        }
        text.push_str("]\nheads = [");
        for i in 1..=HEADS {
            write!(text, "{{ name = \"h{i}\", actions = [\"a{i}\"] }}, ")?;
        }
        write!(text, "]\nsequence = {{ length = {LENGTH}, stored = {LENGTH} }}\nitem_features = [")?;
        write!(text, "{{ kind = \"embedding\", name = \"vector\", dim = {ITEM} }}, ")?;
        for i in 0..NUMBERS {
            write!(text, "{{ kind = \"numeric\", name = \"n{i}\" }}, ")?;
        }
        if self != Self::Official {
            write!(text, "{{ kind = \"categorical\", name = \"topic\", buckets = {TOPICS}, dim = 4 }}, ")?;
        }
        text.push(']');
        Ok(Schema::from_toml(&text)?)
    }

    pub(crate) fn model(self) -> Result<Model, Failure> {
        Ok(Model::new(self.config(), &self.schema()?, 1)?)
    }

    /// A model whose embedding of every topic is infinite: the inputs of what has one, and its cross layers, are no numbers.
    /// What has none is scored as ever.
    pub(crate) fn poisonous(self) -> Result<Model, Failure> {
        let mut model = self.model()?;
        let mut topics = model.parameters_mut().filter(|(name, _)| *name == "item.topic");
        topics.next().ok_or("the model has no table of topics")?.1.fill(f32::INFINITY);
        drop(topics);
        Ok(model)
    }
}

/// Which tokens of a request compatibility mode masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mask {
    None,
    All,
    One,
}

impl Mask {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no mask",
            Self::All => "all masked",
            Self::One => "one masked",
        }
    }

    fn hides(self, place: usize) -> bool {
        self == Self::All || self == Self::One && place == 7
    }
}

/// How a batch is made.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// (tokens, candidates) of each request.
    pub(crate) requests: Vec<(usize, usize)>,
    pub(crate) mask: Mask,
    /// Whether candidates have topics.
    pub(crate) topics: bool,
    pub(crate) seed: u64,
}

impl Recipe {
    /// One request.
    pub(crate) fn one(tokens: usize, candidates: usize, seed: u64) -> Self {
        Self { requests: vec![(tokens, candidates)], mask: Mask::None, topics: true, seed }
    }

    pub(crate) fn batch(&self, schema: &Schema) -> FeatureBatch {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut b = FeatureBatch::default();
        let item = Layout::of(&schema.item_features);
        for (tokens, candidates) in &self.requests {
            b.surface.push(1);
            for place in 0..*tokens {
                let drawn = random.random_range(1..ACTIONS as u8);
                let action = if self.mask.hides(place) { 0 } else { drawn };
                b.token_action.push(action);
                b.token_actions.push(action_bit(action));
                b.token_surface.push(1);
                b.token_age_ms.push(random.random_range(0..600_000) + place as i64 * 600_000);
                b.token_item.extend((0..ITEM).map(|_| random.random::<f32>() - 0.5));
            }
            for _ in 0..*candidates {
                self.candidate(&item, &mut b.item, &mut random);
                let at = b.item.embedding.len() - ITEM;
                b.candidate.extend_from_slice(&b.item.embedding[at..]);
            }
            b.token_offsets.push((b.tokens() + tokens) as u32);
            b.row_offsets.push((b.rows() + candidates) as u32);
        }
        b
    }

    fn candidate(&self, layout: &Layout, columns: &mut Columns, random: &mut ChaCha8Rng) {
        let topic = |random: &mut ChaCha8Rng| if self.topics { random.random_range(1..TOPICS) } else { 0 };
        columns.categorical.extend((0..layout.categorical_width).map(|_| topic(random)));
        columns.numeric.extend((0..layout.numeric_width).map(|_| random.random::<f32>() * 2.0 - 1.0));
        columns.embedding.extend((0..layout.embedding_width).map(|_| random.random::<f32>() - 0.5));
    }
}

/// A model behind an `Arc`, with its schema.
pub(crate) fn shared(geometry: Geometry) -> Result<(Arc<Model>, Schema), Failure> {
    Ok((Arc::new(geometry.model()?), geometry.schema()?))
}
