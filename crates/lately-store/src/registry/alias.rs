//! Pointing aliases: at a version, back, or at none; and what may not be pointed at any more.

use std::collections::BTreeMap;

use super::again::{Turns, now_ms};
use super::audit::{self, AuditRecord, Change};
use super::name::check_alias;
use super::{Registry, RegistryError, Version, head, listing};

impl Registry {
    /// Points an alias at a version now; see [`Registry::set_alias_at`].
    ///
    /// # Errors
    /// As [`Registry::set_alias_at`].
    pub fn set_alias(&self, alias: &str, version: &Version) -> Result<(), RegistryError> {
        self.set_alias_at(alias, version, now_ms())
    }

    /// Points an alias at a version, in one step: a reader sees the former or the new one.
    ///
    /// # Errors
    /// [`RegistryError::Alias`] where the name is not allowed; [`RegistryError::Unknown`] or
    /// [`RegistryError::Damaged`] where the version is not there whole: the alias then stays as it was.
    pub fn set_alias_at(&self, alias: &str, version: &Version, now_ms: i64) -> Result<(), RegistryError> {
        self.point(alias, now_ms, |from, _| {
            let change = Change::Alias { alias: alias.to_owned(), from: from.cloned(), to: version.clone() };
            Ok(Some((Some(version.clone()), change)))
        })
    }

    /// As [`Registry::set_alias`], for who decides without a person: a version that was vetoed is refused.
    ///
    /// # Errors
    /// [`RegistryError::Vetoed`]; as [`Registry::set_alias_at`].
    pub fn promote(&self, alias: &str, version: &Version) -> Result<(), RegistryError> {
        self.point(alias, now_ms(), |from, records| {
            if let Some(reason) = audit::vetoed(records, version) {
                return Err(RegistryError::Vetoed { version: version.clone(), reason });
            }
            let change = Change::Alias { alias: alias.to_owned(), from: from.cloned(), to: version.clone() };
            Ok(Some((Some(version.clone()), change)))
        })
    }

    /// Points an alias back at the version that it named before, by the audit trail, in one step; returns which it named
    /// and which it names now. Called again it walks further back, and a change of the alias after it begins anew from
    /// there, as with an editor's undo. Versions that were vetoed since are passed over.
    ///
    /// # Errors
    /// [`RegistryError::NothingBefore`]; [`RegistryError::Unknown`] or [`RegistryError::Damaged`] where the former version
    /// is not there whole any more: the alias then stays as it was.
    pub fn rollback(&self, alias: &str) -> Result<(Version, Version), RegistryError> {
        let mut led = None;
        self.point(alias, now_ms(), |from, records| {
            let nothing = |current| RegistryError::NothingBefore { alias: alias.to_owned(), current };
            let from = from.ok_or_else(|| nothing(None))?.clone();
            let to = audit::before(records, alias, &from).ok_or_else(|| nothing(Some(from.clone())))?;
            led = Some((from.clone(), to.clone()));
            let change = Change::Rollback { alias: alias.to_owned(), from, to: to.clone() };
            Ok(Some((Some(to), change)))
        })?;
        led.ok_or_else(|| RegistryError::NothingBefore { alias: alias.to_owned(), current: None })
    }

    /// Takes an alias away; nothing where it was never set.
    ///
    /// # Errors
    /// [`RegistryError::Alias`]; [`RegistryError::Objects`].
    pub fn remove_alias(&self, alias: &str) -> Result<(), RegistryError> {
        self.point(alias, now_ms(), |from, _| {
            let unalias = |from: &Version| Change::Unalias { alias: alias.to_owned(), from: from.clone() };
            Ok(from.map(|from| (None, unalias(from))))
        })
    }

    /// Keeps a version from being promoted by [`Registry::promote`] and from being rolled back to, from now on.
    ///
    /// # Errors
    /// [`RegistryError::Objects`].
    pub fn veto(&self, version: &Version, reason: &str) -> Result<(), RegistryError> {
        let because = self.because(reason);
        let veto = AuditRecord::now(Change::Veto { version: version.clone() }, because.reason.as_deref());
        audit::append(&*self.objects, |_| vec![veto.clone()]).map(drop)
    }

    /// Why a version was vetoed; `None` where it was not.
    ///
    /// # Errors
    /// [`RegistryError::Objects`]; [`RegistryError::File`] where the trail is damaged.
    pub fn vetoed(&self, version: &Version) -> Result<Option<String>, RegistryError> {
        Ok(audit::vetoed(&audit::read(&*self.objects)?, version))
    }

    /// The version that an alias points at; `None` where it was never set, or was taken away.
    ///
    /// # Errors
    /// [`RegistryError::Alias`]; [`RegistryError::File`] where its file is damaged.
    pub fn alias(&self, alias: &str) -> Result<Option<Version>, RegistryError> {
        Ok(head::read(&*self.objects, alias)?.version)
    }

    /// All aliases.
    ///
    /// # Errors
    /// As [`Registry::alias`].
    pub fn aliases(&self) -> Result<BTreeMap<String, Version>, RegistryError> {
        let mut aliases = BTreeMap::new();
        for name in self.alias_names()? {
            if let Some(version) = self.alias(&name)? {
                aliases.insert(name, version);
            }
        }
        Ok(aliases)
    }

    /// Names of all aliases that were ever set.
    pub(super) fn alias_names(&self) -> Result<Vec<String>, RegistryError> {
        let names = self.objects.list(head::ALIASES)?.into_iter();
        let names = names.filter_map(|o| o.name.strip_prefix(head::ALIASES).map(str::to_owned));
        Ok(names.filter(|name| check_alias(name).is_ok()).collect())
    }

    /// Changes an alias to what `decide` says of what it names and of all records, and again if somebody else changes it
    /// meanwhile. `None`: nothing is to be changed.
    fn point(
        &self,
        alias: &str,
        now_ms: i64,
        mut decide: impl FnMut(
            Option<&Version>,
            &[AuditRecord],
        ) -> Result<Option<(Option<Version>, Change)>, RegistryError>,
    ) -> Result<(), RegistryError> {
        let mut turns = Turns::new(alias);
        loop {
            let head = head::read(&*self.objects, alias)?;
            // The former change is in the trail before the next is made: none is lost, and they are in order.
            let records = self.settle(head.record.as_ref())?;
            let Some((to, change)) = decide(head.version.as_ref(), &records)? else { return Ok(()) };
            if let Some(to) = &to {
                listing::renew(&*self.objects, to)?;
                self.load(to)?;
            }
            let step = 1 + head.record.as_ref().map_or(0, |r| r.step);
            let reason = self.reason.as_deref().map(str::to_owned);
            let record = AuditRecord { time_ms: now_ms, change, reason, step };
            if head::swap(&*self.objects, alias, &head, to.as_ref(), &record)? {
                return self.settle(Some(&record)).map(drop);
            }
            turns.next()?;
        }
    }

    /// Makes sure that an alias's last change is in the trail; returns all records.
    fn settle(&self, record: Option<&AuditRecord>) -> Result<Vec<AuditRecord>, RegistryError> {
        audit::append(&*self.objects, |records| {
            let lacks = record.filter(|record| !records.iter().rev().any(|r| r == *record));
            lacks.cloned().into_iter().collect()
        })
    }
}
