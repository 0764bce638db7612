//! The registry: published models and the names that point at them.
//!
//! A version is the BLAKE3 hash of its bytes, so a version can never change, and the same bytes published twice are
//! one version. An alias (`champion`, `challenger`) is a small object that holds a version. Layout, in a directory or on
//! object storage:
//!
//! ```text
//! artifacts/<version>.bin    the bytes
//! artifacts/<version>.json   size, time of publishing, manifest: for listing without opening the artifact
//! aliases/<name>             a version, and the change that made the alias name it
//! audit.jsonl                one line a publish, alias change, rollback, veto or removal
//! ```
//!
//! Several processes and machines may share a registry. There is no lock: what changes, changes by compare-and-swap
//! ([`Objects::swap`]), and whoever finds that another was first looks again. The bytes come after their listing, so that
//! a version exists completely or not at all; an alias changes with its audit record in one step, and the record is in the
//! trail before the alias changes again. Versions and aliases are checked types: nothing that a caller sends is joined to
//! a path unchecked.

mod again;
mod alias;
mod audit;
mod garbage;
mod head;
mod listing;
mod name;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use audit::{AuditRecord, Change, MAX_REASON_CHARS};
pub use garbage::{Garbage, ROLLBACKS, Removed, gc};
pub use name::{MAX_ALIAS_BYTES, Version};

use crate::objects::{Directory, ObjectError, Objects, open};
use again::{Turns, now_ms};
use listing::{ARTIFACTS, Listing};

/// Why the registry refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Not the text form of a version.
    #[error("`{0}` is not a version: it is 64 lower-case hexadecimal digits, as `publish` returned it")]
    Version(String),
    /// Not a name of an alias.
    #[error(
        "`{0}` is not a name of an alias: use 1 to {MAX_ALIAS_BYTES} of a-z, 0-9, - and _, beginning with a letter"
    )]
    Alias(String),
    /// No such version.
    #[error("version {0} is not in the registry: list the versions, or publish it")]
    Unknown(Version),
    /// An alias cannot go back.
    #[error("{}", nothing_before(.alias, .current.as_ref()))]
    NothingBefore {
        /// Which alias.
        alias: String,
        /// What it names.
        current: Option<Version>,
    },
    /// The stored bytes are not those that were published.
    #[error(
        "artifact {0} is damaged, its bytes do not have its hash: publish it again, or point the alias elsewhere"
    )]
    Damaged(Version),
    /// It was vetoed, and nobody insists.
    #[error(
        "version {version} was vetoed ({reason}): `lately model promote --force` promotes it all the same"
    )]
    Vetoed {
        /// Which.
        version: Version,
        /// Why.
        reason: String,
    },
    /// The same bytes are being removed at this moment.
    #[error("version {0} is being removed at this moment: publish it again in a minute")]
    Removing(Version),
    /// Others were first, each time.
    #[error("`{0}` of the registry is changed by others all the time: try again")]
    Busy(String),
    /// A small file of the registry does not have its form.
    #[error("{name} of the registry is damaged: {reason}; restore it from a copy or remove it")]
    File {
        /// Which.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Reading or writing failed.
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

fn nothing_before(alias: &str, current: Option<&Version>) -> String {
    match current {
        Some(version) => format!(
            "`{alias}` is {version} and has named no other version before it: list the versions and promote one"
        ),
        None => format!("`{alias}` names no version: there is nothing to roll back; promote one"),
    }
}

/// A published version, as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// Its name.
    pub version: Version,
    /// When it was first published, ms since 1970 UTC, by the publisher's clock.
    pub published_ms: i64,
    /// Size of the artifact, bytes.
    pub bytes: u64,
    /// The manifest as it was given.
    pub manifest: serde_json::Value,
}

/// A registry in a directory or on object storage. Clones share nothing else; processes may too.
#[derive(Debug, Clone)]
pub struct Registry {
    objects: Arc<dyn Objects>,
    /// Why changes are made.
    reason: Option<Arc<str>>,
}

impl Registry {
    /// Opens the registry in a directory, which is made where it is missing.
    ///
    /// # Errors
    /// [`RegistryError::Objects`] where the directory cannot be made.
    pub fn open(dir: &Path) -> Result<Self, RegistryError> {
        Ok(Self::over(Arc::new(Directory::open(dir)?)))
    }

    /// Opens the registry at a URI: a path, `file://PATH` or `s3://BUCKET/PREFIX`; see [`crate::objects::open`].
    ///
    /// # Errors
    /// [`RegistryError::Objects`].
    pub fn open_uri(uri: &str) -> Result<Self, RegistryError> {
        Ok(Self::over(open(uri)?))
    }

    /// The registry whose objects these are.
    pub fn over(objects: Arc<dyn Objects>) -> Self {
        Self { objects, reason: None }
    }

    /// The same registry; what is changed through it is recorded with this reason, of which the first
    /// [`MAX_REASON_CHARS`] are kept.
    pub fn because(&self, reason: &str) -> Self {
        let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
        Self { objects: Arc::clone(&self.objects), reason: Some(reason.into()) }
    }

