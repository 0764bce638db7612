//! What a project declares in `lately.toml` under `[schema]`: its actions, heads, surfaces and features.
//!
//! Nothing in the code is tied to one data set; every index in sequences and batches is a position in this schema.
//! Its [hash](Schema::hash) is in every artifact and impression, so that a model never meets rows of another schema.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// Whether an action speaks for or against the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Polarity {
    /// Wanted: click, save.
    Positive,
    /// Unwanted: hide, report.
    Negative,
    /// Neither: seen.
    Neutral,
}

/// One type of action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionType {
    /// Name used in events, unique.
    pub name: String,
    /// For or against.
    pub polarity: Polarity,
    /// Whether it feeds the user sequence. Default true.
    #[serde(default = "yes")]
    pub sequence: bool,
    /// Of several actions on one item in one request, the highest priority gives the token its type. Default 0.
    #[serde(default)]
    pub priority: u8,
    /// How long after the impression it still counts as a label, seconds. Default 1,800.
    #[serde(default = "half_hour")]
    pub attribution_seconds: u32,
}

/// One probability that the model predicts: that any of `actions` follows the impression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Name, unique.
    pub name: String,
    /// The action types that make the label 1.
    pub actions: Vec<String>,
}

/// How a feature enters the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum FeatureKind {
    /// Text values, hashed into `buckets` rows of a trained table of width `dim`. Several values are averaged.
    Categorical {
        /// Feature name.
        name: String,
        /// Rows of the table; row 0 stands for a missing value. 2 to 16,777,216.
        buckets: u32,
        /// Width of the trained embedding. Default 8.
        #[serde(default = "eight")]
        dim: u16,
        /// Most values one item or user may have. Default 1.
        #[serde(default = "one")]
        max_values: u8,
        /// A bucket that fewer training rows hold is missing to the model, in training and serving: for ids. Default
        /// 0: all are known. It shapes no batch, so it is not in the schema's hash.
        #[serde(default, skip_serializing_if = "none")]
        min_count: u32,
    },
    /// A number; normalised by what training saw, a missing one becomes the mean.
    Numeric {
        /// Feature name.
        name: String,
        /// Take sign(x) ln(1 + |x|) first: for counts. Default false.
        #[serde(default)]
        log: bool,
    },
    /// A fixed vector given from outside.
    Embedding {
        /// Feature name.
        name: String,
        /// Its length.
        dim: u16,
    },
}

impl FeatureKind {
    /// The feature's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Categorical { name, .. } | Self::Numeric { name, .. } | Self::Embedding { name, .. } => {
                name
            }
        }
    }
}

/// Who counts as a core user: the rest are non-core, for whom the article reports the larger gain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreUsers {
    /// A categorical user feature.
    pub feature: String,
    /// Its values that make a user core.
    pub values: Vec<String>,
}

/// Bounds of a user sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceLimits {
    /// Tokens that the model sees, newest first. 1 to 1,024.
    pub length: u16,
    /// Actions kept for each user; more than `length`, as several actions can make one token. 1 to 16,384.
    pub stored: u16,
}

impl Default for SequenceLimits {
    fn default() -> Self {
        Self { length: 100, stored: 256 }
    }
}

/// The declaration of a project's data. Build one with [`Schema::from_toml`], which validates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Action types; a sequence stores positions in this list, so append, never reorder.
    pub actions: Vec<ActionType>,
    /// Predicted probabilities, in the order of the model's outputs.
    pub heads: Vec<Head>,
    /// Where lists are shown; an event may name one.
    #[serde(default)]
    pub surfaces: Vec<String>,
    /// Name of the item's `embedding` feature that stands for an item in the sequence and as candidate.
    pub item_embedding: String,
    /// Bounds of the user sequence.
    #[serde(default)]
    pub sequence: SequenceLimits,
    /// Features of users.
    #[serde(default)]
    pub user_features: Vec<FeatureKind>,
    /// Features of items.
    pub item_features: Vec<FeatureKind>,
    /// Who is a core user; absent: everybody.
    #[serde(default)]
    pub core_users: Option<CoreUsers>,
    /// Categorical item feature that names an item's topics (retrieval, spacing).
    #[serde(default)]
    pub topic_feature: Option<String>,
    /// Categorical user feature that names the topics a user follows.
    #[serde(default)]
    pub followed_feature: Option<String>,
}

