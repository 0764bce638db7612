//! `lately doctor`: one page on how a data directory is, what is wrong, and what to do about it.
//!
//! It changes nothing: what is not there is not made. It works on a directory that a server has open, on one without a
//! model, without a log, and without anything. `directory` looks at configuration, disk and model, `log` at what came and
//! what was served, `page` writes it down; what the log is held against is in [`crate::watch`].

mod directory;
mod log;
mod page;

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::data_dir::DataDir;
use crate::log_source::Log;
use crate::watch::{Asked, Findings, WatchConfig, WatchReport, look};
use crate::wire_up::now_ms;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and will not for long, or not well.
    Warn,
    /// It does not work.
    Fail,
}

/// One line of the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub todo: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), todo: String::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, found: found.into(), todo: todo.into() }
    }

    fn fail(name: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { name, status: Status::Fail, found: found.into(), todo: todo.into() }
    }

    /// Ok, or a warning.
    fn ok_if(ok: bool, name: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        if ok { Self::ok(name, found) } else { Self::warn(name, found, todo) }
    }
}

/// The page.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// When, ms since 1970 UTC.
    pub time_ms: i64,
    /// All checks, in the order of the page.
    pub checks: Vec<Check>,
    /// What was found in the log, with its bounds; `None` where it cannot be read.
    pub log: Option<WatchReport>,
    /// The directory, where its configuration can be read.
    #[serde(skip)]
    dir: Option<DataDir>,
}

impl Diagnosis {
    /// Checks of a status.
    pub fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|c| c.status == status).count()
    }
}

/// Looks at a directory; `hours` and `requests` replace those of its `[watch]`.
pub fn examine(path: &Path, hours: Option<u32>, requests: usize) -> Diagnosis {
    let mut page = Diagnosis { time_ms: now_ms(), checks: Vec::new(), log: None, dir: None };
    let dir = match DataDir::open(path) {
        Ok(dir) => dir,
        Err(error) => {
            let todo = "correct the file, or make a directory with `lately import` or `lately demo --dir`";
            page.checks.push(Check::fail("configuration", format!("{error:#}"), todo));
            return page;
        }
    };
    page.checks.push(directory::configuration(&dir));
    page.checks.extend(directory::disk(&dir));
    page.checks.extend(directory::model(&dir));
    let config = WatchConfig {
        hours: hours.unwrap_or(dir.config.watch.hours),
        replay_requests: requests,
        ..dir.config.watch.clone()
    };
    let (checks, report) = read_log(&dir, &config, page.time_ms);
    page.checks.extend(checks);
    page.log = report;
    page.dir = Some(dir);
    page
}

fn read_log(dir: &DataDir, config: &WatchConfig, now_ms: i64) -> (Vec<Check>, Option<WatchReport>) {
    if !dir.path.join("store").exists() {
        let todo = "bring data in with `lately import`, or start `lately serve` and send events";
        return (vec![Check::warn("log", "there is no log yet", todo)], None);
    }
    let source = match Log::open(dir) {
        Ok(source) => source,
        Err(error) => {
            let todo =
                "restore a copy of the directory, or stop the process that holds it; docs/operations.md";
            return (vec![Check::fail("log", format!("{error:#}"), todo)], None);
        }
    };
    match findings(dir, &source, config, now_ms) {
        Ok(findings) => {
            let report = WatchReport { findings, config: config.clone() };
            (log::checks(&report, &source, now_ms, dir), Some(report))
        }
        Err(error) => {
            let todo = "restore a copy of what is named; while a server has it open: is that server well?";
            (vec![Check::fail("log", format!("{error:#}"), todo)], None)
        }
    }
}

/// The window ends with the newest record, so that imported data is looked at in its own time.
fn findings(dir: &DataDir, source: &Log, config: &WatchConfig, now_ms: i64) -> Result<Findings> {
    let mut newest = i64::MIN;
    source.each(&mut |_, event| {
        newest = newest.max(event.time_ms().min(now_ms));
        Ok(())
    })?;
    // Opening a registry makes it.
    let registry = dir.path.join("registry").exists().then(|| dir.registry()).transpose()?;
    let asked = Asked::new(dir, registry.as_ref(), config, newest.max(0));
    look(&asked, &mut |on_record| source.each(on_record))
}
