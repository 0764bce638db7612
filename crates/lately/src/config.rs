//! `lately.toml`: the only place where configuration is read. Unknown keys are refused, every section but `[schema]`
//! has defaults; `config/lately.toml` in the repository lists them all with comments.

use std::fs;
use std::path::{Path, PathBuf};

use lately_experiment::{DesignError, Settings};
use lately_features::{Schema, SchemaError};
use lately_model::ModelConfig;
use lately_rank::RankConfig;
use lately_rank::experiment::ExperimentDefinition;
use lately_server::{LimitError, Limits};
use lately_store::StoreLimits;
use lately_store::registry::Garbage;
use lately_train::TrainConfig;
use lately_train::dates::{DateError, Zone};
use lately_train::gate::{GateConfig, GateError};
use lately_train::lake::{LakeConfig, LakeConfigError};
use serde::{Deserialize, Serialize};

use crate::retrain::{RetrainConfig, RetrainConfigError};
use crate::watch::{WatchConfig, WatchConfigError};

/// Everything a project configures.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The project's own actions, heads, surfaces and features.
    pub schema: Schema,
    /// About the data as a whole.
    #[serde(default)]
    pub data: DataConfig,
    /// Shape of the ranking model.
    #[serde(default)]
    pub model: ModelConfig,
    /// How it is trained.
    #[serde(default)]
    pub train: TrainConfig,
    /// The request path, with the value model.
    #[serde(default)]
    pub rank: RankConfig,
    /// When a canary's challenger becomes the champion.
    #[serde(default)]
    pub canary: CanaryConfig,
    /// Limits of the embedded store.
    #[serde(default)]
    pub store: StoreLimits,
    /// Where the models are kept.
    #[serde(default)]
    pub registry: RegistryConfig,
    /// Where to listen.
    #[serde(default)]
    pub serve: ServeConfig,
    /// Where and how the log is joined with what followed.
    #[serde(default)]
    pub lake: LakeConfig,
    /// When and how a model is retrained.
    #[serde(default)]
    pub retrain: RetrainConfig,
    /// What a retrained model must hold.
    #[serde(default)]
    pub gate: GateConfig,
    /// What is looked for in the log.
    #[serde(default)]
    pub watch: WatchConfig,
    /// What is compared between people.
    #[serde(default)]
    pub experiments: ExperimentsConfig,
}

/// What is compared between people.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExperimentsConfig {
    /// Experiments that a server declares when it starts, where the book has them not; they are started by hand.
    pub declare: Vec<ExperimentDefinition>,
    /// How the log is read into their reports.
    pub readout: Settings,
}

/// About the data as a whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Name of the time zone whose calendar days `--from` and `--to` mean.
    pub time_zone: String,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { time_zone: "UTC".to_owned() }
    }
}

/// Where the models are kept, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// A path, from the data directory on, or `file://PATH`, or `s3://BUCKET/PREFIX`.
    pub uri: String,
    /// Newest versions that garbage collection keeps whatever names them.
    pub keep: usize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self { uri: "registry".to_owned(), keep: Garbage::default().keep }
    }
}

/// When the challenger of a canary becomes the champion by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryConfig {
    /// Whether it does. Default false.
    pub promote: bool,
    /// How long no guardrail must have been breached, minutes. Default 30.
    pub minutes: u64,
    /// How many rankings it must have made. Default 10,000.
    pub rankings: u64,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self { promote: false, minutes: 30, rankings: 10_000 }
    }
}

