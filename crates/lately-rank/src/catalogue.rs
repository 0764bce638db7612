//! The active items, laid out for retrieval.

use std::collections::HashMap;
use std::sync::Arc;

use lately_features::batch::Layout;
use lately_features::{Assembler, Features, ItemId, Schema};

use crate::popularity::Popularity;

/// The slots of the item's topics and of the user's followed topics, where both are declared alike.
#[derive(Debug, Clone, Default)]
pub(crate) struct Topics {
    item: Option<(usize, usize)>,
    followed: Option<(usize, usize)>,
}

impl Topics {
    /// Followed topics meet item topics by hash bucket, so both features must declare the same number of `buckets`;
    /// otherwise nothing is retrieved by followed topics, and a warning says so.
    pub(crate) fn new(schema: &Schema) -> Self {
        let find = |kinds, name: &Option<String>| {
            let name = name.as_ref()?;
            let slots = Layout::of(kinds).categorical.into_iter().find(|c| c.name == *name)?;
            Some(((slots.start, slots.slots), slots.buckets))
        };
        let item = find(&schema.item_features, &schema.topic_feature);
        let followed = find(&schema.user_features, &schema.followed_feature);
        if let (Some((_, a)), Some((_, b))) = (item, followed)
            && a != b
        {
            tracing::warn!(
                topic_buckets = a,
                followed_buckets = b,
                "topic_feature and followed_feature declare different buckets: followed topics are not retrieved; \
                 declare the same"
            );
            return Self { item: item.map(|i| i.0), followed: None };
        }
        Self { item: item.map(|i| i.0), followed: followed.map(|f| f.0) }
    }

    /// Topics of an item, as buckets.
    pub(crate) fn of_item<'a>(&self, item: &'a Features) -> impl Iterator<Item = u32> + use<'a> {
        buckets(item, self.item)
    }

    /// Topics that a user follows, as buckets.
    pub(crate) fn followed<'a>(&self, user: &'a Features) -> impl Iterator<Item = u32> + use<'a> {
        buckets(user, self.followed)
    }
}

fn buckets(features: &Features, slots: Option<(usize, usize)>) -> impl Iterator<Item = u32> + use<'_> {
    let (start, len) = slots.unwrap_or((0, 0));
    features.categorical[start..start + len].iter().copied().filter(|b| *b != 0)
}

/// Active items by position, in the order of their ids.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) items: Arc<Vec<(ItemId, Arc<Features>)>>,
    by_id: HashMap<ItemId, u32>,
    by_topic: HashMap<u32, Vec<u32>>,
    /// items x d, each of length 1, or all zero where an item has no embedding.
    unit: Vec<f32>,
    dim: usize,
}

impl Catalogue {
    pub(crate) fn new(
        items: &Arc<Vec<(ItemId, Arc<Features>)>>,
        assembler: &Assembler,
        topics: &Topics,
        dim: usize,
    ) -> Self {
        let mut catalogue = Self {
            by_id: HashMap::with_capacity(items.len()),
            by_topic: HashMap::new(),
            unit: Vec::with_capacity(items.len() * dim),
            dim,
            items: Arc::clone(items),
        };
        for (i, (id, features)) in items.iter().enumerate() {
            catalogue.by_id.insert(id.clone(), i as u32);
            for topic in topics.of_item(features) {
                let of_topic = catalogue.by_topic.entry(topic).or_default();
                if of_topic.last() != Some(&(i as u32)) {
                    of_topic.push(i as u32);
                }
            }
            catalogue.unit.extend(unit(assembler.item_embedding(features)));
        }
        catalogue
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn position(&self, item: &ItemId) -> Option<u32> {
        self.by_id.get(item).copied()
    }

    pub(crate) fn of_topic(&self, topic: u32) -> &[u32] {
        self.by_topic.get(&topic).map_or(&[], Vec::as_slice)
    }

    /// The `count` items whose embeddings have the largest cosine with `query` (d numbers of any length), best
    /// first, ties by position. Every item is looked at; items without an embedding are not near to anything.
    pub(crate) fn nearest(&self, query: &[f32], count: usize) -> Vec<u32> {
        if query.len() != self.dim || count == 0 || self.dim == 0 || query.iter().all(|x| *x == 0.0) {
            return Vec::new();
        }
        let dot = |row: &[f32]| row.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
        let has_any = |row: &[f32]| row.iter().any(|x| *x != 0.0);
        let rows = self.unit.chunks_exact(self.dim).enumerate().filter(|(_, row)| has_any(row));
        let mut all: Vec<(f32, u32)> = rows.map(|(i, row)| (dot(row), i as u32)).collect();
        let best = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if all.len() > count {
            all.select_nth_unstable_by(count, best);
            all.truncate(count);
        }
        all.sort_unstable_by(best);
        all.into_iter().map(|(_, i)| i).collect()
    }

    /// Active items by popularity, at most `count`, best first, ties by position.
    pub(crate) fn popular(&self, popularity: &Popularity, count: usize) -> Vec<u32> {
        let known = |(item, sum)| Some((sum, self.position(item)?));
        let mut all: Vec<(f64, u32)> = popularity.iter().filter_map(known).collect();
        let best = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if all.len() > count {
            all.select_nth_unstable_by(count, best);
            all.truncate(count);
        }
        all.sort_unstable_by(best);
        all.into_iter().map(|(_, i)| i).collect()
    }
}

/// A vector of length 1, or zeros.
pub(crate) fn unit(vector: &[f32]) -> impl Iterator<Item = f32> + use<'_> {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    vector.iter().map(move |x| x * scale)
}
