//! KuaiRand-Pure (<https://kuairand.com>), as the official archive has it or reduced to a window with its history.
//!
//! | file (plain or gzip) | holds |
//! | --- | --- |
//! | `impressions.csv`, or the official `log_standard_*_pure.csv` | one shown video a row, with flags |
//! | `history.csv` (the official archive has none: its rows before 25 April take its place) | the last impressions of a user before the window, `video[:L][V]`, oldest first |
//! | `user_features_pure.csv`, `video_features_basic_pure.csv` | features |
//!
//! `video_features_statistic_pure.csv` is never read: it averages over the whole month, so it knows the future.
//! `log_random_*_pure.csv` (videos shown at random) is read only where asked for.
//!
//! What is approximate: the rows of `history.csv` have an order, but only the last has a time; the others are set
//! 60 s apart before it, and a click without a long view is not recorded there.

mod emit;
mod features;
mod log;

use std::path::Path;

use lately_features::Schema;

use self::features::{ItemTable, UserTable};
use self::log::{History, Shown};
use super::table::{find, required};
use super::{ImportError, ImportReport};

/// Content of the `[schema]` table for this data.
pub const SCHEMA: &str = include_str!("kuairand.toml");

/// 25 April 2022 00:00 in Beijing, ms since 1970: the window starts, and what is known of items was learned before.
const WINDOW_START_MS: i64 = 1_650_816_000_000;

/// A data set that has been read and may be emitted.
pub struct KuaiRand {
    users: UserTable,
    items: ItemTable,
    history: Vec<History>,
    shown: Vec<Shown>,
    report: ImportReport,
}

/// What to read, and how much damage to bear.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bad rows that are tolerated.
    pub max_bad: u64,
    /// Also read the official log of videos shown at random.
    pub random: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_bad: super::DEFAULT_MAX_BAD, random: false }
    }
}

/// Reads all files of `dir`; fails where more rows are bad than `options` allow.
pub fn read(dir: &Path, options: Options) -> Result<KuaiRand, ImportError> {
    let mut report = ImportReport::default();
    let users = UserTable::read(&required(dir, &["user_features_pure.csv"])?, &mut report)?;
    let mut items = ItemTable::read(&required(dir, &["video_features_basic_pure.csv"])?, &mut report)?;
    let mut logs = log::Logs::default();
    if let Some(path) = find(dir, &["impressions.csv"]) {
        logs.read(&path, &mut items, &mut report)?;
        let path = required(dir, &["history.csv"])?;
        logs.read_history(&path, &mut items, &mut report)?;
    } else {
        let mut names = vec!["log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv"];
        if options.random {
            names.push("log_random_4_22_to_5_08_pure.csv");
        }
        for name in names {
            logs.read(&required(dir, &["impressions.csv", name])?, &mut items, &mut report)?;
        }
    }
    report.check(options.max_bad)?;
    let (history, shown) = logs.finish();
    report.users = users.len() as u64;
    report.items = items.len() as u64;
    report.impressions = shown.len() as u64;
    Ok(KuaiRand { users, items, history, shown, report })
}

impl KuaiRand {
    /// What was read.
    pub fn report(&self) -> &ImportReport {
        &self.report
    }

    /// The schema of the events.
    pub fn schema(&self) -> Result<Schema, ImportError> {
        Ok(Schema::from_toml(SCHEMA)?)
    }
}

#[cfg(test)]
mod tests;
