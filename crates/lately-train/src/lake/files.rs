//! Names of the lake's objects, and their bytes with a check.

use jiff::Timestamp;
use lately_store::objects::Objects;

use super::error::LakeError;
use super::manifest::{Object, check};
use super::stream::HOUR_MS;

/// Folders of what a lake keeps, by kind.
pub(crate) const REQUESTS: &str = "requests";
pub(crate) const ITEMS: &str = "items";
pub(crate) const CORRECTIONS: &str = "corrections";
const STATE: &str = "state";
const QUARANTINE: &str = "quarantine";

/// `dt=2026-11-25/hour=01` of an hour since 1970 UTC.
fn place(hour: i64) -> String {
    match Timestamp::from_millisecond(hour.saturating_mul(HOUR_MS)) {
        Ok(time) => time.strftime("dt=%Y-%m-%d/hour=%H").to_string(),
        Err(_) => "dt=0000-00-00/hour=00".to_owned(), // no calendar has it
    }
}

/// Name of a file of an hour. `commit`: number of the manifest that is to name it, so that no two processes write one.
pub(crate) fn file(kind: &str, hour: i64, partition: u32, offsets: (u64, u64), commit: u64) -> String {
    let (first, last) = offsets;
    format!("{kind}/{}/{partition}-{first}-{last}-{commit}.parquet", place(hour))
}

/// Name of a part of the state.
pub(crate) fn state(partition: u32, commit: u64, part: usize) -> String {
    format!("{STATE}/{partition}/{commit:012}-{part:04}.snapshot")
}

/// Name of what a commit closed.
pub(crate) fn since(partition: u32, commit: u64) -> String {
    format!("{STATE}/{partition}/{commit:012}.commit")
}

/// All objects of a partition, but manifests and what is in quarantine.
pub(crate) fn all(objects: &dyn Objects, partition: u32) -> Result<Vec<String>, LakeError> {
    let mut names = Vec::new();
    for kind in [REQUESTS, ITEMS, CORRECTIONS] {
        let own = format!("{partition}-");
        let is_own = |name: &String| name.rsplit('/').next().is_some_and(|file| file.starts_with(&own));
        names.extend(objects.list(&format!("{kind}/"))?.into_iter().map(|i| i.name).filter(is_own));
    }
    names.extend(objects.list(&format!("{STATE}/{partition}/"))?.into_iter().map(|i| i.name));
    Ok(names)
}

/// Writes an object.
pub(crate) fn put(objects: &dyn Objects, name: String, bytes: &[u8]) -> Result<Object, LakeError> {
    objects.put(&name, bytes)?;
    Ok(Object { name, bytes: bytes.len() as u64, check: check(bytes) })
}

/// Bytes of an object, or why they are not.
pub(crate) enum Found {
    Whole(Vec<u8>),
    /// Other bytes than were written.
    Damaged,
    Gone,
}

/// Reads an object.
pub(crate) fn get(objects: &dyn Objects, object: &Object) -> Result<Found, LakeError> {
    Ok(match objects.get(&object.name)? {
        None => Found::Gone,
        Some(bytes) if check(&bytes) == object.check => Found::Whole(bytes),
        Some(_) => Found::Damaged,
    })
}

/// Copies what is there of an object to where damaged ones are kept.
pub(crate) fn set_aside(objects: &dyn Objects, name: &str) -> Result<(), LakeError> {
    match objects.get(name)? {
        Some(bytes) => Ok(objects.put(&format!("{QUARANTINE}/{name}"), &bytes)?),
        None => Ok(()),
    }
}
