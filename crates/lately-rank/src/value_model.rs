//! From the heads' probabilities to one score: a weighted sum.

use std::collections::BTreeMap;

use lately_features::Schema;
use lately_features::schema::Polarity;
use serde::{Deserialize, Serialize};

use crate::error::RankConfigError;

/// Largest weight in size: keeps every score finite.
const MAX_WEIGHT: f32 = 1e6;

/// `[rank.value_model]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValueModelConfig {
    /// Weight by head, such as `{ click = 0.3, save = 1.0, hide = -3.0 }`; a head that is not named weighs 0.
    /// Empty (default): 1 for a head with a positive action, -1 for one with negative actions only, else 0.
    pub weights: BTreeMap<String, f32>,
}

/// Weights in the order of the schema's heads.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueModel {
    weights: Vec<f32>,
}

impl ValueModel {
    /// Refuses heads that the schema does not have, and weights that are no numbers.
    ///
    /// # Errors
    /// [`RankConfigError::UnknownHead`], [`RankConfigError::Weight`].
    pub fn new(config: &ValueModelConfig, schema: &Schema) -> Result<Self, RankConfigError> {
        if config.weights.is_empty() {
            return Ok(Self { weights: by_polarity(schema) });
        }
        let mut weights = vec![0.0; schema.heads.len()];
        for (name, weight) in &config.weights {
            let Some(at) = schema.heads.iter().position(|h| h.name == *name) else {
                let heads: Vec<_> = schema.heads.iter().map(|h| h.name.as_str()).collect();
                return Err(RankConfigError::UnknownHead { name: name.clone(), heads: heads.join(", ") });
            };
            // NaN fails this comparison too.
            if !matches!(weight.abs().partial_cmp(&MAX_WEIGHT), Some(o) if o.is_le()) {
                return Err(RankConfigError::Weight { name: name.clone(), weight: *weight });
            }
            weights[at] = *weight;
        }
        Ok(Self { weights })
    }

    /// The weights, one a head.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Sum over heads of weight x probability.
    pub fn score(&self, probabilities: &[f32]) -> f32 {
        self.weights.iter().zip(probabilities).map(|(w, p)| w * p).sum()
    }
}

fn by_polarity(schema: &Schema) -> Vec<f32> {
    let has = |head: &lately_features::schema::Head, polarity| {
        schema.actions.iter().any(|a| a.polarity == polarity && head.actions.contains(&a.name))
    };
    let weight = |head| match (has(head, Polarity::Positive), has(head, Polarity::Negative)) {
        (true, _) => 1.0,
        (false, true) => -1.0,
        (false, false) => 0.0,
    };
    schema.heads.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranker::tests::schema;

    fn config(weights: &[(&str, f32)]) -> ValueModelConfig {
        ValueModelConfig { weights: weights.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect() }
    }

    #[test]
    fn weighs_the_heads_by_name() {
        let model = ValueModel::new(&config(&[("save", 1.0), ("hide", -3.0)]), &schema()).unwrap();
        assert_eq!(model.weights(), [0.0, 1.0, -3.0]);
        assert_eq!(model.score(&[0.9, 0.5, 0.25]), -0.25);
        let by_polarity = ValueModel::new(&ValueModelConfig::default(), &schema()).unwrap();
        assert_eq!(by_polarity.weights(), [1.0, 1.0, -1.0]);
    }

    #[test]
    fn refuses_unknown_heads_and_weights_that_are_no_numbers() {
        let error = |w: &[(&str, f32)]| ValueModel::new(&config(w), &schema()).unwrap_err().to_string();
        assert!(error(&[("saved", 1.0)]).contains("`saved`: the schema has click, save, hide"));
        assert!(error(&[("save", f32::NAN)]).contains("NaN"));
        assert!(error(&[("save", f32::INFINITY)]).contains("inf"));
    }

    #[test]
    fn extreme_logits_give_probabilities() {
        assert_eq!([-1e30, 0.0, 1e30].map(lately_model::probability), [0.0, 0.5, 1.0]);
    }
}
