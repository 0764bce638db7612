//! Settings of training, with the reasons for their defaults.

use std::collections::BTreeMap;

use lately_features::Schema;
use serde::{Deserialize, Serialize};

/// Column of the label-weight matrix that every row has, whatever followed.
pub const IMPRESSION: &str = "impression";

/// Label weights: head -> column -> weight. A column is an action type or [`IMPRESSION`].
pub type LabelWeights = BTreeMap<String, BTreeMap<String, f64>>;

/// Settings of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the rows. Default 2: with more the hashed ids overfit.
    pub epochs: u32,
    /// Rows a step, rounded up to whole requests. Default 512.
    pub batch_rows: usize,
    /// Highest learning rate. Default 0.002: the cosine halves its mean. On KuaiRand-Pure (1-6 May, one seed, all else
    /// equal) click AUC was .7479 with it and .7444 with 0.001.
    pub learning_rate: f64,
    /// Share of the steps over which the rate rises. Default 0.05.
    pub warmup: f64,
    /// Last learning rate as a share of the highest. Default 0.01: the last steps still settle.
    pub final_rate: f64,
    /// Adam's decay of the first moment. Default 0.9.
    pub beta1: f64,
    /// Adam's decay of the second moment. Default 0.999.
    pub beta2: f64,
    /// Decoupled weight decay. Default 0: dropout and two epochs regularise already.
    pub weight_decay: f64,
    /// Largest norm of a step's whole gradient; 0 turns clipping off. Default 10: only outliers are touched.
    pub clip_norm: f64,
    /// Weight of row i in head h: M\[h, impression\] + sum over actions a of M\[h, a\] y_ia. The paper's matrix has no
    /// impression column, so that a row without action would weigh nothing; here it is 1 where it is not named.
    pub label_weights: LabelWeights,
    /// Random time window: in an example, actions younger than T hours are hidden, T uniform in 0 to this. It keeps
    /// the feed diverse. Default 24, as in the paper; 0 turns it off.
    pub window_hours: f64,
    /// Share of the examples to which the window is applied. Default 0.5: with 1 (the paper) actions of the last
    /// minutes are visible in fewer than 1 % of the examples, and a product with few actions learns nothing of them.
    pub window_probability: f64,
    /// Share of the examples that lose their whole sequence, so that a new user's is not foreign to the model.
    /// Default 0.05.
    pub sequence_dropout: f64,
    /// Seed of weights, order, windows and dropout.
    pub seed: u64,
    /// Parts into which a batch is cut for the threads. The gradient is their sum in fixed order, so that the result
    /// depends on this number, but not on `threads`. Default 8.
    pub shards: usize,
    /// Worker threads. Default 2.
    pub threads: usize,
    /// Seconds between saves of the state from which a killed run goes on. Default 20.
    pub save_seconds: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 2,
            batch_rows: 512,
            learning_rate: 2e-3,
            warmup: 0.05,
            final_rate: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            clip_norm: 10.0,
            label_weights: LabelWeights::new(),
            window_hours: 24.0,
            window_probability: 0.5,
            sequence_dropout: 0.05,
            seed: 1,
            shards: 8,
            threads: 2,
            save_seconds: 20,
        }
    }
}

/// Why settings are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A number is outside its range.
    #[error("training: `{name}` is {value}: it must be {range}")]
    Range {
        /// The key.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The allowed range in words.
        range: &'static str,
    },
    /// A head of the matrix is not in the schema.
    #[error("training: label_weights names the head `{0}`, which the schema does not have")]
    UnknownHead(String),
    /// A column of the matrix is no action.
    #[error("training: label_weights.{head} names `{column}`, which is neither an action nor `{IMPRESSION}`")]
    UnknownColumn {
        /// Row of the matrix.
        head: String,
        /// The column.
        column: String,
    },
    /// A weight is negative or not finite.
    #[error("training: label_weights.{head}.{column} is {value}: it must be 0 or more")]
    Weight {
        /// Row of the matrix.
        head: String,
        /// The column.
        column: String,
        /// The weight.
        value: f64,
    },
}

impl TrainConfig {
    /// Checks all ranges and, against the schema, all names.
    pub fn validate(&self, schema: &Schema) -> Result<(), ConfigError> {
        let share = "from 0 to 1";
        for (name, value, good, range) in [
            ("epochs", f64::from(self.epochs), self.epochs > 0, "1 or more"),
            ("batch_rows", self.batch_rows as f64, self.batch_rows > 0, "1 or more"),
            ("shards", self.shards as f64, (1..=256).contains(&self.shards), "1 to 256"),
            ("threads", self.threads as f64, (1..=256).contains(&self.threads), "1 to 256"),
            ("learning_rate", self.learning_rate, positive(self.learning_rate), "above 0"),
            ("warmup", self.warmup, is_share(self.warmup), share),
            ("final_rate", self.final_rate, is_share(self.final_rate), share),
            ("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "from 0 to below 1"),
            ("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "from 0 to below 1"),
            ("weight_decay", self.weight_decay, is_share(self.weight_decay), share),
            ("clip_norm", self.clip_norm, self.clip_norm == 0.0 || positive(self.clip_norm), "0 or more"),
            ("window_hours", self.window_hours, (0.0..=87_600.0).contains(&self.window_hours), "0 to 87,600"),
            ("window_probability", self.window_probability, is_share(self.window_probability), share),
            ("sequence_dropout", self.sequence_dropout, is_share(self.sequence_dropout), share),
        ] {
            if !good {
                return Err(ConfigError::Range { name, value, range });
            }
        }
        Weights::new(schema, &self.label_weights).map(drop)
    }
}

fn positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
}

fn is_share(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}

/// The label-weight matrix by position.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    /// For each head the weight of the impression and those of the named actions.
    heads: Vec<(f64, Vec<(u8, f64)>)>,
}

impl Weights {
    pub(crate) fn new(schema: &Schema, matrix: &LabelWeights) -> Result<Self, ConfigError> {
        if let Some(name) = matrix.keys().find(|name| !schema.heads.iter().any(|h| h.name == **name)) {
            return Err(ConfigError::UnknownHead(name.clone()));
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

    #[test]
    fn unknown_keys_and_bad_ranges_are_refused() {
        assert!(serde_json::from_str::<TrainConfig>(r#"{"epoch": 2}"#).is_err());
        let config = TrainConfig { warmup: 1.5, ..TrainConfig::default() };
        assert!(config.validate(&schema()).unwrap_err().to_string().contains("`warmup` is 1.5"));
        assert_eq!(TrainConfig::default().validate(&schema()), Ok(()));
        assert!(
            TrainConfig { learning_rate: f64::NAN, ..TrainConfig::default() }.validate(&schema()).is_err()
        );
    }
}
