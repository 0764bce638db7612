//! Settings of training, with the reasons for their defaults.

use std::collections::BTreeMap;

use lately_features::Schema;
use lately_model::Precision;
use serde::{Deserialize, Serialize};

use crate::calibration::CalibrationKind;
use crate::dates::Zone;
use crate::groups::{ListKind, ListSequence};
use crate::incremental::IncrementalConfig;
use crate::weights::{Users, Weights};

/// Column of the label-weight matrix that every row has, whatever followed.
pub const IMPRESSION: &str = "impression";

/// Label weights: head -> column -> weight. A column is an action type or [`IMPRESSION`].
pub type LabelWeights = BTreeMap<String, BTreeMap<String, f64>>;

/// Weights of users: categorical user feature -> value -> weight.
pub type UserWeights = BTreeMap<String, BTreeMap<String, f64>>;

/// On what is trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainDevice {
    /// The CPU.
    #[default]
    Cpu,
    /// A CUDA device; without one nothing is trained.
    Cuda,
    /// A CUDA device where there is one that has kernels for the model, else the CPU.
    Auto,
}

impl TrainDevice {
    /// Whether it is the one that is taken where none is named.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

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
    /// A user's rows weigh the product of these over the named values that the user has. Default: none, all weigh 1.
    pub user_weights: UserWeights,
    /// Share of the rows without any head's action that an epoch keeps, drawn anew in each; every kept one weighs 1 /
    /// this, so that predictions stay calibrated. Above 0 to 1. Default 1: all.
    pub negative_rate: f64,
    /// Strength of the term that orders each list by itself (softmax cross-entropy within it, [`mod@crate::groups`]), beside that
    /// of single rows, in which a user's own rate counts too: 1 makes both equally strong. Default 0.
    pub list_weight: f64,
    /// Heads that it holds for. Default: none named, which means all.
    pub list_heads: Vec<String>,
    /// What a list is. Default `auto`.
    pub list: ListKind,
    /// Which sequence its rows see, in both terms. Default `start`.
    pub list_sequence: ListSequence,
    /// Most rows of a list; a longer one is cut in parts of about one size. All rows of a list stand in the same part
    /// of a batch, so that a larger number costs memory and balance between threads. Default 64.
    pub list_rows: usize,
    /// Zone of the days that make lists. No key of `[train]`: the caller sets it to that of the data.
    #[serde(skip)]
    pub zone: Zone,
    /// Random time window: in an example, actions younger than T hours are hidden, T uniform in 0 to this. It keeps
    /// the feed diverse. Default 24, as in the paper; 0 turns it off.
    pub window_hours: f64,
    /// Share of the examples to which the window is applied. Default 0.5: with 1 (the paper) actions of the last
    /// minutes are visible in fewer than 1 % of the examples, and a product with few actions learns nothing of them.
    pub window_probability: f64,
    /// Share of the examples that lose their whole sequence, so that a new user's is not foreign to the model.
    /// Default 0.05.
    pub sequence_dropout: f64,
    /// Of `lately train --incremental` and of the server's frequent retrainings.
    pub incremental: IncrementalConfig,
    /// How each head's probabilities are calibrated. Default `none`.
    pub calibration: CalibrationKind,
    /// Newest share of the rows on which it is fitted, and from which the weights then learn nothing. Default 0.1.
    pub calibration_share: f64,
    /// Seed of weights, order, windows and dropout.
    pub seed: u64,
    /// How matrices are multiplied: `f32`, or `bf16`, which holds gradients to 1e-2 of the largest. Default f32: on a
    /// Sapphire Rapids a step takes 97 ms with it and 113 with bf16.
    pub precision: Precision,
    /// On what is trained; the caller opens it and hands it over as [`Place`](crate::Place). Default `cpu`: the bytes do not
    /// depend on whether there is a card, and a server's retraining gives way to those who serve, which on a card nothing does.
    #[serde(skip_serializing_if = "TrainDevice::is_default")]
    // names of results that were kept before stay theirs
    pub device: TrainDevice,
    /// Worker threads; with a device those that make its batches. Default 2.
    pub threads: usize,
    /// Most memory that training may take, dataset included, bytes; a run that needs more is refused before its first
    /// step. 0: no bound.
    pub memory_bytes: u64,
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
            user_weights: UserWeights::new(),
            negative_rate: 1.0,
            list_weight: 0.0,
            list_heads: Vec::new(),
            list: ListKind::Auto,
            list_sequence: ListSequence::Start,
            list_rows: 64,
            zone: Zone::utc(),
            window_hours: 24.0,
            window_probability: 0.5,
            sequence_dropout: 0.05,
            incremental: IncrementalConfig::default(),
            calibration: CalibrationKind::None,
            calibration_share: 0.1,
            seed: 1,
            precision: Precision::F32,
            device: TrainDevice::Cpu,
            threads: 2,
            memory_bytes: 0,
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
    /// A named head is not in the schema.
    #[error("training: {key} names the head `{head}`, which the schema does not have")]
    UnknownHead {
        /// The key that names it.
        key: &'static str,
        /// Its name.
        head: String,
    },
    /// A column of the matrix is no action.
    #[error("training: label_weights.{head} names `{column}`, which is neither an action nor `{IMPRESSION}`")]
    UnknownColumn {
        /// Row of the matrix.
        head: String,
        /// The column.
        column: String,
    },
    /// The schema has no such user feature.
    #[error("training: user_weights names `{0}`, which is no categorical user feature")]
    UnknownFeature(String),
    /// The values of a feature cannot be told apart.
    #[error(
        "training: user_weights.{feature}: `{}` and `{}` share one bucket and cannot weigh differently: raise the \
         feature's buckets or leave one out", .values[0], .values[1]
    )]
    SameBucket {
        /// The feature.
        feature: String,
        /// The two values.
        values: [String; 2],
    },
    /// A user's weight is negative or not finite.
    #[error("training: user_weights.{feature}.{value} is {weight}: it must be 0 or more")]
    UserWeight {
        /// The feature.
        feature: String,
        /// Its value.
        value: String,
        /// The weight.
        weight: f64,
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
        let part = self.calibration_share > 0.0 && self.calibration_share < 1.0;
        let rate = self.negative_rate > 0.0 && self.negative_rate <= 1.0;
        for (name, value, good, range) in [
            ("epochs", f64::from(self.epochs), self.epochs > 0, "1 or more"),
            ("batch_rows", self.batch_rows as f64, self.batch_rows > 0, "1 or more"),
            ("threads", self.threads as f64, (1..=256).contains(&self.threads), "1 to 256"),
            ("learning_rate", self.learning_rate, positive(self.learning_rate), "above 0"),
            ("warmup", self.warmup, is_share(self.warmup), share),
            ("final_rate", self.final_rate, is_share(self.final_rate), share),
            ("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "from 0 to below 1"),
            ("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "from 0 to below 1"),
            ("weight_decay", self.weight_decay, is_share(self.weight_decay), share),
            ("clip_norm", self.clip_norm, self.clip_norm == 0.0 || positive(self.clip_norm), "0 or more"),
            ("negative_rate", self.negative_rate, rate, "above 0, to 1"),
            ("list_weight", self.list_weight, (0.0..=1e6).contains(&self.list_weight), "0 to 1,000,000"),
            ("list_rows", self.list_rows as f64, (2..=4096).contains(&self.list_rows), "2 to 4,096"),
            ("window_hours", self.window_hours, (0.0..=87_600.0).contains(&self.window_hours), "0 to 87,600"),
            ("window_probability", self.window_probability, is_share(self.window_probability), share),
            ("calibration_share", self.calibration_share, part, "above 0 and below 1"),
            ("sequence_dropout", self.sequence_dropout, is_share(self.sequence_dropout), share),
        ] {
            if !good {
                return Err(ConfigError::Range { name, value, range });
            }
        }
        self.incremental.check()?;
        self.list_head_weights(schema)?;
        Users::new(schema, &self.user_weights)?;
        Weights::new(schema, &self.label_weights).map(drop)
    }

    /// Whether rows are grouped in lists.
    pub(crate) fn has_lists(&self) -> bool {
        self.list_weight > 0.0
    }

    /// For each head the weight of the list term.
    pub(crate) fn list_head_weights(&self, schema: &Schema) -> Result<Vec<f32>, ConfigError> {
        let unknown = |name: &&String| !schema.heads.iter().any(|h| h.name == **name);
        if let Some(head) = self.list_heads.iter().find(unknown) {
            return Err(ConfigError::UnknownHead { key: "list_heads", head: head.clone() });
        }
        let meant = |name: &String| self.list_heads.is_empty() || self.list_heads.contains(name);
        let weight = |name| if meant(name) { self.list_weight as f32 } else { 0.0 };
        Ok(schema.heads.iter().map(|h| weight(&h.name)).collect())
    }
}

fn positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
}

fn is_share(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::schema;

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
