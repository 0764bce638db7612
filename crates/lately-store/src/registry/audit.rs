//! What was changed in the registry, when and why: JSON lines of one object, which grows by compare-and-swap, so that
//! of writers at once none loses a line.

use serde::{Deserialize, Serialize};

use super::again::{Turns, now_ms};
use super::{RegistryError, Version};
use crate::objects::Objects;

/// The object.
const TRAIL: &str = "audit.jsonl";
/// Longest reason that is kept, characters.
pub const MAX_REASON_CHARS: usize = 500;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When, ms since 1970 UTC.
    pub time_ms: i64,
    /// What.
    #[serde(flatten)]
    pub change: Change,
    /// Why, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which change of its alias, from 1; 0 for other changes, and for those of registries before they were counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub step: u64,
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
    /// A version must not be promoted any more, unless somebody insists.
    Veto {
        /// Which.
        version: Version,
    },
    /// A version was removed.
    Remove {
        /// Which.
        version: Version,
    },
}

impl Change {
    /// The version that it vetoes.
    pub fn vetoed(&self) -> Option<&Version> {
        if let Self::Veto { version } = self { Some(version) } else { None }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde calls
fn is_zero(step: &u64) -> bool {
    *step == 0
}

impl AuditRecord {
    /// A change now.
    pub(super) fn now(change: Change, reason: Option<&str>) -> Self {
        Self { time_ms: now_ms(), change, reason: reason.map(str::to_owned), step: 0 }
    }
}

/// Reads all records. A line that a crash of a former release cut is one whose JSON ends too early: it is left out.
pub(super) fn read(objects: &dyn Objects) -> Result<Vec<AuditRecord>, RegistryError> {
    parse(&objects.get(TRAIL)?.unwrap_or_default())
}

fn parse(bytes: &[u8]) -> Result<Vec<AuditRecord>, RegistryError> {
    let mut records = Vec::new();
    for (number, line) in bytes.split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(record) => records.push(record),
            Err(e) if e.is_eof() => {
                tracing::warn!(line = number + 1, "a line of the audit trail was cut by a crash")
            }
            Err(e) => {
                let reason = format!("line {}: {e}", number + 1);
                return Err(RegistryError::File { name: TRAIL.to_owned(), reason });
            }
        }
    }
    Ok(records)
}

/// Appends what `new` says of the records that are there, and returns all; nothing is written for an empty list.
pub(super) fn append(
    objects: &dyn Objects,
    new: impl Fn(&[AuditRecord]) -> Vec<AuditRecord>,
) -> Result<Vec<AuditRecord>, RegistryError> {
    let mut turns = Turns::new(TRAIL);
    loop {
        let before = objects.get(TRAIL)?;
        let mut bytes = before.clone().unwrap_or_default();
        let mut records = parse(&bytes)?;
        let new = new(&records);
        if new.is_empty() {
            return Ok(records);
        }
        // A line that was cut is ended first, so that it spoils no other.
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
        for record in &new {
            let line = serde_json::to_vec(record)
                .map_err(|e| RegistryError::File { name: TRAIL.to_owned(), reason: e.to_string() })?;
            bytes.extend(line);
            bytes.push(b'\n');
        }
        if objects.swap(TRAIL, before.as_deref(), &bytes)? {
            records.extend(new);
            return Ok(records);
        }
        turns.next()?;
    }
}

/// Whether the last that was recorded about a version is its removal or its publishing; `None` where neither is.
pub(super) fn is_removed(records: &[AuditRecord], version: &Version) -> Option<bool> {
    records.iter().rev().find_map(|r| match &r.change {
        Change::Publish { version: v } if v == version => Some(false),
        Change::Remove { version: v } if v == version => Some(true),
        _ => None,
    })
}

/// Why a version was vetoed last; `None` where it never was.
pub(super) fn vetoed(records: &[AuditRecord], version: &Version) -> Option<String> {
    let veto = records.iter().rev().find(|r| r.change.vetoed() == Some(version))?;
    Some(veto.reason.clone().unwrap_or_default())
}

/// The versions that an alias named, as an editor's undo has them: a rollback takes back the last change that was not
/// taken back yet, so repeated ones walk further back, and a change after them begins from where they led. Each with the
/// place of its record; `current` is the last.
fn named<'a>(
    records: &'a [AuditRecord],
    name: &str,
    current: Option<&'a Version>,
) -> Vec<(&'a Version, usize)> {
    let mut named: Vec<(&Version, usize)> = Vec::new();
    let push = |named: &mut Vec<(&'a Version, usize)>, version: &'a Version, at| match named.last_mut() {
        Some(last) if last.0 == version => last.1 = at,
        _ => named.push((version, at)),
    };
    for (at, record) in records.iter().enumerate() {
        match &record.change {
            Change::Alias { alias, from, to } if alias == name => {
                // `from` is known already, unless a crash of a former release kept its record from the trail.
                if let Some(from) = from.as_ref().filter(|from| named.last().is_none_or(|l| l.0 != *from)) {
                    push(&mut named, from, at);
                }
                push(&mut named, to, at);
            }
            Change::Rollback { alias, to, .. } if alias == name => {
                while named.last().is_some_and(|last| last.0 != to) {
                    named.pop();
                }
                push(&mut named, to, at);
            }
            _ => {}
        }
    }
    if let Some(current) = current {
        push(&mut named, current, records.len());
    }
    named
}

/// The version to which a rollback of an alias leads: the last one before `current` that was not vetoed since.
pub(super) fn before(records: &[AuditRecord], name: &str, current: &Version) -> Option<Version> {
    let vetoed = |version: &Version, at: usize| {
        records.iter().skip(at + 1).any(|r| r.change.vetoed() == Some(version))
    };
    let named = named(records, name, Some(current));
    let mut former = named.into_iter().rev().skip(1);
    former.find(|(v, at)| *v != current && !vetoed(v, *at)).map(|(v, _)| v.clone())
}

/// The last `count` versions that each alias would go back to.
pub(super) fn former(records: &[AuditRecord], count: usize) -> Vec<Version> {
    let aliases: std::collections::BTreeSet<&str> = records
        .iter()
        .filter_map(|r| match &r.change {
            Change::Alias { alias, .. } | Change::Rollback { alias, .. } => Some(alias.as_str()),
            _ => None,
        })
        .collect();
    let last = |alias| named(records, alias, None).into_iter().rev().take(count + 1).map(|(v, _)| v.clone());
    aliases.into_iter().flat_map(last).collect()
}
