//! What an experiment is: variants, and what each overrides.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::RankConfig;
use crate::error::RankConfigError;

/// Longest name of an experiment, a layer or a variant, bytes.
const MAX_NAME: usize = 64;
/// Most variants of an experiment.
const MAX_VARIANTS: usize = 16;
/// The layer of an experiment that names none.
const LAYER: &str = "default";

/// What an experiment compares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentDefinition {
    /// Its name, of a-z, 0-9, `-` and `_`; also the salt of its variants.
    pub name: String,
    /// Nobody is in two experiments of one layer. Default `default`.
    #[serde(default = "default_layer")]
    pub layer: String,
    /// Share of the layer's people that it takes, 0 to 1. Default: all that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Surfaces on which it is; empty: all.
    #[serde(default)]
    pub surfaces: Vec<String>,
    /// The variants; the first one is the control.
    pub variants: Vec<VariantDefinition>,
    /// What is hoped for, for those who read it later.
    #[serde(default)]
    pub hypothesis: String,
}

fn default_layer() -> String {
    LAYER.to_owned()
}

/// One variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantDefinition {
    /// Its name, as an experiment's.
    pub name: String,
    /// Its share of the experiment's people; shares need not sum to 1. Default 1.
    #[serde(default = "one")]
    pub share: f64,
    /// What is different in it.
    #[serde(default)]
    pub overrides: Overrides,
}

fn one() -> f64 {
    1.0
}

/// What a variant has in the place of the configuration; of a table only the keys that are named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    /// Alias of the model that ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Keys of `[rank.value_model]`; `weights` as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_model: Option<Value>,
    /// Keys of `[rank.select]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<Value>,
    /// Keys of `[rank.retrieve]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrieve: Option<Value>,
    /// Keys of `[rank.explore]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explore: Option<Value>,
}

/// Why an experiment is refused.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// A name that is none.
    #[error(
        "`{0}` is not a name: use 1 to {MAX_NAME} of a-z, 0-9, `-` and `_`, beginning with a letter or a digit"
    )]
    Name(String),
    /// There is none of that name.
    #[error("there is no experiment `{0}`: declare it first, or look at the list")]
    Unknown(String),
    /// It has no such variant.
    #[error("the experiment `{experiment}` has no variant `{variant}`: it has {variants}")]
    UnknownVariant {
        /// The experiment.
        experiment: String,
        /// What was named.
        variant: String,
        /// What there is.
        variants: String,
    },
    /// The name is taken.
    #[error("there is an experiment `{0}` already, and it was started: choose another name")]
    Taken(String),
    /// Too few or too many variants, or two of one name.
    #[error("the experiment `{0}` needs 2 to {MAX_VARIANTS} variants of different names")]
    Variants(String),
    /// A share that is none.
    #[error(
        "the experiment `{experiment}`: the share of {what} is {share}: it must be above 0 and at most {most}"
    )]
    Share {
        /// The experiment.
        experiment: String,
        /// Of what.
        what: String,
        /// What was asked for.
        share: f64,
        /// The most it may be.
        most: f64,
    },
    /// The layer has not enough room.
    #[error(
        "the layer `{layer}` has no free stretch of {asked}, the largest one is {free:.4}: stop an experiment of it, take a \
         smaller share, or another layer"
    )]
    Full {
        /// The layer.
        layer: String,
        /// The share that was asked for.
        asked: f64,
        /// The largest free stretch.
        free: f64,
    },
    /// Two layers would override the same.
    #[error(
        "`{experiment}` overrides `{what}`, and so does `{other}`, which runs in the layer `{layer}`: put both into one layer"
    )]
    Overlap {
        /// The experiment.
        experiment: String,
        /// The other one.
        other: String,
        /// Its layer.
        layer: String,
        /// What both override.
        what: &'static str,
    },
    /// Not in this state.
    #[error("the experiment `{name}` is {state}: {hint}")]
    State {
        /// The experiment.
        name: String,
        /// Its state.
        state: &'static str,
        /// What can be done.
        hint: &'static str,
    },
    /// A surface that the schema does not have.
    #[error("the experiment `{experiment}` names the surface `{surface}`, which the schema does not have")]
    Surface {
        /// The experiment.
        experiment: String,
        /// The surface.
        surface: String,
    },
    /// An override that is none.
    #[error("the variant `{variant}` of `{experiment}`: {reason}")]
    Override {
        /// The experiment.
        experiment: String,
        /// The variant.
        variant: String,
        /// What is wrong.
        reason: String,
    },
}

impl ExperimentDefinition {
    /// Checks names and shares, without the rest of the book.
    pub(super) fn check(&self) -> Result<(), ExperimentError> {
        let names = self.variants.iter().map(|v| &v.name);
        for name in [&self.name, &self.layer].into_iter().chain(names.clone()) {
            check_name(name)?;
        }
        let different: std::collections::HashSet<_> = names.collect();
        if !(2..=MAX_VARIANTS).contains(&self.variants.len()) || different.len() != self.variants.len() {
            return Err(ExperimentError::Variants(self.name.clone()));
        }
        if let Some(share) = self.share {
            self.share_of("the layer", share, 1.0)?;
        }
        for variant in &self.variants {
            self.share_of(&format!("`{}`", variant.name), variant.share, 1e6)?;
        }
        Ok(())
    }

    /// Refuses what is not above 0 and at most `most`; not a number too.
    pub(super) fn share_of(&self, what: &str, share: f64, most: f64) -> Result<(), ExperimentError> {
        if share > 0.0 && share <= most {
            return Ok(());
        }
        Err(ExperimentError::Share { experiment: self.name.clone(), what: what.to_owned(), share, most })
    }

    /// What any variant overrides.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let any = |has: fn(&Overrides) -> bool| self.variants.iter().any(|v| has(&v.overrides));
        let all = [
            ("model", any(|o| o.model.is_some())),
            ("value_model", any(|o| o.value_model.is_some())),
            ("select", any(|o| o.select.is_some())),
            ("retrieve", any(|o| o.retrieve.is_some())),
            ("explore", any(|o| o.explore.is_some())),
        ];
        all.into_iter().filter(|(_, any)| *any).map(|(kind, _)| kind)
    }
}

fn check_name(name: &str) -> Result<(), ExperimentError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.len() <= MAX_NAME && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(ExperimentError::Name(name.to_owned()))
}

impl Overrides {
    /// The configuration with the named keys in the place of its own.
    pub(super) fn over(&self, config: &RankConfig) -> Result<RankConfig, String> {
        let mut whole = serde_json::to_value(config).map_err(|e| e.to_string())?;
        let parts = [
            ("value_model", &self.value_model),
            ("select", &self.select),
            ("retrieve", &self.retrieve),
            ("explore", &self.explore),
        ];
        for (part, change) in parts {
            let Some(change) = change else { continue };
            let (Some(keys), Some(table)) = (change.as_object(), whole[part].as_object_mut()) else {
                return Err(format!("`{part}` must be a table"));
            };
            table.extend(keys.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        let config: RankConfig = serde_json::from_value(whole).map_err(|e| e.to_string())?;
        config.check().map_err(|e: RankConfigError| e.to_string())?;
        Ok(config)
    }
}
