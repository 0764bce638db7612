//! A versioned table of item vectors that stands in for the schema's `item_embedding` feature.
//!
//! Serving, replay and training put a vector in by the one function [`ItemVectors::put`], so that an item has the same
//! one in all three. A model names the version that it was trained on; with another one its numbers mean nothing.

use std::collections::HashMap;

use crate::batch::Layout;
use crate::entity::Features;
use crate::event::{EventError, FeatureValues};
use crate::id::ItemId;
use crate::schema::Schema;

/// Why a table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VectorsError {
    /// The vectors do not have the length that the schema declares.
    #[error(
        "item vectors of {got} numbers: the schema's `{feature}` has {want}; change its dim, or the vectors"
    )]
    Dim {
        /// The schema's item embedding.
        feature: String,
        /// Its declared length.
        want: usize,
        /// Length of the vectors.
        got: usize,
    },
    /// The number of values is not ids x length.
    #[error("{values} numbers for {items} item vectors of {dim}: the table is damaged, make it again")]
    Shape {
        /// Numbers.
        values: usize,
        /// Ids.
        items: usize,
        /// Length of a vector.
        dim: usize,
    },
    /// An id stands there twice.
    #[error("item `{0}` has two vectors: send one")]
    Repeated(ItemId),
    /// A number is NaN, infinite or larger than an embedding may be.
    #[error("the vector of item `{0}` holds a number that is not finite or above 1e6: leave the item out")]
    NotFinite(ItemId),
    /// The features from which vectors of cold items are predicted are no longer the schema's.
    #[error(
        "the vectors of cold items were fitted to other item features than the schema's: learn them again"
    )]
    OtherFeatures,
}

/// How an item without history gets a vector: linear in its features.
///
/// The vector is `bias` + for each categorical feature the mean over its known values of their rows + for each numeric
/// feature (x - mean) / std times its row. What is missing, and a value that was not seen, adds nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColdItems {
    /// Length d.
    pub bias: Vec<f32>,
    /// (position among the categorical features, bucket) of each row of `categorical`, ascending.
    pub values: Vec<(u32, u32)>,
    /// values x d.
    pub categorical: Vec<f32>,
    /// Mean and standard deviation (above 0) of each numeric feature.
    pub scale: Vec<(f32, f32)>,
    /// numeric features x d.
    pub numeric: Vec<f32>,
}

impl ColdItems {
    /// Writes the predicted vector to `out`, length d.
    fn predict(&self, slots: &[usize], features: &Features, out: &mut [f32]) {
        let d = out.len();
        out.copy_from_slice(&self.bias);
        let mut add = |rows: &[f32], row: usize, weight: f32| {
            out.iter_mut().zip(&rows[row * d..][..d]).for_each(|(o, w)| *o += weight * w);
        };
        let mut start = 0;
        for (feature, slots) in slots.iter().enumerate() {
            let buckets = features.categorical.get(start..start + slots).unwrap_or_default();
            start += slots;
            let set = buckets.iter().filter(|b| **b != 0);
            let share = 1.0 / set.clone().count().max(1) as f32;
            for bucket in set {
                if let Ok(row) = self.values.binary_search(&(feature as u32, *bucket)) {
                    add(&self.categorical, row, share);
                }
            }
        }
        for (row, (x, (mean, std))) in features.numeric.iter().zip(&self.scale).enumerate() {
            if x.is_finite() {
                add(&self.numeric, row, (x - mean) / std);
            }
        }
    }

    fn fits(&self, layout: &Layout, dim: usize) -> bool {
        self.bias.len() == dim
            && self.categorical.len() == self.values.len() * dim
            && self.values.is_sorted_by(|a, b| a < b)
            && self.scale.len() == layout.numeric_width
            && self.scale.iter().all(|(_, std)| *std > 0.0)
            && self.numeric.len() == self.scale.len() * dim
    }
}

/// Vectors by item, of one version.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemVectors {
    version: String,
    dim: usize,
    /// First number of the item embedding among an item's embedding features.
    start: usize,
    /// Slots of each categorical item feature.
    slots: Vec<usize>,
    rows: HashMap<ItemId, u32>,
    values: Vec<f32>,
    cold: Option<ColdItems>,
}

impl ItemVectors {
    /// A table for a schema: `values` are `items` x the length of its item embedding, row-major.
    ///
    /// # Errors
    /// Any [`VectorsError`].
    pub fn new(
        schema: &Schema,
        version: impl Into<String>,
        items: Vec<ItemId>,
        values: Vec<f32>,
        cold: Option<ColdItems>,
    ) -> Result<Self, VectorsError> {
        let (start, dim) = Layout::item_embedding(schema);
        if values.len() != items.len() * dim {
            return Err(VectorsError::Shape { values: values.len(), items: items.len(), dim });
        }
        if let Some(bad) = values.iter().position(|x| !x.is_finite() || x.abs() > 1e6) {
            return Err(VectorsError::NotFinite(items[bad / dim].clone()));
        }
        let layout = Layout::of(&schema.item_features);
        if cold.as_ref().is_some_and(|cold| !cold.fits(&layout, dim)) {
            return Err(VectorsError::OtherFeatures);
        }
        let mut rows = HashMap::with_capacity(items.len());
        for (row, item) in (0..).zip(items) {
            if rows.insert(item.clone(), row).is_some() {
                return Err(VectorsError::Repeated(item));
            }
        }
        let slots = layout.categorical.iter().map(|c| c.slots).collect();
        Ok(Self { version: version.into(), dim, start, slots, rows, values, cold })
    }

