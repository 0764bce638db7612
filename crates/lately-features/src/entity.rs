//! Items and users as the model sees them: features by position instead of by name.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{EventError, FeatureValue, FeatureValues};
use crate::schema::{CoreUsers, FeatureKind, bucket};

/// Features of one item or user, in the order of the schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Features {
    /// Hash buckets: for each categorical feature `max_values` slots; 0 is an empty slot.
    pub categorical: Box<[u32]>,
    /// One number a numeric feature, after its logarithm where declared; NaN where missing.
    pub numeric: Box<[f32]>,
    /// The embedding features, one after another; zeros where missing.
    pub embedding: Box<[f32]>,
}

impl Features {
    /// Encodes named values by the declared `kinds`; refuses names, kinds and sizes that were not declared.
    pub fn encode(kinds: &[FeatureKind], values: &FeatureValues) -> Result<Self, EventError> {
        if let Some(name) = values.keys().find(|name| !kinds.iter().any(|k| k.name() == *name)) {
            return Err(EventError::UnknownFeature(name.clone()));
        }
        let (mut categorical, mut numeric, mut embedding) = (Vec::new(), Vec::new(), Vec::new());
        for kind in kinds {
            let value = values.get(kind.name());
            match kind {
                FeatureKind::Categorical { name, buckets, max_values, .. } => {
                    let max = usize::from(*max_values);
                    let texts = match value {
                        None => &[][..],
                        Some(FeatureValue::Text(text)) => std::slice::from_ref(text),
                        Some(FeatureValue::Texts(texts)) => texts,
                        Some(_) => return Err(wrong(name, "categorical", "a text or a list of texts")),
                    };
                    if texts.len() > max {
                        return Err(EventError::TooManyValues { name: name.clone(), max, got: texts.len() });
                    }
                    let end = categorical.len() + max;
                    categorical.extend(texts.iter().map(|t| bucket(t, *buckets)));
                    categorical.resize(end, 0);
                }
                FeatureKind::Numeric { name, log } => numeric.push(match value {
                    None => f32::NAN,
                    Some(FeatureValue::Number(x)) if x.is_finite() => {
                        let x = if *log { x.signum() * x.abs().ln_1p() } else { *x };
                        x.clamp(-1e30, 1e30) as f32
                    }
                    Some(FeatureValue::Number(_)) => return Err(EventError::NotFinite(name.clone())),
                    Some(_) => return Err(wrong(name, "numeric", "a number")),
                }),
                FeatureKind::Embedding { name, dim } => {
                    let want = usize::from(*dim);
                    match value {
                        None => embedding.resize(embedding.len() + want, 0.0),
                        Some(FeatureValue::Vector(v)) if v.len() != want => {
                            return Err(EventError::WrongLength { name: name.clone(), want, got: v.len() });
                        }
                        Some(FeatureValue::Vector(v)) if v.iter().all(|x| x.abs() <= 1e6) => {
                            embedding.extend(v)
                        }
                        Some(FeatureValue::Vector(_)) => return Err(EventError::NotFinite(name.clone())),
                        Some(_) => return Err(wrong(name, "an embedding", "a list of numbers")),
                    }
                }
            }
        }
        Ok(Self { categorical: categorical.into(), numeric: numeric.into(), embedding: embedding.into() })
    }

    /// Whether the user is core by the schema's rule; everybody is where there is no rule.
    pub fn is_core(&self, kinds: &[FeatureKind], rule: Option<&CoreUsers>) -> bool {
        let Some(rule) = rule else { return true };
        let mut slot = 0;
        for kind in kinds {
            if let FeatureKind::Categorical { name, buckets, max_values, .. } = kind {
                let slots = slot..slot + usize::from(*max_values);
                if *name == rule.feature {
                    let core = |b: &u32| rule.values.iter().any(|v| bucket(v, *buckets) == *b);
                    return self.categorical[slots].iter().any(core);
                }
                slot = slots.end;
            }
        }
        false
    }
}

fn wrong(name: &str, kind: &'static str, send: &'static str) -> EventError {
    EventError::WrongKind { name: name.to_owned(), kind, send }
}

/// Encoded features by id; a clone of the value is one reference count.
#[derive(Debug, Clone)]
pub struct EntityTable<Id> {
    rows: HashMap<Id, Arc<Features>>,
}

impl<Id: Eq + Hash> Default for EntityTable<Id> {
    fn default() -> Self {
        Self { rows: HashMap::new() }
    }
}

impl<Id: Eq + Hash> EntityTable<Id> {
    /// The features of an id.
    pub fn get(&self, id: &Id) -> Option<&Arc<Features>> {
        self.rows.get(id)
    }
    /// Sets the features of an id; returns the former ones.
    pub fn insert(&mut self, id: Id, features: Arc<Features>) -> Option<Arc<Features>> {
        self.rows.insert(id, features)
    }
    /// Drops an id.
    pub fn remove(&mut self, id: &Id) -> Option<Arc<Features>> {
        self.rows.remove(id)
    }
    /// Number of ids.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// All ids and their features, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Id, &Arc<Features>)> {
        self.rows.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Schema, tests::SMALL};

    #[test]
    fn features_go_to_their_slots_and_missing_ones_are_marked() {
        let schema = Schema::from_toml(SMALL).unwrap();
        let values = FeatureValues::from([
            ("topic".into(), FeatureValue::Text("birds".into())),
            ("vector".into(), FeatureValue::Vector(vec![1.0, -1.0])),
        ]);
        let f = Features::encode(&schema.item_features, &values).unwrap();
        assert_eq!(*f.categorical, [bucket("birds", 32), 0]);
        assert!(f.numeric[0].is_nan());
        assert_eq!(*f.embedding, [1.0, -1.0]);
        let views = FeatureValues::from([("views".into(), FeatureValue::Number(-1.0))]);
        let f = Features::encode(&schema.item_features, &views).unwrap();
        assert_eq!(*f.numeric, [-(2f32.ln())]);
        assert_eq!(*f.embedding, [0.0, 0.0]);
    }

    #[test]
    fn core_users_follow_the_rule() {
        let schema = Schema::from_toml(SMALL).unwrap();
        let rule = CoreUsers { feature: "country".into(), values: vec!["x".into()] };
        let user = |v: &str| {
            let values = FeatureValues::from([("country".into(), FeatureValue::Text(v.into()))]);
            Features::encode(&schema.user_features, &values).unwrap()
        };
        assert!(user("x").is_core(&schema.user_features, Some(&rule)));
        assert!(!user("y").is_core(&schema.user_features, Some(&rule)));
        assert!(user("y").is_core(&schema.user_features, None));
    }
}
