//! What is compared: a TOML file with a table a configuration, each an overlay of the data directory's `[model]` and
//! `[train]`. Some files are in the binary.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use lately_features::Schema;
use lately_model::{Model, ModelConfig};
use lately_train::TrainConfig;
use lately_train::ablation::Claim;
use lately_train::eval::Group;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;

/// The suites of the binary.
pub const NAMED: [(&str, &str); 3] = [
    ("paper", include_str!("suites/paper.toml")),
    ("outputs", include_str!("suites/outputs.toml")),
    ("order", include_str!("suites/order.toml")),
];

/// Keys and values that replace those of a section.
pub type Overlay = serde_json::Map<String, Value>;

/// A set of configurations.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// What it is about.
    pub title: String,
    /// Where the figures under `paper` are from.
    #[serde(default)]
    pub source: String,
    /// The configuration that the others are compared with.
    pub baseline: String,
    /// Overlay of `[model]` for all.
    #[serde(default)]
    pub model: Overlay,
    /// Overlay of `[train]` for all.
    #[serde(default)]
    pub train: Overlay,
    /// In the order of the table.
    pub configurations: Vec<Configuration>,
}

/// One configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Name in the table, unique.
    pub name: String,
    /// Overlay of `[model]`, over the suite's.
    #[serde(default)]
    pub model: Overlay,
    /// Overlay of `[train]`, over the suite's.
    #[serde(default)]
    pub train: Overlay,
    /// By head, a paper's lift of HIT@3 over its baseline in percent, or `n.s.`. Heads that the schema lacks are
    /// skipped.
    #[serde(default)]
    pub paper: BTreeMap<String, Claim>,
    /// The same for non-core users.
    #[serde(default)]
    pub paper_non_core: BTreeMap<String, Claim>,
}

/// A configuration that is ready to be trained.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name in the table.
    pub name: String,
    /// Shape of the model.
    pub model: ModelConfig,
    /// Settings; the seed is the first of several.
    pub train: TrainConfig,
    /// By group, the paper's figures for heads of the schema.
    pub claims: Vec<(Group, BTreeMap<String, Claim>)>,
}

impl Suite {
    /// Reads a suite of the binary by its name, or a file.
    pub fn read(what: &str) -> Result<Self> {
        if let Some((_, text)) = NAMED.iter().find(|(name, _)| *name == what) {
            return Self::parse(text).with_context(|| format!("suite `{what}`"));
        }
        let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
        let text = std::fs::read_to_string(Path::new(what)).with_context(|| {
            format!("`{what}` is neither a suite of this program ({}) nor a readable file", names.join(", "))
        })?;
        Self::parse(&text).with_context(|| what.to_owned())
    }

    fn parse(text: &str) -> Result<Self> {
        let suite: Self = toml::from_str(text)?;
        let names: Vec<&str> = suite.configurations.iter().map(|c| c.name.as_str()).collect();
        if let Some((_, twice)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            bail!("two configurations are named `{twice}`: rename one");
        }
        suite.position(&suite.baseline)?;
        Ok(suite)
    }

    /// Position of a configuration.
    pub fn position(&self, name: &str) -> Result<usize> {
        self.configurations.iter().position(|c| c.name == name).with_context(|| {
            let names: Vec<&str> = self.configurations.iter().map(|c| c.name.as_str()).collect();
            format!("there is no configuration `{name}` to compare with: take one of {}", names.join(", "))
        })
    }

    /// Lays the overlays over a data directory's configuration. All are checked before anything is trained.
    pub fn entries(&self, config: &Config) -> Result<Vec<Entry>> {
        self.configurations
            .iter()
            .map(|c| self.entry(c, config).with_context(|| format!("configuration `{}`", c.name)))
            .collect()
    }