    /// Which table this is.
    pub fn version(&self) -> &str {
        &self.version
    }
    /// Items with a vector of their own.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    /// Whether no item has one.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// The item's own vector; `None` for a cold item.
    pub fn get(&self, item: &ItemId) -> Option<&[f32]> {
        let row = *self.rows.get(item)? as usize;
        self.values.get(row * self.dim..(row + 1) * self.dim)
    }

    /// Puts the item's vector into its features, in place of what it was sent with: its own one, for a cold item the
    /// predicted one, zeros where nothing predicts.
    pub fn put(&self, item: &ItemId, features: &mut Features) {
        let mut vector = vec![0.0; self.dim];
        match (self.get(item), &self.cold) {
            (Some(own), _) => vector.copy_from_slice(own),
            (None, Some(cold)) => cold.predict(&self.slots, features, &mut vector),
            (None, None) => {}
        }
        if let Some(place) = features.embedding.get_mut(self.start..self.start + self.dim) {
            place.copy_from_slice(&vector);
        }
    }
}

impl Features {
    /// Encodes an item as [`Features::encode`] does, with its vector of a table where there is one.
    ///
    /// # Errors
    /// As [`Features::encode`].
    pub fn encode_item(
        schema: &Schema,
        vectors: Option<&ItemVectors>,
        item: &ItemId,
        values: &FeatureValues,
    ) -> Result<Self, EventError> {
        let mut features = Self::encode(&schema.item_features, values)?;
        if let Some(vectors) = vectors {
            vectors.put(item, &mut features);
        }
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FeatureValue;
    use crate::schema::{bucket, tests::SMALL};

    fn schema() -> Schema {
        Schema::from_toml(SMALL).unwrap()
    }

    fn id(text: &str) -> ItemId {
        ItemId::new(text).unwrap()
    }

    fn birds(views: f64) -> FeatureValues {
        FeatureValues::from([
            ("topic".into(), FeatureValue::Texts(vec!["birds".into(), "night".into()])),
            ("views".into(), FeatureValue::Number(views)),
            ("vector".into(), FeatureValue::Vector(vec![9.0, 9.0])),
        ])
    }

    fn vector(table: &ItemVectors, item: &str, values: &FeatureValues) -> Vec<f32> {
        Features::encode_item(&schema(), Some(table), &id(item), values).unwrap().embedding.to_vec()
    }

    #[test]
    fn a_table_replaces_what_the_item_was_sent_with() {
        let table = ItemVectors::new(&schema(), "v1", vec![id("a"), id("b")], vec![1.0, 2.0, 3.0, 4.0], None);
        let table = table.unwrap();
        assert_eq!(vector(&table, "b", &birds(0.0)), [3.0, 4.0]);
        assert_eq!(vector(&table, "c", &birds(0.0)), [0.0, 0.0], "a cold item, and nothing predicts");
        assert_eq!((table.version(), table.len()), ("v1", 2));
        let without = Features::encode_item(&schema(), None, &id("a"), &birds(0.0)).unwrap();
        assert_eq!(*without.embedding, [9.0, 9.0]);
    }

    #[test]
    fn a_cold_item_is_predicted_from_its_features() {
        let cold = ColdItems {
            bias: vec![0.5, 0.0],
            values: vec![(0, bucket("birds", 32))],
            categorical: vec![2.0, 4.0],
            scale: vec![(1.0, 2.0)],
            numeric: vec![10.0, 0.0],
        };
        let table = ItemVectors::new(&schema(), "v", vec![id("a")], vec![1.0, 2.0], Some(cold)).unwrap();
        assert_eq!(vector(&table, "a", &birds(0.0)), [1.0, 2.0]);
        // Half of the two topics is known; ln(1 + (e - 1)) is 1, the mean.
        assert_eq!(vector(&table, "c", &birds(std::f64::consts::E - 1.0)), [1.5, 2.0]);
        assert_eq!(vector(&table, "c", &FeatureValues::new()), [0.5, 0.0]);
    }

    #[test]
    fn a_table_that_does_not_fit_is_refused() {
        let new = |items: Vec<ItemId>, values: Vec<f32>, cold| {
            ItemVectors::new(&schema(), "v", items, values, cold).unwrap_err()
        };
        assert_eq!(new(vec![id("a")], vec![1.0], None), VectorsError::Shape { values: 1, items: 1, dim: 2 });
        assert_eq!(new(vec![id("a"); 2], vec![1.0; 4], None), VectorsError::Repeated(id("a")));
        assert_eq!(new(vec![id("a")], vec![1.0, f32::NAN], None), VectorsError::NotFinite(id("a")));
        assert_eq!(new(vec![], vec![], Some(ColdItems::default())), VectorsError::OtherFeatures);
    }
}
