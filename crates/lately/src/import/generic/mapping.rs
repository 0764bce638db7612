//! What a mapping file says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lately_features::Schema;
use serde::Deserialize;

use super::super::ImportError;
use super::super::table::cut;

/// A mapping file. Every table is optional; an unknown key is refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Shown items, one a row.
    pub impressions: Option<Impressions>,
    /// Actions, one a row.
    pub actions: Option<Actions>,
    /// Items with their features.
    pub items: Option<Entities>,
    /// Users with their features.
    pub users: Option<Entities>,
}

/// How times are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Milliseconds since 1970 UTC.
    #[default]
    Ms,
    /// Seconds since 1970 UTC, with or without a fraction.
    S,
    /// As in `2026-01-31T12:00:00Z`.
    Rfc3339,
}

/// `[impressions]`: names of columns.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Impressions {
    /// File, relative to the mapping.
    pub file: PathBuf,
    /// Who saw it.
    pub user: String,
    /// What was shown.
    pub item: String,
    /// When.
    pub time: String,
    /// How `time` is written.
    #[serde(default)]
    pub time_unit: TimeUnit,
    /// Where.
    pub surface: Option<String>,
    /// Rows with the same value were shown together; without the column each row stands alone.
    pub request: Option<String>,
    /// Place in the list, from 0; without the column the order of the rows.
    pub position: Option<String>,
    /// Columns that are 1 or `true` where an action followed, and the action of the schema.
    #[serde(default)]
    pub flags: BTreeMap<String, String>,
    /// Actions that each row stands for, such as `seen`.
    #[serde(default)]
    pub always: Vec<String>,
}

/// `[actions]`: names of columns.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actions {
    /// File, relative to the mapping.
    pub file: PathBuf,
    /// Who.
    pub user: String,
    /// With what.
    pub item: String,
    /// When.
    pub time: String,
    /// How `time` is written.
    #[serde(default)]
    pub time_unit: TimeUnit,
    /// Which action.
    pub action: String,
    /// The data's names of actions and the schema's, where they differ.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// The request that showed the item; without the column an action joins the latest impression of its user and
    /// item within its attribution window.
    pub request: Option<String>,
    /// Where.
    pub surface: Option<String>,
    /// Unique id of the action; without the column the file's row is taken.
    pub id: Option<String>,
}

/// `[items]` or `[users]`: names of columns.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entities {
    /// File, relative to the mapping.
    pub file: PathBuf,
    /// The item or user.
    pub id: String,
    /// Since when the features hold; without the column from the start.
    pub time: Option<String>,
    /// How `time` is written.
    #[serde(default)]
    pub time_unit: TimeUnit,
    /// Features of the schema, and the columns that hold them.
    #[serde(default)]
    pub features: BTreeMap<String, String>,
    /// What stands between the values of one text cell. Default a comma.
    #[serde(default = "comma")]
    pub separator: char,
}

fn comma() -> char {
    ','
}

impl Mapping {
    /// Reads a mapping and checks its names against the schema.
    pub fn read(path: &Path, schema: &Schema) -> Result<Self, ImportError> {
        let refuse = |reason: String| ImportError::Mapping { file: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|source| ImportError::Read {
            file: path.to_owned(),
            line: 0,
            source,
        })?;
        let mapping: Self = toml::from_str(&text).map_err(|e| refuse(e.to_string()))?;
        mapping.check(schema).map_err(refuse)?;
        Ok(mapping)
    }

    fn check(&self, schema: &Schema) -> Result<(), String> {
        let shown = self.impressions.iter().flat_map(|i| i.flags.values().chain(&i.always));
        let acted = self.actions.iter().flat_map(|a| a.names.values());
        if let Some(name) = shown.chain(acted).find(|name| schema.action(name).is_none()) {
            return Err(format!("`{name}` is no action of the schema: declare it or correct the name"));
        }
        for (table, entities, kinds) in
            [("items", &self.items, &schema.item_features), ("users", &self.users, &schema.user_features)]
        {
            let mut names = entities.iter().flat_map(|e| e.features.keys());
            if let Some(name) = names.find(|name| !kinds.iter().any(|k| k.name() == *name)) {
                return Err(format!("[{table}] features: `{name}` is not in the schema: declare it there"));
            }
        }
        if self.impressions.is_none()
            && self.actions.is_none()
            && self.items.is_none()
            && self.users.is_none()
        {
            return Err("it names no file: add [impressions], [actions], [items] or [users]".to_owned());
        }
        Ok(())
    }
}

impl TimeUnit {
    /// Milliseconds since 1970 UTC.
    pub(super) fn parse(self, text: &str) -> Result<i64, String> {
        let wrong = |expected| format!("time is `{}`: expected {expected}", cut(text));
        match self {
            Self::Ms => text.parse().map_err(|_| wrong("ms since 1970; set time_unit if it is otherwise")),
            Self::S => {
                let seconds: f64 = text.parse().map_err(|_| wrong("seconds since 1970"))?;
                if !seconds.is_finite() || seconds.abs() > 1e12 {
                    return Err(wrong("seconds since 1970"));
                }
                Ok((seconds * 1000.0).round() as i64)
            }
            Self::Rfc3339 => {
                let time: Timestamp =
                    text.parse().map_err(|_| wrong("a time such as 2026-01-31T12:00:00Z"))?;
                Ok(time.as_millisecond())
            }
        }
    }
}
