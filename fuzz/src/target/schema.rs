//! The `[schema]` table that a project writes: [`lately_features::Schema::from_toml`].

use lately_features::{Assembler, Schema};

use super::{Target, Verdict};

pub(super) const TARGET: Target = Target {
    name: "schema",
    about: "the project's declaration: Schema::from_toml, its hash, its layout",
    seeds: || vec![EXAMPLE.into(), MINIMAL.into()],
    words: &[
        b"kind = \"numeric\"",
        b"[[item_features]]\n",
        b"\"\"",
        b"[[[[[[[[",
        b"-",
        b"99999999999999999999",
        b"core_users",
        b"max_values = 64",
        b"nan",
        b"\\u0000",
        b"'''",
    ],
    check,
};

/// A schema that uses every key.
pub(super) const EXAMPLE: &str = r#"
item_embedding = "vector"
surfaces = ["home", "related"]
topic_feature = "topic"
followed_feature = "follows"
core_users = { feature = "country", values = ["ch", "at"] }
actions = [
    { name = "seen", polarity = "neutral" },
    { name = "save", polarity = "positive", priority = 2, attribution_seconds = 3600 },
    { name = "hide", polarity = "negative", priority = 3, sequence = false },
]
heads = [{ name = "save", actions = ["save"] }, { name = "hide", actions = ["hide", "seen"] }]
sequence = { length = 4, stored = 8 }
user_features = [
    { kind = "categorical", name = "country", buckets = 16, dim = 2 },
    { kind = "categorical", name = "follows", buckets = 32, max_values = 8 },
]
item_features = [
    { kind = "embedding", name = "vector", dim = 2 },
    { kind = "categorical", name = "topic", buckets = 32, dim = 3, max_values = 2 },
    { kind = "numeric", name = "views", log = true },
]
"#;

/// A schema with nothing that may be left out.
pub(super) const MINIMAL: &str = r#"
item_embedding = "v"
actions = [{ name = "a", polarity = "positive" }]
heads = [{ name = "h", actions = ["a"] }]
item_features = [{ kind = "embedding", name = "v", dim = 1 }]
"#;

fn check(input: &[u8]) -> Verdict {
    let text = match std::str::from_utf8(input) {
        Ok(text) => text,
        Err(e) => return Verdict::refused(e),
    };
    let schema = match Schema::from_toml(text) {
        Ok(schema) => schema,
        Err(e) => return Verdict::refused(e),
    };
    let assembler = Assembler::new(&schema);
    assert!(schema.item_embedding_dim() > 0, "a valid schema has an item embedding");
    assert_eq!(schema.head_labels().len(), schema.heads.len(), "one list of labels a head");
    drop(assembler);
    for action in &schema.actions {
        assert!(schema.action(&action.name).is_some(), "every action has a position");
    }
    // An artifact carries the schema as JSON, and a project file as TOML: both must mean the same.
    let toml = toml::to_string(&schema).unwrap_or_else(|e| panic!("a valid schema cannot be written: {e}"));
    let json = serde_json::to_string(&schema).unwrap_or_else(|e| panic!("a valid schema has no JSON: {e}"));
    let from_toml = Schema::from_toml(&toml).unwrap_or_else(|e| panic!("its own TOML is refused: {e}"));
    let from_json: Schema =
        serde_json::from_str(&json).unwrap_or_else(|e| panic!("its own JSON is refused: {e}"));
    assert_eq!(from_toml, schema, "TOML changed the schema");
    assert_eq!(from_json.hash(), schema.hash(), "JSON changed the hash");
    Verdict::Accepted
}
