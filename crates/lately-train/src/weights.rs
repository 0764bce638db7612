//! How much a row weighs in each head's loss.

use std::collections::BTreeMap;

use lately_features::schema::{FeatureKind, bucket};
use lately_features::{Features, Schema};

use crate::config::{ConfigError, IMPRESSION, LabelWeights, UserWeights};

/// The label-weight matrix by position.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    /// For each head the weight of the impression and those of the named actions.
    heads: Vec<(f64, Vec<(u8, f64)>)>,
}

impl Weights {
    pub(crate) fn new(schema: &Schema, matrix: &LabelWeights) -> Result<Self, ConfigError> {
        if let Some(name) = matrix.keys().find(|name| !schema.heads.iter().any(|h| h.name == **name)) {
            return Err(ConfigError::UnknownHead { key: "label_weights", head: name.clone() });
        }
        let mut heads = Vec::new();
        for head in &schema.heads {
            let (mut impression, mut actions) = (1.0, Vec::new());
            for (column, value) in matrix.get(&head.name).into_iter().flatten() {
                let (head, column, value) = (head.name.clone(), column.clone(), *value);
                if !(value.is_finite() && value >= 0.0) {
                    return Err(ConfigError::Weight { head, column, value });
                }
                match schema.action(&column) {
                    _ if column == IMPRESSION => impression = value,
                    Some(action) => actions.push((action, value)),
                    None => return Err(ConfigError::UnknownColumn { head, column }),
                }
            }
            heads.push((impression, actions));
        }
        Ok(Self { heads })
    }

    /// Weight of a row in each head, by the actions that followed it.
    pub(crate) fn of(&self, observed: u64) -> impl Iterator<Item = f64> + '_ {
        self.heads.iter().map(move |(impression, actions)| {
            let followed = actions.iter().filter(|(action, _)| observed >> action & 1 == 1);
            impression + followed.map(|(_, weight)| weight).sum::<f64>()
        })
    }
}

/// The weights of users by position.
#[derive(Debug, Clone)]
pub(crate) struct Users {
    /// For each named feature its slots and, by bucket, the weights of its values.
    features: Vec<(std::ops::Range<usize>, BTreeMap<u32, f64>)>,
}

impl Users {
    pub(crate) fn new(schema: &Schema, weights: &UserWeights) -> Result<Self, ConfigError> {
        let mut left: Vec<&String> = weights.keys().collect();
        let (mut features, mut slot) = (Vec::new(), 0);
        for kind in &schema.user_features {
            let FeatureKind::Categorical { name, buckets, max_values, .. } = kind else { continue };
            let slots = slot..slot + usize::from(*max_values);
            slot = slots.end;
            if let Some(values) = weights.get(name) {
                features.push((slots, of_buckets(name, values, *buckets)?));
                left.retain(|other| *other != name);
            }
        }
        match left.first() {
            Some(name) => Err(ConfigError::UnknownFeature((*name).clone())),
            None => Ok(Self { features }),
        }
    }

    /// Weight of a user's rows: the product over the named values that the user has.
    pub(crate) fn of(&self, user: Option<&Features>) -> f64 {
        let Some(user) = user else { return 1.0 };
        let of = |(slots, weights): &(std::ops::Range<usize>, BTreeMap<u32, f64>)| -> f64 {
            user.categorical[slots.clone()].iter().filter_map(|bucket| weights.get(bucket)).product()
        };
        self.features.iter().map(of).product()
    }
}

fn of_buckets(
    feature: &str,
    values: &BTreeMap<String, f64>,
    buckets: u32,
) -> Result<BTreeMap<u32, f64>, ConfigError> {
    let mut names = BTreeMap::<u32, &String>::new();
    let mut weights = BTreeMap::new();
    for (name, weight) in values {
        if !(weight.is_finite() && *weight >= 0.0) {
            let (feature, value) = (feature.to_owned(), name.clone());
            return Err(ConfigError::UserWeight { feature, value, weight: *weight });
        }
        if let Some(other) = names.insert(bucket(name, buckets), name) {
            let (feature, values) = (feature.to_owned(), [other.clone(), name.clone()]);
            return Err(ConfigError::SameBucket { feature, values });
        }
        weights.insert(bucket(name, buckets), *weight);
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::schema;
    use lately_features::FeatureValue;
    use lately_features::event::FeatureValues;

    #[test]
    fn a_weight_is_that_of_the_impression_plus_those_of_what_followed() {
        let matrix = |text: &str| serde_json::from_str::<LabelWeights>(text).unwrap();
        let weights =
            Weights::new(&schema(), &matrix(r#"{"save": {"impression": 0.5, "click": 2, "save": 10}}"#))
                .unwrap();
        assert_eq!(weights.of(0).collect::<Vec<_>>(), [1.0, 0.5, 1.0]);
        assert_eq!(weights.of(0b0110).collect::<Vec<_>>(), [1.0, 12.5, 1.0]);
        let refused = |text: &str| Weights::new(&schema(), &matrix(text)).unwrap_err().to_string();
        assert!(refused(r#"{"saves": {}}"#).contains("`saves`"));
        assert!(refused(r#"{"save": {"clack": 1}}"#).contains("`clack`"));
        assert!(refused(r#"{"save": {"click": -1}}"#).contains("0 or more"));
    }

    #[test]
    fn a_user_weighs_by_the_named_values() {
        let of = |text: &str| Users::new(&schema(), &serde_json::from_str::<UserWeights>(text).unwrap());
        let user = |level: &str| {
            let level = FeatureValue::Text(level.to_owned());
            let values = FeatureValues::from([("level".to_owned(), level)]);
            Features::encode(&schema().user_features, &values).unwrap()
        };
        let weights = of(r#"{"level": {"high": 0.5, "new": 3}}"#).unwrap();
        let got = ["high", "new", "low"].map(|level| weights.of(Some(&user(level))));
        assert_eq!((got, weights.of(None)), ([0.5, 3.0, 1.0], 1.0));
        assert_eq!(of("{}").unwrap().of(Some(&user("high"))), 1.0);
        let refused = |text: &str| of(text).unwrap_err().to_string();
        assert!(refused(r#"{"levels": {}}"#).contains("`levels`"));
        assert!(refused(r#"{"level": {"high": -1}}"#).contains("0 or more"));
        let many: BTreeMap<String, f64> = (0..1000).map(|i| (i.to_string(), 1.0)).collect();
        let same = Users::new(&schema(), &BTreeMap::from([("level".to_owned(), many)])).unwrap_err();
        assert!(same.to_string().contains("one bucket"), "{same}");
    }
}
