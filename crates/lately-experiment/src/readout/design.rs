//! What is compared, of whom, and by which settings.

use lately_features::Schema;
use lately_features::schema::Polarity;
use serde::{Deserialize, Serialize};

/// Column of the items that were served.
pub(super) const IMPRESSIONS: &str = "impressions";
/// Column of the time spent, seconds.
pub(super) const SECONDS: &str = "seconds";
/// Most variants of an experiment.
const MAX_VARIANTS: usize = 64;

/// One variant.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its name in exposures.
    pub name: String,
    /// Planned share of people, in whatever unit.
    pub share: f64,
}

/// An experiment as it ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Its name in exposures.
    pub name: String,
    /// When it began, ms since 1970 UTC.
    pub start_ms: i64,
    /// When it ended; `None`: it runs.
    pub end_ms: Option<i64>,
    /// The control first.
    pub variants: Vec<Variant>,
    /// Where an exposure counts; empty: everywhere.
    pub surfaces: Vec<String>,
}

/// What a metric is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It decides.
    Primary,
    /// It must not get worse.
    Guardrail,
    /// It is looked at.
    Other,
}

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More of it.
    More,
    /// Less of it.
    Fewer,
    /// Neither.
    Neither,
}

/// A mean per person, or a ratio of two columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name, unique.
    pub name: String,
    /// Column of the numerator.
    pub of: String,
    /// Column of the denominator; `None`: per person.
    pub per: Option<String>,
    /// What it is for.
    pub role: Role,
    /// Which way is good.
    pub better: Better,
}

/// How an experiment is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Probability of an interval that misses. Default 0.05.
    pub alpha: f64,
    /// Wished probability of finding an effect. Default 0.8.
    pub power: f64,
    /// The relative effect that is hoped for: days to go are until it would be found. Default 0.02.
    pub wanted_lift: f64,
    /// Days that the experiment is meant to run: the sequential interval is narrowest then. Default 14.
    pub planned_days: u32,
    /// Days before the start in which people's past is summed. Default 14.
    pub pre_days: u32,
    /// Days before a first exposure that tell a person's segment, 1 to 63. Default 28.
    pub window_days: u32,
    /// Days of them on which a core person was active, at least. Default 8: two a week.
    pub core_days: u32,
    /// Days for which a person is new. Default 7.
    pub new_days: u32,
    /// Seconds between two events of a person that still are time spent. Default 300.
    pub gap_seconds: u32,
    /// The split is suspected below this p. Default 0.001.
    pub mismatch_p: f64,
    /// People a variant below which there is no sequential interval: it leans on the central limit theorem. Default 100.
    pub min_users: u64,
    /// People who are kept, 48 + 8 x columns bytes each and about 40 of the table; others are counted. Default 20,000,000.
    pub max_users: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            alpha: 0.05,
            power: 0.8,
            wanted_lift: 0.02,
            planned_days: 14,
            pre_days: 14,
            window_days: 28,
            core_days: 8,
            new_days: 7,
            gap_seconds: 300,
            mismatch_p: 0.001,
            min_users: 100,
            max_users: 20_000_000,
        }
    }
}

/// What is compared, of whom, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Design {
    /// The experiment.
    pub experiment: Experiment,
    /// What is summed for each person, in this order. A [`Readout`](super::Readout) knows each action of the schema by
    /// its name, `impressions` (items served) and `seconds` (time spent).
    pub columns: Vec<String>,
    /// What is compared.
    pub metrics: Vec<Metric>,
    /// How.
    pub settings: Settings,
}

/// Why a design is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DesignError {
    /// Too few or too many variants.
    #[error("experiment `{name}` has {got} variants: declare 2 to {MAX_VARIANTS}, the control first")]
    Variants {
        /// The experiment.
        name: String,
        /// Its variants.
        got: usize,
    },
    /// A share that is none.
    #[error("variant `{name}` has the share {share}: give each more than 0")]
    Share {
        /// The variant.
        name: String,
        /// Its share.
        share: f64,
    },
    /// Two things with one name.
    #[error("`{0}` is there twice: names of variants, columns and metrics are unique")]
    Twice(String),
    /// A metric of something that is not summed.
    #[error(
        "metric `{metric}` is of `{column}`, which is no column: {IMPRESSIONS}, {SECONDS} or an action of the schema"
    )]
    Column {
        /// The metric.
        metric: String,
        /// What it names.
        column: String,
    },
    /// A setting outside of its range.
    #[error("experiment setting `{name}` is {got}: {range}")]
    Setting {
        /// The key.
        name: &'static str,
        /// Its value.
        got: f64,
        /// What it may be.
        range: &'static str,
    },
}