/// Why a schema is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The text is not the expected TOML; the message names the key and line.
    #[error("schema: {0}")]
    Parse(String),
    /// A list that must not be empty is.
    #[error("schema: `{0}` is empty: declare at least one")]
    Empty(&'static str),
    /// Two entries share a name.
    #[error("schema: {list} holds `{name}` twice: names are unique")]
    Duplicate {
        /// The list.
        list: &'static str,
        /// The repeated name.
        name: String,
    },
    /// A name refers to nothing declared.
    #[error("schema: `{from}` names `{name}`, which is not among {list}")]
    Unknown {
        /// Where the name stands.
        from: String,
        /// The name.
        name: String,
        /// Where it was looked for.
        list: &'static str,
    },
    /// A number is outside its range.
    #[error("schema: `{name}` is {value}: it must be {range}")]
    Range {
        /// The key.
        name: String,
        /// Its value.
        value: u64,
        /// The allowed range in words.
        range: &'static str,
    },
}

impl Schema {
    /// Parses and validates the content of the `[schema]` table (without that header). Unknown keys are refused.
    pub fn from_toml(text: &str) -> Result<Self, SchemaError> {
        let schema: Self = toml::from_str(text).map_err(|e| SchemaError::Parse(e.to_string()))?;
        schema.validate()?;
        Ok(schema)
    }

    /// Checks names, references and ranges; call it on a schema that came by another way than [`Schema::from_toml`].
    pub fn validate(&self) -> Result<(), SchemaError> {
        for (list, n) in [
            ("actions", self.actions.len()),
            ("heads", self.heads.len()),
            ("item_features", self.item_features.len()),
        ] {
            if n == 0 {
                return Err(SchemaError::Empty(list));
            }
        }
        unique("actions", self.actions.iter().map(|a| a.name.as_str()))?;
        unique("heads", self.heads.iter().map(|h| h.name.as_str()))?;
        unique("surfaces", self.surfaces.iter().map(String::as_str))?;
        unique("user_features", self.user_features.iter().map(FeatureKind::name))?;
        unique("item_features", self.item_features.iter().map(FeatureKind::name))?;
        range("actions", self.actions.len() as u64, 1, 255, "1 to 255 types")?;
        range("heads", self.heads.len() as u64, 1, 64, "1 to 64")?;
        range("surfaces", self.surfaces.len() as u64, 0, 65_534, "at most 65,534")?;
        range("sequence.length", self.sequence.length.into(), 1, 1024, "1 to 1,024")?;
        let (length, stored) = (u64::from(self.sequence.length), u64::from(self.sequence.stored));
        range("sequence.stored", stored, length, 16_384, "from sequence.length to 16,384")?;
        for head in &self.heads {
            if head.actions.is_empty() {
                return Err(SchemaError::Empty("heads.actions"));
            }
            for name in &head.actions {
                self.action(name).ok_or_else(|| unknown(&head.name, name, "actions"))?;
            }
        }
        for feature in self.user_features.iter().chain(&self.item_features) {
            match feature {
                FeatureKind::Categorical { name, buckets, dim, max_values, .. } => {
                    range(name, (*buckets).into(), 2, 1 << 24, "2 to 16,777,216 buckets")?;
                    range(name, (*dim).into(), 1, 256, "1 to 256 wide")?;
                    range(name, (*max_values).into(), 1, 64, "1 to 64 values")?;
                }
                FeatureKind::Embedding { name, dim } => {
                    range(name, (*dim).into(), 1, 1024, "1 to 1,024 wide")?;
                }
                FeatureKind::Numeric { .. } => {}
            }
        }
        if self.item_embedding_dim() == 0 {
            return Err(unknown(
                "item_embedding",
                &self.item_embedding,
                "the item features of kind embedding",
            ));
        }
        let categorical = |list: &[FeatureKind], name: &str| {
            list.iter().any(|f| f.name() == name && matches!(f, FeatureKind::Categorical { .. }))
        };
        if let Some(core) = &self.core_users
            && !categorical(&self.user_features, &core.feature)
        {
            return Err(unknown("core_users", &core.feature, "the categorical user features"));
        }
        if let Some(name) = &self.topic_feature
            && !categorical(&self.item_features, name)
        {
            return Err(unknown("topic_feature", name, "the categorical item features"));
        }
        if let Some(name) = &self.followed_feature
            && !categorical(&self.user_features, name)
        {
            return Err(unknown("followed_feature", name, "the categorical user features"));
        }
        Ok(())
    }

