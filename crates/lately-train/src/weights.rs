//! How much a row weighs in each head's loss.

use lately_features::Schema;

use crate::config::{ConfigError, IMPRESSION, LabelWeights};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::schema;

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
}