    /// Publishes an artifact now; see [`Registry::publish_at`].
    ///
    /// # Errors
    /// As [`Registry::publish_at`].
    pub fn publish(&self, bytes: &[u8], manifest: &serde_json::Value) -> Result<Version, RegistryError> {
        self.publish_at(bytes, manifest, now_ms())
    }

    /// Publishes an artifact with the caller's time, ms since 1970 UTC. The same bytes again change nothing: the
    /// first manifest and time stay. A damaged artifact of the same bytes is replaced.
    ///
    /// # Errors
    /// [`RegistryError::Objects`]; then nothing is published. [`RegistryError::Removing`] where the same bytes are.
    pub fn publish_at(
        &self,
        bytes: &[u8],
        manifest: &serde_json::Value,
        now_ms: i64,
    ) -> Result<Version, RegistryError> {
        let version = Version::of(bytes);
        let listed = VersionInfo {
            version: version.clone(),
            published_ms: now_ms,
            bytes: bytes.len() as u64,
            manifest: manifest.clone(),
        };
        self.place(bytes, &Listing::of(listed))?;
        let change = Change::Publish { version: version.clone() };
        let reason = self.reason.as_deref().map(str::to_owned);
        let record = AuditRecord { time_ms: now_ms, change, reason, step: 0 };
        audit::append(&*self.objects, |records| {
            let recorded = audit::is_removed(records, &version) == Some(false);
            if recorded { Vec::new() } else { vec![record.clone()] }
        })?;
        Ok(version)
    }

    /// Makes sure that an artifact is there with its listing.
    fn place(&self, bytes: &[u8], new: &Listing) -> Result<(), RegistryError> {
        let version = &new.info.version;
        let (blob, name) = (listing::blob(version), listing::name(version));
        let mut turns = Turns::new(&name);
        loop {
            let there = self.objects.get(&name)?;
            // An unreadable one is replaced.
            let listed = there.as_ref().and_then(|there| Listing::parse(version, there).ok());
            if listed.as_ref().is_some_and(Listing::is_being_removed) {
                return Err(RegistryError::Removing(version.clone()));
            }
            let listed = listed.is_some_and(|l| !l.is_claimed());
            if listed && self.objects.get(&blob)?.is_some_and(|old| old == bytes) {
                return Ok(());
            }
            if self.objects.swap(&name, there.as_deref(), &new.to_bytes()?)? {
                return Ok(self.objects.put(&blob, bytes)?);
            }
            turns.next()?;
        }
    }

    /// The bytes of a version, checked against its hash.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Damaged`], then nothing of the bytes is returned.
    pub fn load(&self, version: &Version) -> Result<Vec<u8>, RegistryError> {
        let bytes = self.objects.get(&listing::blob(version))?;
        let bytes = bytes.ok_or_else(|| RegistryError::Unknown(version.clone()))?;
        if Version::of(&bytes) != *version {
            return Err(RegistryError::Damaged(version.clone()));
        }
        Ok(bytes)
    }

    /// How a version is listed; `None` where it is not.
    ///
    /// # Errors
    /// [`RegistryError::Objects`], [`RegistryError::File`] where the listing is unreadable.
    pub fn info(&self, version: &Version) -> Result<Option<VersionInfo>, RegistryError> {
        let Some(bytes) = self.objects.get(&listing::name(version))? else { return Ok(None) };
        let listing = Listing::parse(version, &bytes)?;
        Ok((!listing.is_claimed()).then_some(listing.info))
    }

    /// All versions, oldest first.
    ///
    /// # Errors
    /// As [`Registry::info`].
    pub fn versions(&self) -> Result<Vec<VersionInfo>, RegistryError> {
        let mut versions = Vec::new();
        for object in self.objects.list(ARTIFACTS)? {
            // A listing whose bytes never came is no version.
            let stem = object.name.strip_prefix(ARTIFACTS).and_then(|name| name.strip_suffix(".bin"));
            let Some(version) = stem.and_then(|stem| stem.parse().ok()) else { continue };
            // A version may be removed while we look.
            versions.extend(self.info(&version)?);
        }
        versions.sort_by(|a, b| (a.published_ms, &a.version).cmp(&(b.published_ms, &b.version)));
        Ok(versions)
    }

    /// What was changed, oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Objects`], [`RegistryError::File`] where a complete line, or an alias, is unreadable.
    pub fn audit(&self) -> Result<Vec<AuditRecord>, RegistryError> {
        // Aliases first: a change that is made after the look at one is in neither, or in the trail.
        let mut last = Vec::new();
        for name in self.alias_names()? {
            last.extend(head::read(&*self.objects, &name)?.record);
        }
        let mut records = audit::read(&*self.objects)?;
        // A crash may have kept an alias's last change from the trail.
        last.retain(|change| !records.contains(change));
        records.extend(last);
        Ok(records)
    }
}