/// Where to listen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeConfig {
    /// Data port: events, rank, feed, items, users.
    pub bind: String,
    /// Admin port: metrics, model reload.
    pub admin_bind: String,
    /// Seconds between looks at the registry for a new champion.
    pub registry_poll_seconds: u64,
    /// Limits of the doors.
    pub limits: Limits,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:7000".to_owned(),
            admin_bind: "127.0.0.1:7001".to_owned(),
            registry_poll_seconds: 2,
            limits: Limits::default(),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}; `lately import` writes one, or copy config/lately.toml")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not the expected TOML.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Key and line.
        message: String,
    },
    /// A value is out of range or names nothing.
    #[error("{path}: {source}")]
    Schema {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SchemaError,
    },
    /// A limit of the doors is out of range.
    #[error("{path}: {source}")]
    Limit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: LimitError,
    },
    /// A setting of the retraining is out of range.
    #[error("{path}: {source}")]
    Retrain {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: RetrainConfigError,
    },
    /// A bound of the gate is out of range.
    #[error("{path}: {source}")]
    Gate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: GateError,
    },
    /// A bound of the watch is out of range.
    #[error("{path}: {source}")]
    Watch {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: WatchConfigError,
    },
    /// A setting of the lake is out of range.
    #[error("{path}: {source}")]
    Lake {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: LakeConfigError,
    },
    /// A setting of the reports of experiments is out of range.
    #[error("{path}: [experiments.readout]: {source}")]
    Readout {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DesignError,
    },
    /// There is no such time zone.
    #[error("{path}: [data] time_zone: {source}")]
    Zone {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DateError,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Parses and checks a text; `path` is named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text)
            .map_err(|e| ConfigError::Parse { path: path.to_owned(), message: e.to_string() })?;
        config.schema.validate().map_err(|source| ConfigError::Schema { path: path.to_owned(), source })?;
        config.serve.limits.check().map_err(|source| ConfigError::Limit { path: path.to_owned(), source })?;
        config.retrain.check().map_err(|source| ConfigError::Retrain { path: path.to_owned(), source })?;
        config.gate.check().map_err(|source| ConfigError::Gate { path: path.to_owned(), source })?;
        config.watch.check().map_err(|source| ConfigError::Watch { path: path.to_owned(), source })?;
        config.lake.check().map_err(|source| ConfigError::Lake { path: path.to_owned(), source })?;
        let readout = &config.experiments.readout;
        readout.check().map_err(|source| ConfigError::Readout { path: path.to_owned(), source })?;
        config.train.zone = Zone::named(&config.data.time_zone)
            .map_err(|source| ConfigError::Zone { path: path.to_owned(), source })?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of `all` that `given` lacks.
    fn missing(all: &toml::Table, given: &toml::Table, path: &str, out: &mut Vec<String>) {
        for (key, value) in all {
            let path = format!("{path}.{key}");
            match (value, given.get(key)) {
                (_, None) => out.push(path),
                (toml::Value::Table(all), Some(toml::Value::Table(given))) => missing(all, given, &path, out),
                _ => {}
            }
        }
    }

    /// `config/lately.toml` is the documentation of all keys.
    #[test]
    fn the_documented_file_names_every_key_of_rank_lake_serve_and_watch_with_its_default() {
        let text = include_str!("../../../config/lately.toml");
        let config = Config::parse(text, Path::new("config/lately.toml")).unwrap();
        assert_eq!(config.rank, RankConfig::default());
        assert_eq!(config.serve.limits, Limits::default());
        assert_eq!(config.canary, CanaryConfig::default());
        assert_eq!(config.watch, WatchConfig::default());
        assert_eq!(config.lake, LakeConfig::default());
        let named: toml::Table = text.parse().unwrap();
        let mut lacks = Vec::new();
        let mut every = |section: &toml::Value, all: toml::Table, name: &str| {
            missing(&all, section.as_table().unwrap(), name, &mut lacks);
        };
        every(&named["rank"], toml::Table::try_from(RankConfig::default()).unwrap(), "rank");
        assert_eq!(config.registry, RegistryConfig::default());
        every(&named["registry"], toml::Table::try_from(RegistryConfig::default()).unwrap(), "registry");
        every(&named["lake"], toml::Table::try_from(LakeConfig::default()).unwrap(), "lake");
        every(&named["serve"]["limits"], toml::Table::try_from(Limits::default()).unwrap(), "serve.limits");
        assert_eq!(config.experiments, ExperimentsConfig::default());
        let readout = toml::Table::try_from(Settings::default()).unwrap();
        every(&named["experiments"]["readout"], readout, "experiments.readout");
        every(&named["canary"], toml::Table::try_from(CanaryConfig::default()).unwrap(), "canary");
        every(&named["watch"], toml::Table::try_from(WatchConfig::default()).unwrap(), "watch");
        assert_eq!(lacks, [] as [&str; 0]);
    }

    #[test]
    fn limits_out_of_range_are_refused_by_name() {
        let text =
            include_str!("../../../config/lately.toml").replace("rankings_min = 4 ", "rankings_min = 999 ");
        let refused = Config::parse(&text, Path::new("x.toml")).unwrap_err().to_string();
        assert!(
            refused.contains("x.toml: [serve.limits] rankings_min is 999: it must be 1 to 256"),
            "{refused}"
        );
        let text = include_str!("../../../config/lately.toml").replace("psi = 0.25 ", "psi = 0.0 ");
        let refused = Config::parse(&text, Path::new("x.toml")).unwrap_err().to_string();
        assert_eq!(refused, "x.toml: [watch] psi is 0: it must be above 0");
        let text = include_str!("../../../config/lately.toml").replace("core_days = 8 ", "core_days = 29 ");
        let refused = Config::parse(&text, Path::new("x.toml")).unwrap_err().to_string();
        let said = "x.toml: [experiments.readout]: experiment setting `core_days` is 29: 1 to window_days";
        assert_eq!(refused, said);
    }
}
