//! Removing what nobody needs: old versions, and what crashes left.
//!
//! Never: what an alias names, what a rollback could lead to, what is young or was pointed at within the grace, and the
//! parents of what is young. A version is claimed in its listing before it goes (`listing.rs`), so that nobody points at
//! what is going.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::again::now_ms;
use super::audit::{self, AuditRecord, Change};
use super::listing::{self, ARTIFACTS, GRACE, Listing};
use super::{Registry, RegistryError, Version};
use crate::objects::ObjectInfo;

/// Versions of each alias that a rollback could lead to, one after another, which are kept.
pub const ROLLBACKS: usize = 10;

/// What to keep.
#[derive(Debug, Clone)]
pub struct Garbage {
    /// The newest versions that are kept whatever names them.
    pub keep: usize,
    /// How long what is new, or was pointed at, is kept. Below the default only where nobody else uses the registry.
    pub grace: Duration,
    /// Only tells.
    pub dry_run: bool,
}

impl Default for Garbage {
    fn default() -> Self {
        Self { keep: 50, grace: GRACE, dry_run: false }
    }
}

/// Removes what nobody needs, with the newest `keep` versions kept, as a loop does after each publishing.
///
/// # Errors
/// As [`Registry::gc`].
pub fn gc(registry: &Registry, keep: usize) -> Result<Removed, RegistryError> {
    registry.because("old").gc(&Garbage { keep, ..Garbage::default() })
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Versions, oldest first.
    pub versions: Vec<Version>,
    /// Versions of which a crash left a part.
    pub leftovers: Vec<Version>,
    /// All of them, bytes.
    pub bytes: u64,
}

/// What is there of a version.
#[derive(Default)]
struct Shelf {
    blob: Option<ObjectInfo>,
    /// With its bytes as they were judged, for the claim.
    listing: Option<(ObjectInfo, Vec<u8>)>,
    parsed: Option<Listing>,
}

impl Shelf {
    /// The listing, if it is a version.
    fn whole(&self) -> Option<&Listing> {
        self.blob.as_ref().and(self.parsed.as_ref()).filter(|l| !l.is_claimed())
    }

    /// Whether it is a part that nobody works on.
    fn is_leftover(&self, until_ms: i64) -> bool {
        let claimed = self.parsed.as_ref().is_some_and(Listing::is_claimed);
        let newest = [self.blob.as_ref(), self.listing.as_ref().map(|(info, _)| info)];
        let newest = newest.into_iter().flatten().map(|info| info.written_ms).max();
        self.whole().is_none() && (claimed || newest.is_none_or(|written| written <= until_ms))
    }

    fn bytes(&self) -> u64 {
        self.blob.as_ref().map_or(0, |i| i.bytes) + self.listing.as_ref().map_or(0, |(i, _)| i.bytes)
    }
}

impl Registry {
    /// Removes all versions but the newest `keep` and those that are in use; returns the removed ones.
    ///
    /// # Errors
    /// As [`Registry::gc`].
    pub fn remove_garbage(&self, keep: usize) -> Result<Vec<Version>, RegistryError> {
        Ok(self.gc(&Garbage { keep, ..Garbage::default() })?.versions)
    }

    /// Removes what nobody needs.
    ///
    /// # Errors
    /// [`RegistryError::Objects`]; some may be removed then. With an unreadable alias, trail or listing nothing is.
    pub fn gc(&self, garbage: &Garbage) -> Result<Removed, RegistryError> {
        let until_ms = now_ms() - garbage.grace.as_millis() as i64;
        // In this order: who points at a version after its listing was read renews it, and the claim fails.
        let shelves = self.shelves()?;
        let needed = self.needed(&shelves, until_ms)?;
        let mut removed = Removed::default();
        let mut whole: Vec<_> = shelves.iter().filter_map(|(v, s)| Some((s.whole()?, v))).collect();
        whole.sort_by_key(|(listing, version)| (listing.info.published_ms, *version));
        let old = whole.len().saturating_sub(garbage.keep);
        let old = whole[..old].iter().filter(|(l, v)| l.used_ms() <= until_ms && !needed.contains(*v));
        removed.versions = old.map(|(_, v)| (*v).clone()).collect();
        let parts = shelves.iter().filter(|(v, s)| s.is_leftover(until_ms) && !needed.contains(*v));
        removed.leftovers = parts.map(|(v, _)| v.clone()).collect();
        if !garbage.dry_run {
            for list in [&mut removed.versions, &mut removed.leftovers] {
                self.claim(list, &shelves)?;
            }
            self.take_away(&removed)?;
            self.objects.sweep()?;
        }
        removed.bytes = removed.versions.iter().chain(&removed.leftovers).map(|v| shelves[v].bytes()).sum();
        Ok(removed)
    }

