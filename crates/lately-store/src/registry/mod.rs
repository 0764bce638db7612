//! The registry: published models and the names that point at them.
//!
//! A version is the BLAKE3 hash of its bytes, so a version can never change, and the same bytes published twice are
//! one version. An alias (`champion`, `challenger`) is a small file that holds a version. Layout:
//!
//! ```text
//! artifacts/<version>.bin    the bytes
//! artifacts/<version>.json   size, time of publishing, manifest: for listing without opening the artifact
//! aliases/<name>             a version
//! audit.jsonl                one line a publish, alias change, rollback or removal
//! lock                       held while something changes; several processes may share a registry
//! ```
//!
//! Crash safety: every file is written under a temporary name, synced, renamed, and its directory synced. The bytes
//! come last, so that a version exists completely or not at all. Versions and aliases are checked types: nothing
//! that a caller sends is joined to a path unchecked.

mod audit;
mod files;
mod name;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use audit::{AuditRecord, Change};
pub use name::{MAX_ALIAS_BYTES, Version};

use name::check_alias;

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
    /// A small file of the registry does not have its form.
    #[error("{} is damaged: {reason}; restore it from a copy or remove it", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
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

/// A registry in a directory. Clones share nothing but the directory; processes may too.
#[derive(Debug, Clone)]
pub struct Registry {
    root: PathBuf,
}

impl Registry {
    /// Opens the registry in a directory, which is made where it is missing.
    ///
    /// # Errors
    /// [`RegistryError::Io`] where the directory cannot be made.
    pub fn open(dir: &Path) -> Result<Self, RegistryError> {
        let registry = Self { root: dir.to_owned() };
        for dir in [registry.artifacts(), registry.aliases_dir()] {
            std::fs::create_dir_all(&dir).map_err(files::at(&dir))?;
        }
        files::sync_dir(&registry.root)?;
        Ok(registry)
    }

    fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
    }
    fn aliases_dir(&self) -> PathBuf {
        self.root.join("aliases")
    }
    fn audit_path(&self) -> PathBuf {
        self.root.join("audit.jsonl")
    }
    fn blob(&self, version: &Version) -> PathBuf {
        self.artifacts().join(format!("{version}.bin"))
    }
    fn info(&self, version: &Version) -> PathBuf {
        self.artifacts().join(format!("{version}.json"))
    }

    /// Holds off other writers, in this process and others, until the result is dropped.
    fn lock(&self) -> Result<std::fs::File, RegistryError> {
        let path = self.root.join("lock");
        let file =
            std::fs::File::options().create(true).append(true).open(&path).map_err(files::at(&path))?;
        file.lock().map_err(files::at(&path))?;
        Ok(file)
    }

    /// Publishes an artifact now; see [`Registry::publish_at`].
    ///
    /// # Errors
    /// [`RegistryError::Io`]; then nothing is published.
    pub fn publish(&self, bytes: &[u8], manifest: &serde_json::Value) -> Result<Version, RegistryError> {
        self.publish_at(bytes, manifest, audit::now_ms())
    }

    /// Publishes an artifact with the caller's time, ms since 1970 UTC. The same bytes again change nothing: the
    /// first manifest and time stay. A damaged artifact of the same bytes is replaced.
    ///
    /// # Errors
    /// [`RegistryError::Io`]; then nothing is published.
    pub fn publish_at(
        &self,
        bytes: &[u8],
        manifest: &serde_json::Value,
        now_ms: i64,
    ) -> Result<Version, RegistryError> {
        let version = Version::of(bytes);
        let _lock = self.lock()?;
        let (blob, info) = (self.blob(&version), self.info(&version));
        if info.exists() && std::fs::read(&blob).is_ok_and(|old| old == bytes) {
            return Ok(version);
        }
        let listed = VersionInfo {
            version: version.clone(),
            published_ms: now_ms,
            bytes: bytes.len() as u64,
            manifest: manifest.clone(),
        };
        files::write_json(&info, &listed)?;
        files::write(&blob, bytes)?;
        self.record(now_ms, Change::Publish { version: version.clone() })?;
        Ok(version)
    }

    /// The bytes of a version, checked against its hash.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`]; [`RegistryError::Damaged`], then nothing of the bytes is returned.
    pub fn load(&self, version: &Version) -> Result<Vec<u8>, RegistryError> {
        let bytes =
            files::read(&self.blob(version))?.ok_or_else(|| RegistryError::Unknown(version.clone()))?;
        if Version::of(&bytes) != *version {
            return Err(RegistryError::Damaged(version.clone()));
        }
        Ok(bytes)
    }

    /// All versions, oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Io`], [`RegistryError::File`] where a listing is unreadable.
    pub fn versions(&self) -> Result<Vec<VersionInfo>, RegistryError> {
        let mut versions = Vec::new();
        for name in files::names(&self.artifacts())? {
            // Temporary files and a listing whose bytes never came are no versions.
            let Some(version) = name.strip_suffix(".bin").and_then(|n| n.parse::<Version>().ok()) else {
                continue;
            };
            // A version may be removed while we look.
            let Some(info) = files::read_json::<VersionInfo>(&self.info(&version))? else { continue };
            versions.push(info);
        }
        versions.sort_by(|a, b| (a.published_ms, &a.version).cmp(&(b.published_ms, &b.version)));
        Ok(versions)
    }

    /// Points an alias at a version now; see [`Registry::set_alias_at`].
    ///
    /// # Errors
    /// As [`Registry::set_alias_at`].
    pub fn set_alias(&self, alias: &str, version: &Version) -> Result<(), RegistryError> {
        self.set_alias_at(alias, version, audit::now_ms())
    }

    /// Points an alias at a version, in one step: a reader sees the former or the new one.
    ///
    /// # Errors
    /// [`RegistryError::Alias`] where the name is not allowed; [`RegistryError::Unknown`] or
    /// [`RegistryError::Damaged`] where the version is not there whole: the alias then stays as it was.
    pub fn set_alias_at(&self, alias: &str, version: &Version, now_ms: i64) -> Result<(), RegistryError> {
        check_alias(alias)?;
        let _lock = self.lock()?;
        self.load(version)?;
        let from = self.alias(alias)?;
        files::write(&self.aliases_dir().join(alias), version.as_str().as_bytes())?;
        self.record(now_ms, Change::Alias { alias: alias.to_owned(), from, to: version.clone() })
    }

    /// Points an alias back at the version that it named before, by the audit trail, in one step; returns which it named
    /// and which it names now. Called again it walks further back, and a change of the alias after it begins anew from
    /// there, as with an editor's undo.
    ///
    /// # Errors
    /// [`RegistryError::NothingBefore`]; [`RegistryError::Unknown`] or [`RegistryError::Damaged`] where the former version
    /// is not there whole any more: the alias then stays as it was.
    pub fn rollback(&self, alias: &str) -> Result<(Version, Version), RegistryError> {
        check_alias(alias)?;
        let _lock = self.lock()?;
        let nothing = |current| RegistryError::NothingBefore { alias: alias.to_owned(), current };
        let from = self.alias(alias)?.ok_or_else(|| nothing(None))?;
        let former = audit::before(&self.audit()?, alias, &from);
        let to = former.ok_or_else(|| nothing(Some(from.clone())))?;
        self.load(&to)?;
        files::write(&self.aliases_dir().join(alias), to.as_str().as_bytes())?;
        let change = Change::Rollback { alias: alias.to_owned(), from: from.clone(), to: to.clone() };
        self.record(audit::now_ms(), change)?;
        Ok((from, to))
    }

    /// Takes an alias away; nothing where it was never set.
    ///
    /// # Errors
    /// [`RegistryError::Alias`]; [`RegistryError::Io`].
    pub fn remove_alias(&self, alias: &str) -> Result<(), RegistryError> {
        check_alias(alias)?;
        let _lock = self.lock()?;
        let Some(from) = self.alias(alias)? else { return Ok(()) };
        files::remove(&self.aliases_dir().join(alias))?;
        self.record(audit::now_ms(), Change::Unalias { alias: alias.to_owned(), from })
    }

    /// The version that an alias points at; `None` where it was never set.
    ///
    /// # Errors
    /// [`RegistryError::Alias`]; [`RegistryError::File`] where its file is damaged.
    pub fn alias(&self, alias: &str) -> Result<Option<Version>, RegistryError> {
        check_alias(alias)?;
        let path = self.aliases_dir().join(alias);
        let Some(bytes) = files::read(&path)? else { return Ok(None) };
        let version = String::from_utf8_lossy(&bytes).parse();
        version.map(Some).map_err(|e: RegistryError| RegistryError::File { path, reason: e.to_string() })
    }

    /// All aliases.
    ///
    /// # Errors
    /// As [`Registry::alias`].
    pub fn aliases(&self) -> Result<BTreeMap<String, Version>, RegistryError> {
        let mut aliases = BTreeMap::new();
        for name in files::names(&self.aliases_dir())? {
            // Temporary files begin with a dot, which no alias does.
            if check_alias(&name).is_ok()
                && let Some(version) = self.alias(&name)?
            {
                aliases.insert(name, version);
            }
        }
        Ok(aliases)
    }

    /// Removes all versions but the newest `keep` and those that an alias points at; returns the removed ones.
    ///
    /// # Errors
    /// [`RegistryError::Io`]; some may be removed then. With an unreadable alias nothing is removed.
    pub fn remove_garbage(&self, keep: usize) -> Result<Vec<Version>, RegistryError> {
        let _lock = self.lock()?;
        let aliased: BTreeSet<Version> = self.aliases()?.into_values().collect();
        let versions = self.versions()?;
        let old = versions.len().saturating_sub(keep);
        let mut removed = Vec::new();
        for VersionInfo { version, .. } in
            versions.into_iter().take(old).filter(|v| !aliased.contains(&v.version))
        {
            // The bytes first: a listing without bytes is no version.
            files::remove(&self.blob(&version))?;
            files::remove(&self.info(&version))?;
            self.record(audit::now_ms(), Change::Remove { version: version.clone() })?;
            removed.push(version);
        }
        files::remove_temporary(&self.artifacts())?;
        files::remove_temporary(&self.aliases_dir())?;
        Ok(removed)
    }

    /// What was changed, oldest first.
    ///
    /// # Errors
    /// [`RegistryError::Io`], [`RegistryError::File`] where a complete line is unreadable.
    pub fn audit(&self) -> Result<Vec<AuditRecord>, RegistryError> {
        audit::read(&self.audit_path())
    }

    fn record(&self, time_ms: i64, change: Change) -> Result<(), RegistryError> {
        audit::append(&self.audit_path(), &AuditRecord { time_ms, change })
    }
}
