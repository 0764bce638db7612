//! What an alias names: one small object, whose first line is the version (empty: none) and whose second is the change
//! that made it so. Both change in one step, so the audit trail can be completed after a crash between the two.

use super::audit::AuditRecord;
use super::name::check_alias;
use super::{RegistryError, Version};
use crate::objects::Objects;

/// Beginning of the names of aliases' objects.
pub(super) const ALIASES: &str = "aliases/";

/// An alias as it is.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// What it names.
    pub(super) version: Option<Version>,
    /// The change that made it so; none in registries of former releases.
    pub(super) record: Option<AuditRecord>,
    /// The object, for the swap; none where the alias was never set.
    pub(super) bytes: Option<Vec<u8>>,
}

/// Reads an alias.
pub(super) fn read(objects: &dyn Objects, alias: &str) -> Result<Head, RegistryError> {
    check_alias(alias)?;
    let name = format!("{ALIASES}{alias}");
    let Some(bytes) = objects.get(&name)? else { return Ok(Head::default()) };
    let damaged = |reason: String| RegistryError::File { name: name.clone(), reason };
    let text = String::from_utf8_lossy(&bytes);
    let (version, record) = text.split_once('\n').unwrap_or((&text, ""));
    let version = match version {
        "" => None,
        version => Some(version.parse().map_err(|e: RegistryError| damaged(e.to_string()))?),
    };
    let record = match record.trim_end() {
        "" if version.is_none() => return Err(damaged("it is empty".to_owned())),
        "" => None,
        record => Some(serde_json::from_str(record).map_err(|e| damaged(e.to_string()))?),
    };
    Ok(Head { version, record, bytes: Some(bytes) })
}

/// Lets an alias name `to` by a change, if it is still as `head` says; returns whether it was.
pub(super) fn swap(
    objects: &dyn Objects,
    alias: &str,
    head: &Head,
    to: Option<&Version>,
    record: &AuditRecord,
) -> Result<bool, RegistryError> {
    let name = format!("{ALIASES}{alias}");
    let line = serde_json::to_string(record)
        .map_err(|e| RegistryError::File { name: name.clone(), reason: e.to_string() })?;
    let text = format!("{}\n{line}\n", to.map_or("", Version::as_str));
    Ok(objects.swap(&name, head.bytes.as_deref(), text.as_bytes())?)
}