impl Design {
    /// All metrics of a schema: each action per person and per impression, impressions, and time spent. The positive
    /// action of the highest priority per person is primary, negative ones are guardrails.
    pub fn new(experiment: Experiment, schema: &Schema, settings: Settings) -> Result<Self, DesignError> {
        let positive = schema.actions.iter().filter(|a| a.polarity == Polarity::Positive);
        let primary = positive.max_by_key(|a| a.priority).map(|a| a.name.as_str());
        let mut columns: Vec<String> = schema.actions.iter().map(|a| a.name.clone()).collect();
        columns.extend([IMPRESSIONS.to_owned(), SECONDS.to_owned()]);
        let mut metrics = Vec::new();
        for action in &schema.actions {
            let (role, better) = match action.polarity {
                Polarity::Positive if primary == Some(&action.name) => (Role::Primary, Better::More),
                Polarity::Positive => (Role::Other, Better::More),
                Polarity::Negative => (Role::Guardrail, Better::Fewer),
                Polarity::Neutral => (Role::Other, Better::Neither),
            };
            metrics.push(Metric::of(&action.name, None, role, better));
            metrics.push(Metric::of(&action.name, Some(IMPRESSIONS), Role::Other, better));
        }
        metrics.push(Metric::of(IMPRESSIONS, None, Role::Other, Better::Neither));
        metrics.push(Metric::of(SECONDS, None, Role::Other, Better::Neither));
        metrics.push(Metric::of(SECONDS, Some(IMPRESSIONS), Role::Other, Better::Neither));
        let design = Self { experiment, columns, metrics, settings };
        design.check()?;
        Ok(design)
    }

    /// Checks names, shares and settings; call it on a design that was made by hand.
    pub fn check(&self) -> Result<(), DesignError> {
        let variants = &self.experiment.variants;
        if !(2..=MAX_VARIANTS).contains(&variants.len()) {
            return Err(DesignError::Variants { name: self.experiment.name.clone(), got: variants.len() });
        }
        if let Some(v) = variants.iter().find(|v| !(v.share > 0.0 && v.share.is_finite())) {
            return Err(DesignError::Share { name: v.name.clone(), share: v.share });
        }
        unique(variants.iter().map(|v| &v.name))?;
        unique(self.columns.iter())?;
        unique(self.metrics.iter().map(|m| &m.name))?;
        for metric in &self.metrics {
            let named = std::iter::once(&metric.of).chain(&metric.per);
            if let Some(column) = named.into_iter().find(|c| self.column(c).is_none()) {
                return Err(DesignError::Column { metric: metric.name.clone(), column: column.clone() });
            }
        }
        self.settings.check()
    }

    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }
}

impl Metric {
    fn of(of: &str, per: Option<&str>, role: Role, better: Better) -> Self {
        let name = format!("{of}_per_{}", if per.is_some() { "impression" } else { "user" });
        Self { name, of: of.to_owned(), per: per.map(str::to_owned), role, better }
    }
}

impl Settings {
    /// Refuses a setting outside of its range.
    ///
    /// # Errors
    /// [`DesignError::Setting`].
    pub fn check(&self) -> Result<(), DesignError> {
        let chance = "a number between 0 and 1";
        let days = "1 to 63 days";
        let ranges = [
            ("alpha", self.alpha, 0.0 < self.alpha && self.alpha < 1.0, chance),
            ("power", self.power, 0.0 < self.power && self.power < 1.0, chance),
            ("mismatch_p", self.mismatch_p, 0.0 < self.mismatch_p && self.mismatch_p < 1.0, chance),
            (
                "wanted_lift",
                self.wanted_lift,
                self.wanted_lift > 0.0 && self.wanted_lift.is_finite(),
                "more than 0",
            ),
            ("planned_days", self.planned_days.into(), self.planned_days > 0, "at least 1 day"),
            ("window_days", self.window_days.into(), (1..64).contains(&self.window_days), days),
            (
                "core_days",
                self.core_days.into(),
                (1..=self.window_days).contains(&self.core_days),
                "1 to window_days",
            ),
            ("min_users", self.min_users as f64, self.min_users > 1, "at least 2 people"),
            ("max_users", self.max_users as f64, self.max_users > 0, "at least 1 person"),
        ];
        match ranges.into_iter().find(|(_, _, right, _)| !right) {
            Some((name, got, _, range)) => Err(DesignError::Setting { name, got, range }),
            None => Ok(()),
        }
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), DesignError> {
    let mut seen = std::collections::HashSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(DesignError::Twice(twice.clone())),
        None => Ok(()),
    }
}
