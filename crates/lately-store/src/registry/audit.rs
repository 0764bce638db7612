//! What was changed in the registry and when: JSON lines, appended and synced.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::files::{at, read as read_file};
use super::{RegistryError, Version};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When, ms since 1970 UTC.
    pub time_ms: i64,
    /// What.
    #[serde(flatten)]
    pub change: Change,
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum Change {
    /// A version was published.
    Publish {
        /// Which.
        version: Version,
    },
    /// An alias was pointed elsewhere.
    Alias {
        /// Which alias.
        alias: String,
        /// Where it pointed before.
        from: Option<Version>,
        /// Where it points now.
        to: Version,
    },
    /// An alias was pointed back at what it had named before.
    Rollback {
        /// Which alias.
        alias: String,
        /// Where it pointed before the rollback.
        from: Version,
        /// Where it points again.
        to: Version,
    },
    /// An alias was taken away.
    Unalias {
        /// Which alias.
        alias: String,
        /// Where it pointed before.
        from: Version,
    },
    /// A version was removed.
    Remove {
        /// Which.
        version: Version,
    },
}

/// The system's clock, ms since 1970 UTC; 0 where it is set before that.
pub(super) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Appends a line; call it under the registry's lock. A line that a crash cut is ended first, so that it spoils no
/// other.
pub(super) fn append(path: &Path, record: &AuditRecord) -> Result<(), RegistryError> {
    let io = at(path);
    let mut line = Vec::new();
    let mut file = File::options().create(true).read(true).append(true).open(path).map_err(&io)?;
    if file.seek(SeekFrom::End(0)).map_err(&io)? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map_err(&io)?;
        if last != *b"\n" {
            line.extend_from_slice(b"\n");
        }
    }
    serde_json::to_writer(&mut line, record).map_err(|e| io(e.into()))?;
    line.push(b'\n');
    file.write_all(&line).and_then(|()| file.sync_all()).map_err(&io)
}

/// Reads all records. A line that a crash cut is one whose JSON ends too early: it is left out.
pub(super) fn read(path: &Path) -> Result<Vec<AuditRecord>, RegistryError> {
    let bytes = read_file(path)?.unwrap_or_default();
    let mut records = Vec::new();
    for (number, line) in bytes.split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(record) => records.push(record),
            Err(e) if e.is_eof() => {
                tracing::warn!(line = number + 1, "a line of the audit trail was cut by a crash")
            }
            Err(e) => {
                let reason = format!("line {}: {e}", number + 1);
                return Err(RegistryError::File { path: path.to_owned(), reason });
            }
        }
    }
    Ok(records)
}

/// The version that an alias named before `current`, by what was recorded; `None` where there is none.
///
/// As an editor's undo: a rollback takes back the last change that was not taken back yet, so repeated ones walk further
/// back, and a change after them begins from where they led.
pub(super) fn before(records: &[AuditRecord], name: &str, current: &Version) -> Option<Version> {
    let mut named: Vec<&Version> = Vec::new();
    let push = |named: &mut Vec<_>, version| {
        if named.last() != Some(&version) {
            named.push(version);
        }
    };
    for record in records {
        match &record.change {
            Change::Alias { alias, from, to } if alias == name => {
                // `from` is known already, unless a crash kept its record from the trail.
                from.iter().for_each(|from| push(&mut named, from));
                push(&mut named, to);
            }
            Change::Rollback { alias, to, .. } if alias == name => {
                while named.last().is_some_and(|last| *last != to) {
                    named.pop();
                }
                push(&mut named, to);
            }
            _ => {}
        }
    }
    push(&mut named, current);
    named.len().checked_sub(2).map(|at| named[at].clone())
}
