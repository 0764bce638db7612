//! From the heads' probabilities to one score: a weighted sum, with weights by surface.
//!
//! The probabilities are calibrated ones where the model's artifact holds a calibration (it shifts the logits before
//! they come here), so that a weight means the same from one model to the next. Feedback against an item cannot be tuned
//! away: a head of negative actions alone weighs at most `-negative_floor`, named or not, after any perturbation.

mod perturbation;

use std::collections::BTreeMap;

use lately_features::schema::{Head, Polarity};
use lately_features::{Schema, UserId};
use serde::{Deserialize, Serialize};

use crate::error::RankConfigError;

pub use perturbation::{PerturbationConfig, perturbation};

/// Largest `max_weight`: keeps every score finite.
const MAX_WEIGHT: f32 = 1e6;

/// `[rank.value_model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValueModelConfig {
    /// Weight by head, such as `{ click = 0.3, save = 1.0, hide = -3.0 }`; a head that is not named weighs 0.
    /// Empty (default): 1 for a head with a positive action, -1 for one with negative actions only, else 0.
    pub weights: BTreeMap<String, f32>,
    /// Other weights by surface, instead of all of the above.
    pub surfaces: BTreeMap<String, SurfaceWeights>,
    /// Largest weight in size, at most 1e6. Default 1e6.
    pub max_weight: f32,
    /// A head of negative actions alone weighs at most minus this: a larger weight is refused, one that is not named
    /// weighs this. Default 0: it may weigh nothing, and is never rewarded.
    pub negative_floor: f32,
    /// Small changes of the weights from person to person.
    pub perturbation: PerturbationConfig,
}

/// One `[rank.value_model.surfaces.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurfaceWeights {
    /// As those of all surfaces.
    pub weights: BTreeMap<String, f32>,
}

impl Default for ValueModelConfig {
    fn default() -> Self {
        Self {
            weights: BTreeMap::new(),
            surfaces: BTreeMap::new(),
            max_weight: MAX_WEIGHT,
            negative_floor: 0.0,
            perturbation: PerturbationConfig::default(),
        }
    }
}

/// Weights in the order of the schema's heads.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueModel {
    weights: Vec<f32>,
    /// By position of the surface.
    surfaces: BTreeMap<u16, Vec<f32>>,
    heads: Vec<String>,
    /// Most that a head may weigh.
    highest: Vec<f32>,
    perturbation: PerturbationConfig,
}

impl ValueModel {
    /// Refuses heads and surfaces that the schema does not have, and weights out of their bounds.
    ///
    /// # Errors
    /// [`RankConfigError::UnknownHead`], [`RankConfigError::UnknownSurface`], [`RankConfigError::Weight`],
    /// [`RankConfigError::Bounds`], [`RankConfigError::Share`].
    pub fn new(config: &ValueModelConfig, schema: &Schema) -> Result<Self, RankConfigError> {
        let (floor, max) = (config.negative_floor, config.max_weight);
        if !((0.0..=max).contains(&floor) && (0.0..=MAX_WEIGHT).contains(&max)) {
            return Err(RankConfigError::Bounds { floor, max });
        }
        config.perturbation.check()?;
        let highest: Vec<f32> =
            schema.heads.iter().map(|h| if negative(schema, h) { -floor } else { max }).collect();
        let mut surfaces = BTreeMap::new();
        for (name, own) in &config.surfaces {
            let at = schema.surface(name).ok_or_else(|| RankConfigError::UnknownSurface(name.clone()))?;
            surfaces.insert(at, resolved(&own.weights, schema, &highest, max)?);
        }
        Ok(Self {
            weights: resolved(&config.weights, schema, &highest, max)?,
            surfaces,
            heads: schema.heads.iter().map(|h| h.name.clone()).collect(),
            highest,
            perturbation: config.perturbation.clone(),
        })
    }

    /// The weights of all surfaces that have none of their own, one a head.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The weights for a person on a surface (its position in the schema, plus 1; 0: none), one a head.
    pub fn weights_for(&self, user: &UserId, surface: u16) -> Vec<f32> {
        let weights = self.surfaces.get(&surface).unwrap_or(&self.weights);
        let all = self.heads.iter().zip(weights).zip(&self.highest);
        let changed = |((head, weight), highest): ((&String, &f32), &f32)| {
            let sign = f32::from(perturbation(&self.perturbation, user, head));
            (weight * (1.0 + sign * self.perturbation.spread)).min(*highest)
        };
        all.map(changed).collect()
    }