    /// Position of an action type.
    pub fn action(&self, name: &str) -> Option<u8> {
        self.actions.iter().position(|a| a.name == name).map(|i| i as u8)
    }

    /// Position of a surface, plus 1; 0 means that none was named.
    pub fn surface(&self, name: &str) -> Option<u16> {
        self.surfaces.iter().position(|s| s == name).map(|i| i as u16 + 1)
    }

    /// Length of the item embedding that stands in the sequence; 0 only in a schema that is not valid.
    pub fn item_embedding_dim(&self) -> usize {
        self.item_features
            .iter()
            .find_map(|f| match f {
                FeatureKind::Embedding { name, dim } if *name == self.item_embedding => {
                    Some(usize::from(*dim))
                }
                _ => None,
            })
            .unwrap_or(0)
    }

    /// For each head a flag an action type: whether that action makes its label 1.
    pub fn head_labels(&self) -> Vec<Vec<bool>> {
        let of = |h: &Head| self.actions.iter().map(|a| h.actions.contains(&a.name)).collect();
        self.heads.iter().map(of).collect()
    }

    /// XXH3-128 of the canonical form, 32 hex digits: two schemas with the same hash give the same batches.
    pub fn hash(&self) -> String {
        let mut hasher = Xxh3Default::new();
        // postcard is canonical: fixed field order, no white space, no floats here.
        // It cannot fail on these types; if it ever did, two schemas must still not hash alike.
        let bytes =
            postcard::to_stdvec(&Canonical::from(self)).unwrap_or_else(|_| format!("{self:?}").into_bytes());
        hasher.update(&bytes);
        format!("{:032x}", hasher.digest128())
    }
}

/// The parts of the schema that shape a batch, in a form that postcard can write (it has no tagged enums).
#[derive(Serialize)]
struct Canonical<'a> {
    actions: Vec<(&'a str, u8, bool, u8, u32)>,
    heads: &'a [Head],
    surfaces: &'a [String],
    item_embedding: &'a str,
    sequence: (u16, u16),
    features: Vec<(bool, &'a str, u8, u32, u16, u8)>,
}

impl<'a> From<&'a Schema> for Canonical<'a> {
    fn from(s: &'a Schema) -> Self {
        let feature = |user: bool, f: &'a FeatureKind| match f {
            FeatureKind::Categorical { name, buckets, dim, max_values, .. } => {
                (user, name.as_str(), 0, *buckets, *dim, *max_values)
            }
            FeatureKind::Numeric { name, log } => (user, name.as_str(), 1, u32::from(*log), 0, 0),
            FeatureKind::Embedding { name, dim } => (user, name.as_str(), 2, 0, *dim, 0),
        };
        Self {
            actions: s
                .actions
                .iter()
                .map(|a| (a.name.as_str(), a.polarity as u8, a.sequence, a.priority, a.attribution_seconds))
                .collect(),
            heads: &s.heads,
            surfaces: &s.surfaces,
            item_embedding: &s.item_embedding,
            sequence: (s.sequence.length, s.sequence.stored),
            features: (s.user_features.iter().map(|f| feature(true, f)))
                .chain(s.item_features.iter().map(|f| feature(false, f)))
                .collect(),
        }
    }
}