    fn entry(&self, configuration: &Configuration, config: &Config) -> Result<Entry> {
        let model: ModelConfig =
            overlaid(&config.model, [&self.model, &configuration.model]).context("[model]")?;
        let mut train: TrainConfig =
            overlaid(&config.train, [&self.train, &configuration.train]).context("[train]")?;
        train.zone = config.train.zone.clone(); // no key of its own, so the overlay loses it
        train.validate(&config.schema)?;
        Model::new(model.clone(), &config.schema, train.seed)?;
        let claims = [(Group::All, &configuration.paper), (Group::NonCore, &configuration.paper_non_core)];
        Ok(Entry {
            name: configuration.name.clone(),
            model,
            train,
            claims: claims.map(|(group, claims)| (group, known(claims, &config.schema))).into(),
        })
    }
}

/// The claims on heads that the schema has.
fn known(claims: &BTreeMap<String, Claim>, schema: &Schema) -> BTreeMap<String, Claim> {
    let has = |head: &str| schema.heads.iter().any(|h| h.name == head);
    claims.iter().filter(|(head, _)| has(head)).map(|(head, claim)| (head.clone(), *claim)).collect()
}

/// A section with overlays laid over it, one after the other; the section's type refuses unknown keys.
fn overlaid<T: Serialize + DeserializeOwned>(section: &T, overlays: [&Overlay; 2]) -> Result<T> {
    let mut value = serde_json::to_value(section)?;
    for overlay in overlays {
        lay(&mut value, &Value::Object(overlay.clone()));
    }
    Ok(serde_json::from_value(value)?)
}

/// Tables are merged, all else is replaced.
fn lay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::demo_toml;

    fn config() -> Config {
        Config::parse(&demo_toml(), Path::new("lately.toml")).unwrap()
    }

    fn suite(configurations: &str) -> Result<Suite> {
        Suite::parse(&format!(
            "title = \"t\"\nbaseline = \"none\"\nmodel = {{ affinity = false }}\n\
             [[configurations]]\nname = \"none\"\nmodel = {{ encoder = \"none\" }}\n{configurations}"
        ))
    }

    #[test]
    fn overlays_replace_single_keys_of_the_data_directory() {
        let config = config();
        let text = "[[configurations]]\nname = \"one\"\nmodel = { layers = 1 }\n\
                    train = { label_weights = { save = { save = 3.0 } } }\n\
                    paper = { save = 9.4, pin = 2.0 }\npaper_non_core = { hide = \"n.s.\" }\n";
        let entries = suite(text).unwrap().entries(&config).unwrap();
        let [none, one] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!(none.model, ModelConfig { affinity: false, ..none.model.clone() });
        assert_eq!(one.model, ModelConfig { affinity: false, layers: 1, ..config.model.clone() });
        assert_eq!(one.train.label_weights["save"]["save"], 3.0);
        assert_eq!(TrainConfig { label_weights: Default::default(), ..one.train.clone() }, config.train);
        let heads: Vec<Vec<&String>> = one.claims.iter().map(|(_, c)| c.keys().collect()).collect();
        assert_eq!(heads, [["save"], ["hide"]], "the schema has no head `pin`");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |text: &str| {
            let entries = suite(text).and_then(|s| s.entries(&config()));
            format!("{:#}", entries.unwrap_err())
        };
        let named = |table: &str| format!("[[configurations]]\nname = \"one\"\n{table}\n");
        let unknown = refused(&named("model = { layer = 1 }"));
        assert!(unknown.contains("`one`: [model]: unknown field `layer`"), "{unknown}");
        assert!(refused(&named("train = { epochs = 0 }")).contains("`epochs` is 0"));
        assert!(refused(&named("model = { layers = 0 }")).contains("layers"));
        assert!(refused(&named("trains = {}")).contains("trains"));
        assert!(refused("[[configurations]]\nname = \"none\"").contains("two configurations"));
        assert!(format!("{:#}", Suite::read("papers").unwrap_err()).contains("paper, outputs, order"));
    }

    #[test]
    fn the_suites_of_the_binary_are_well_formed() {
        for (name, _) in NAMED {
            let suite = Suite::read(name).unwrap();
            assert!(suite.configurations.len() > 3, "{name}");
            assert!(suite.position("transact").is_ok(), "{name}");
            assert!(suite.position("absent").is_err());
            suite.entries(&config()).unwrap();
        }
    }
}