    /// Sum over heads of weight x probability.
    pub fn score(&self, probabilities: &[f32]) -> f32 {
        score(&self.weights, probabilities)
    }
}

/// Sum over heads of weight x probability.
pub(crate) fn score(weights: &[f32], probabilities: &[f32]) -> f32 {
    weights.iter().zip(probabilities).map(|(w, p)| w * p).sum()
}

fn resolved(
    named: &BTreeMap<String, f32>,
    schema: &Schema,
    highest: &[f32],
    max: f32,
) -> Result<Vec<f32>, RankConfigError> {
    let mut weights = if named.is_empty() { by_polarity(schema) } else { vec![0.0; schema.heads.len()] };
    weights.iter_mut().zip(highest).for_each(|(w, high)| *w = w.clamp(-max, *high));
    for (name, weight) in named {
        let Some(at) = schema.heads.iter().position(|h| h.name == *name) else {
            let heads: Vec<_> = schema.heads.iter().map(|h| h.name.as_str()).collect();
            return Err(RankConfigError::UnknownHead { name: name.clone(), heads: heads.join(", ") });
        };
        let (low, high) = (-max, highest[at]);
        if !(low..=high).contains(weight) {
            return Err(RankConfigError::Weight { name: name.clone(), weight: *weight, low, high });
        }
        weights[at] = *weight;
    }
    Ok(weights)
}

fn has(schema: &Schema, head: &Head, polarity: Polarity) -> bool {
    schema.actions.iter().any(|a| a.polarity == polarity && head.actions.contains(&a.name))
}

/// Whether a head is of negative actions alone.
fn negative(schema: &Schema, head: &Head) -> bool {
    !head.actions.is_empty()
        && schema
            .actions
            .iter()
            .filter(|a| head.actions.contains(&a.name))
            .all(|a| a.polarity == Polarity::Negative)
}

fn by_polarity(schema: &Schema) -> Vec<f32> {
    let weight = |head| match (has(schema, head, Polarity::Positive), has(schema, head, Polarity::Negative)) {
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
        let weights = weights.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        ValueModelConfig { weights, ..ValueModelConfig::default() }
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
    fn feedback_against_an_item_cannot_be_tuned_away() {
        let floored = |weights: &[(&str, f32)]| ValueModelConfig { negative_floor: 2.0, ..config(weights) };
        let error = |w: &[(&str, f32)]| ValueModel::new(&floored(w), &schema()).unwrap_err().to_string();
        assert!(
            error(&[("hide", -1.0)]).contains("it must be -1000000 to -2"),
            "{}",
            error(&[("hide", -1.0)])
        );
        assert!(ValueModel::new(&config(&[("hide", 0.5)]), &schema()).is_err(), "nor rewarded");
        let unnamed = ValueModel::new(&floored(&[("save", 1.0)]), &schema()).unwrap();
        assert_eq!(unnamed.weights(), [0.0, 1.0, -2.0]);
        let bounds = ValueModelConfig { negative_floor: f32::NAN, ..config(&[]) };
        assert!(ValueModel::new(&bounds, &schema()).is_err());
    }

    #[test]
    fn a_surface_has_its_own_weights_and_a_person_slightly_other_ones() {
        let user = UserId::new("u").unwrap();
        let own = SurfaceWeights { weights: [("save".to_owned(), 5.0), ("hide".to_owned(), -1.0)].into() };
        let mut config = ValueModelConfig { negative_floor: 1.0, ..config(&[]) };
        config.surfaces.insert("home".into(), own);
        let model = ValueModel::new(&config, &schema()).unwrap();
        assert_eq!(model.weights_for(&user, 1), [0.0, 5.0, -1.0]);
        assert_eq!(model.weights_for(&user, 0), [1.0, 1.0, -1.0]);
        config.perturbation.spread = 0.1;
        let model = ValueModel::new(&config, &schema()).unwrap();
        let changed = model.weights_for(&user, 1);
        assert!((changed[1] - 5.0).abs() > 0.49 && (changed[1] - 5.0).abs() < 0.51, "{changed:?}");
        assert!(changed[2] <= -1.0, "the floor holds: {changed:?}");
        config.surfaces.insert("nowhere".into(), SurfaceWeights::default());
        assert!(ValueModel::new(&config, &schema()).unwrap_err().to_string().contains("`nowhere`"));
    }

    #[test]
    fn extreme_logits_give_probabilities() {
        assert_eq!([-1e30, 0.0, 1e30].map(lately_model::probability), [0.0, 0.5, 1.0]);
    }
}