/// Bucket of a categorical value: 1 to `buckets` - 1, as 0 stands for a missing value. By XXH3, stable for ever.
pub fn bucket(value: &str, buckets: u32) -> u32 {
    (xxh3_64(value.as_bytes()) % u64::from(buckets - 1)) as u32 + 1
}

fn unique<'a>(list: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), SchemaError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if name.is_empty() {
            return Err(SchemaError::Empty(list));
        }
        if !seen.insert(name) {
            return Err(SchemaError::Duplicate { list, name: name.to_owned() });
        }
    }
    Ok(())
}

fn unknown(from: &str, name: &str, list: &'static str) -> SchemaError {
    SchemaError::Unknown { from: from.to_owned(), name: name.to_owned(), list }
}

fn range(name: &str, value: u64, low: u64, high: u64, words: &'static str) -> Result<(), SchemaError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(SchemaError::Range { name: name.to_owned(), value, range: words })
}

fn yes() -> bool {
    true
}
fn half_hour() -> u32 {
    1_800
}
fn eight() -> u16 {
    8
}
fn one() -> u8 {
    1
}
fn none(count: &u32) -> bool {
    *count == 0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SMALL: &str = r#"
        item_embedding = "vector"
        surfaces = ["home", "related"]
        topic_feature = "topic"
        actions = [
            { name = "seen", polarity = "neutral" },
            { name = "click", polarity = "positive", priority = 1 },
            { name = "save", polarity = "positive", priority = 2 },
            { name = "hide", polarity = "negative", priority = 3 },
            { name = "share", polarity = "positive", sequence = false },
        ]
        heads = [{ name = "click", actions = ["click"] }, { name = "save", actions = ["save", "share"] }]
        sequence = { length = 4, stored = 8 }
        user_features = [{ kind = "categorical", name = "country", buckets = 16, dim = 2 }]
        item_features = [
            { kind = "embedding", name = "vector", dim = 2 },
            { kind = "categorical", name = "topic", buckets = 32, dim = 3, max_values = 2 },
            { kind = "numeric", name = "views", log = true },
        ]
    "#;

    #[test]
    fn reads_a_schema_and_finds_its_names() {
        let s = Schema::from_toml(SMALL).unwrap();
        assert_eq!(s.action("hide"), Some(3));
        assert_eq!(s.surface("related"), Some(2));
        assert_eq!(s.item_embedding_dim(), 2);
        assert_eq!(s.head_labels()[1], [false, false, true, false, true]);
    }

    #[test]
    fn refuses_what_is_unknown_twice_or_out_of_range() {
        let with =
            |from: &str, to: &str| Schema::from_toml(&SMALL.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(with("surfaces", "surfases").contains("surfases"));
        assert!(with("\"share\"]", "\"shared\"]").contains("`shared`, which is not among actions"));
        assert!(with("name = \"click\", pol", "name = \"seen\", pol").contains("`seen` twice"));
        assert!(with("buckets = 16", "buckets = 1").contains("2 to 16,777,216"));
        assert!(with("item_embedding = \"vector\"", "item_embedding = \"topic\"").contains("kind embedding"));
        assert!(with("stored = 8", "stored = 3").contains("sequence.stored"));
    }

    #[test]
    fn the_hash_changes_with_anything_that_shapes_a_batch() {
        let base = Schema::from_toml(SMALL).unwrap().hash();
        assert_eq!(base, Schema::from_toml(SMALL).unwrap().hash());
        for (from, to) in
            [("dim = 3", "dim = 4"), ("length = 4", "length = 5"), ("\"related\"", "\"search\"")]
        {
            assert_ne!(base, Schema::from_toml(&SMALL.replacen(from, to, 1)).unwrap().hash(), "{to}");
        }
    }

    #[test]
    fn buckets_leave_zero_for_missing() {
        assert!((0..1000).all(|i| (1..7).contains(&bucket(&i.to_string(), 7))));
    }
}