    /// All that is there, by version.
    fn shelves(&self) -> Result<BTreeMap<Version, Shelf>, RegistryError> {
        let mut shelves: BTreeMap<Version, Shelf> = BTreeMap::new();
        for object in self.objects.list(ARTIFACTS)? {
            let Some((stem, kind)) = object.name.strip_prefix(ARTIFACTS).and_then(|n| n.rsplit_once('.'))
            else {
                continue;
            };
            let Ok(version) = stem.parse::<Version>() else { continue };
            let shelf = shelves.entry(version.clone()).or_default();
            match kind {
                "bin" => shelf.blob = Some(object),
                "json" => {
                    let Some(bytes) = self.objects.get(&object.name)? else { continue };
                    shelf.parsed = Listing::parse(&version, &bytes).ok();
                    shelf.listing = Some((object, bytes));
                }
                _ => {}
            }
        }
        // A version whose listing is unreadable may be anything: a person has to look.
        for (version, shelf) in &shelves {
            if let (Some(_), Some((_, bytes)), None) = (&shelf.blob, &shelf.listing, &shelf.parsed) {
                Listing::parse(version, bytes)?;
            }
        }
        Ok(shelves)
    }

    /// What an alias names or could go back to, and the parents of what is young.
    fn needed(
        &self,
        shelves: &BTreeMap<Version, Shelf>,
        until_ms: i64,
    ) -> Result<BTreeSet<Version>, RegistryError> {
        let mut needed: BTreeSet<Version> = audit::former(&self.audit()?, ROLLBACKS).into_iter().collect();
        needed.extend(self.aliases()?.into_values());
        let young = shelves.values().filter_map(Shelf::whole).filter(|l| l.used_ms() > until_ms);
        let parents = young.filter_map(|l| l.info.manifest.get("parent")?.as_str()?.parse().ok());
        needed.extend(parents);
        Ok(needed)
    }

    /// Claims versions; those that somebody changed since they were judged stay, and leave the list.
    fn claim(
        &self,
        versions: &mut Vec<Version>,
        shelves: &BTreeMap<Version, Shelf>,
    ) -> Result<(), RegistryError> {
        let mut claimed = Vec::with_capacity(versions.len());
        for version in versions.drain(..) {
            let judged = shelves[&version].listing.as_ref().map(|(_, bytes)| bytes.as_slice());
            let claim = Listing::claim(&version).to_bytes()?;
            if self.objects.swap(&listing::name(&version), judged, &claim)? {
                claimed.push(version);
            }
        }
        *versions = claimed;
        Ok(())
    }

    /// Records and removes what is claimed: a crash on the way leaves claims, which the next run finds.
    fn take_away(&self, removed: &Removed) -> Result<(), RegistryError> {
        audit::append(&*self.objects, |records| {
            let is_new = |v: &&Version| audit::is_removed(records, v) != Some(true);
            let published = |v: &&Version| audit::is_removed(records, v) == Some(false);
            let versions = removed.versions.iter().filter(is_new);
            let all = versions.chain(removed.leftovers.iter().filter(published));
            let record =
                |v: &Version| AuditRecord::now(Change::Remove { version: v.clone() }, self.reason.as_deref());
            all.map(record).collect()
        })?;
        // The bytes first: a listing without bytes is no version.
        for version in removed.versions.iter().chain(&removed.leftovers) {
            self.objects.delete(&listing::blob(version))?;
            self.objects.delete(&listing::name(version))?;
        }
        Ok(())
    }
}
