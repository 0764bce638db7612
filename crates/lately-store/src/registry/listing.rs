//! What is written beside an artifact: how it is listed, and the two marks by which removing it and pointing at it keep
//! out of each other's way without a lock. Whoever points an alias at a version first renews it here; whoever removes one
//! first claims it here; both by compare-and-swap, so one of them finds that the other was first.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::again::{Turns, now_ms};
use super::{RegistryError, Version, VersionInfo};
use crate::objects::Objects;

/// Beginning of the names of artifacts.
pub(super) const ARTIFACTS: &str = "artifacts/";
/// A version that is younger, or was pointed at since, is not removed.
pub(super) const GRACE: Duration = Duration::from_secs(3600);
/// Longest that the removal of a claimed version takes; then whoever claimed it has died.
const REMOVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Listing {
    #[serde(flatten)]
    pub(super) info: VersionInfo,
    /// When it was last pointed at, ms since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renewed_ms: Option<i64>,
    /// Since when it is being removed, ms since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed_ms: Option<i64>,
}

pub(super) fn blob(version: &Version) -> String {
    format!("{ARTIFACTS}{version}.bin")
}

pub(super) fn name(version: &Version) -> String {
    format!("{ARTIFACTS}{version}.json")
}

impl Listing {
    pub(super) fn of(info: VersionInfo) -> Self {
        Self { info, renewed_ms: None, removed_ms: None }
    }

    /// What stands in the place of a version that is being removed.
    pub(super) fn claim(version: &Version) -> Self {
        let info = VersionInfo {
            version: version.clone(),
            published_ms: 0,
            bytes: 0,
            manifest: serde_json::Value::Null,
        };
        Self { removed_ms: Some(now_ms()), ..Self::of(info) }
    }

    pub(super) fn parse(version: &Version, bytes: &[u8]) -> Result<Self, RegistryError> {
        let damaged = |reason: String| RegistryError::File { name: name(version), reason };
        serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, RegistryError> {
        let damaged = |reason: String| RegistryError::File { name: name(&self.info.version), reason };
        serde_json::to_vec_pretty(self).map_err(|e| damaged(e.to_string()))
    }

    /// When it was published or last pointed at, ms since 1970 UTC.
    pub(super) fn used_ms(&self) -> i64 {
        self.info.published_ms.max(self.renewed_ms.unwrap_or(i64::MIN))
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.removed_ms.is_some()
    }

    /// Whether whoever claimed it may be at work.
    pub(super) fn is_being_removed(&self) -> bool {
        self.removed_ms.is_some_and(|at| now_ms().saturating_sub(at) < REMOVAL.as_millis() as i64)
    }
}

/// Makes sure that a version is not removed before it can be pointed at.
///
/// # Errors
/// [`RegistryError::Unknown`] where it is not there, or being removed.
pub(super) fn renew(objects: &dyn Objects, version: &Version) -> Result<(), RegistryError> {
    let name = name(version);
    let mut turns = Turns::new(&name);
    loop {
        let unknown = || RegistryError::Unknown(version.clone());
        let bytes = objects.get(&name)?.ok_or_else(unknown)?;
        let listing = Listing::parse(version, &bytes)?;
        if listing.is_claimed() {
            return Err(unknown());
        }
        // Half of it is left for the pointing.
        if listing.used_ms() > now_ms() - GRACE.as_millis() as i64 / 2 {
            return Ok(());
        }
        let renewed = Listing { renewed_ms: Some(now_ms()), ..listing };
        if objects.swap(&name, Some(&bytes), &renewed.to_bytes()?)? {
            return Ok(());
        }
        turns.next()?;
    }
}
