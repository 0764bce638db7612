//! Geometries to measure: what a made data directory declares, as the text of its `lately.toml`.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use lately_features::Schema;
use lately_model::ModelConfig;
use serde::Serialize;
use toml::{Table, Value};

/// Of `paper`, that of the PyTorch module with which scoring is compared: 1,456 inputs of the cross layers before those
/// that are Lately's own.
const PAPER_ACTIONS: usize = 20;
const PAPER_NUMBERS: usize = 400;
const PAPER_HEADS: usize = 4;

/// Settings under load. No ranking is put on a rung on purpose: probes of swaps compare scores, and a good answer is one
/// without a rung. Models of random weights have nothing in common: none is taken back. The first of Zipf's users asks for a tenth of all: no rate of one user is capped.
const LOADED: &str = "rank.exercise_share = 0.0\nrank.guardrails.enabled = false\nserve.limits.user_rankings = 0\nserve.limits.user_actions = 0\n";

/// A geometry by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The paper's: 32-wide items with 400 further numbers, 20 action types, 100 tokens, the first 10 given on.
    Paper,
    /// A schema like that of config/lately.toml with 32-wide items, 100 tokens, the default model.
    Default,
    /// The same parts, small: 8-wide items, 20 tokens, narrow layers. To try a run out.
    Nano,
}

impl Preset {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Default => "default",
            Self::Nano => "nano",
        }
    }

    /// Its `lately.toml`; `set` are lines `KEY=VALUE` of TOML that go over it, such as `rank.precision="bf16"`.
    pub fn toml(self, set: &[String]) -> Result<String> {
        let mut table = Table::new();
        table.insert("model".to_owned(), Value::try_from(self.model())?);
        table.insert("schema".to_owned(), Value::try_from(self.schema()?)?);
        merge(&mut table, LOADED.parse()?);
        apply(table, set)
    }

    fn model(self) -> ModelConfig {
        match self {
            Self::Paper => ModelConfig::paper(),
            Self::Default => ModelConfig::default(),
            Self::Nano => ModelConfig {
                cross_width: 16,
                hidden: vec![16],
                ffn: 8,
                action_dim: 8,
                ..ModelConfig::default()
            },
        }
    }

    fn schema(self) -> Result<Schema> {
        let default = include_str!("presets/default.toml");
        Ok(match self {
            Self::Paper => Schema::from_toml(&paper())?,
            Self::Default => Schema::from_toml(default)?,
            Self::Nano => Schema::from_toml(
                &default
                    .replace("length = 100, stored = 256", "length = 20, stored = 40")
                    .replace(r#"name = "vector", dim = 32"#, r#"name = "vector", dim = 8"#),
            )?,
        })
    }
}

/// A `lately.toml` with lines `KEY=VALUE` over it.
pub(crate) fn apply(mut toml: Table, set: &[String]) -> Result<String> {
    for line in set {
        merge(&mut toml, parse(line)?);
    }
    Ok(toml::to_string(&toml)?)
}

fn paper() -> String {
    let list = |n: usize, one: fn(usize) -> String| (0..n).map(one).collect::<Vec<_>>().join(", ");
    format!(
        "item_embedding = \"vector\"\nactions = [{}]\nheads = [{}]\nitem_features = [\
         {{ kind = \"embedding\", name = \"vector\", dim = 32 }}, {}]",
        list(PAPER_ACTIONS, |i| format!(r#"{{ name = "a{i}", polarity = "positive" }}"#)),
        list(PAPER_HEADS, |i| format!(r#"{{ name = "h{i}", actions = ["a{i}"] }}"#)),
        list(PAPER_NUMBERS, |i| format!(r#"{{ kind = "numeric", name = "n{i}" }}"#)),
    )
}

/// One line of TOML; a value without quotes that is nothing else is taken as text, as shells take quotes away.
fn parse(line: &str) -> Result<Table> {
    if let Ok(table) = line.parse() {
        return Ok(table);
    }
    let Some((key, value)) = line.split_once('=') else { bail!("`{line}` is no KEY=VALUE") };
    let quoted = format!("{key}={}", Value::String(value.trim().to_owned()));
    quoted.parse().with_context(|| format!("`{line}` is no KEY=VALUE"))
}

/// Puts `over` over `under`, table by table.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lately_model::Model;
    use lately_rank::RankPrecision;

    use super::*;
    use crate::config::Config;

    fn config(preset: Preset, set: &[&str]) -> Result<Config> {
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        Ok(Config::parse(&preset.toml(&set)?, Path::new("lately.toml"))?)
    }

    #[test]
    fn every_preset_is_a_configuration_of_the_geometry_that_it_names() {
        for preset in [Preset::Paper, Preset::Default, Preset::Nano] {
            let config = config(preset, &[]).unwrap();
            let (tokens, width) = if preset == Preset::Nano { (20, 8) } else { (100, 32) };
            assert_eq!(usize::from(config.schema.sequence.length), tokens, "{preset:?}");
            assert_eq!(lately_features::batch::Layout::item_embedding(&config.schema).1, width, "{preset:?}");
            assert_eq!(config.model, preset.model());
            Model::new(config.model, &config.schema, 1).unwrap();
        }
        assert_eq!(config(Preset::Paper, &[]).unwrap().model, ModelConfig::paper());
    }

    #[test]
    fn settings_go_over_it_and_unknown_ones_are_refused() {
        let set = ["rank.precision=bf16", "rank.threads = 3", "schema.sequence.length=46"];
        let config = config(Preset::Default, &set).unwrap();
        assert_eq!((config.rank.precision, config.rank.threads), (RankPrecision::Bf16, 3));
        let sequence = config.schema.sequence;
        assert_eq!((sequence.length, sequence.stored), (46, 256), "its neighbour stays");
        assert!(super::tests::config(Preset::Nano, &["rank.treads=3"]).is_err());
        assert!(Preset::Nano.toml(&["rank".to_owned()]).unwrap_err().to_string().contains("KEY=VALUE"));
    }
}
