//! What a rollout changes in the registry: an alias is taken back, or a challenger promoted.

use anyhow::{Context, Result};
use lately_store::registry::Change;
use lately_store::{Registry, Version};
use lately_train::publish::{CHALLENGER, CHAMPION};

use super::watch::Came;

/// Takes the champion alias from a version, back to what it named before, or where that cannot be to `reference`, and
/// vetoes the version: nobody but a person promotes it again. Returns what the alias names now; `None` where it named
/// another one by then.
pub(super) fn undo(registry: &Registry, bad: &str, reference: &str, reason: &str) -> Result<Option<Version>> {
    let names = |version: &Option<Version>| version.as_ref().is_some_and(|v| v.as_str() == bad);
    if !names(&registry.alias(CHAMPION)?) {
        return Ok(None);
    }
    let registry = &registry.because(reason);
    veto(registry, bad, reason)?;
    let to = match registry.rollback(CHAMPION) {
        Ok((from, to)) if from.as_str() == bad => to,
        // Somebody else changed it in between, and that was undone instead: it stays as they left it.
        Ok((from, _)) => {
            registry.set_alias(CHAMPION, &from)?;
            return Ok(None);
        }
        Err(error) => {
            let to: Version = reference.parse()?;
            tracing::warn!(%error, %to, "cannot roll back: going to the version that was compared with");
            registry.set_alias(CHAMPION, &to).context("the champion cannot be taken back")?;
            to
        }
    };
    tracing::error!(from = bad, %to, reason, "rolled the champion back");
    Ok(Some(to))
}

/// Before the alias is moved: a crash in between leaves a version that nothing promotes, and the guardrail sees it again.
fn veto(registry: &Registry, bad: &str, reason: &str) -> Result<()> {
    Ok(registry.veto(&bad.parse()?, reason)?)
}

/// Takes the challenger alias from a version, if it names that, and vetoes it.
pub(super) fn dismiss(registry: &Registry, bad: &str, reason: &str) -> Result<()> {
    if registry.alias(CHALLENGER)?.is_some_and(|v| v.as_str() == bad) {
        veto(registry, bad, reason)?;
        registry.because(reason).remove_alias(CHALLENGER)?;
        tracing::error!(version = bad, reason, "took the challenger away");
    }
    Ok(())
}

/// Makes the challenger the champion, where the aliases still name these two. Returns whether they did.
pub(super) fn promote(registry: &Registry, challenger: &str, champion: &str) -> Result<bool> {
    let aliases = [registry.alias(CHALLENGER)?, registry.alias(CHAMPION)?];
    let [Some(new), Some(old)] = &aliases else { return Ok(false) };
    if new.as_str() != challenger || old.as_str() != champion {
        return Ok(false);
    }
    let registry = registry.because("the canary stayed healthy");
    registry.promote(CHAMPION, new)?;
    registry.remove_alias(CHALLENGER)?;
    Ok(true)
}

/// How the champion alias came to name a version; `None` where the trail does not tell.
pub(super) fn came(registry: &Registry, version: &str) -> Result<Option<Came>> {
    let mut came = None;
    for record in registry.audit()? {
        let (alias, from, to, rollback) = match record.change {
            Change::Alias { alias, from, to, .. } => (alias, from, to, false),
            Change::Rollback { alias, from, to, .. } => (alias, Some(from), to, true),
            _ => continue,
        };
        if alias == CHAMPION && to.as_str() == version {
            came = Some(Came { from: from.map(|v| v.to_string()), time_ms: record.time_ms, rollback });
        }
    }
    Ok(came)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> (tempfile::TempDir, Registry, [Version; 3]) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        let versions =
            ["a", "b", "c"].map(|v| registry.publish(v.as_bytes(), &serde_json::Value::Null).unwrap());
        (dir, registry, versions)
    }

    #[test]
    fn the_champion_goes_back_once_and_not_from_another_version() {
        let (_dir, registry, [a, b, c]) = registry();
        registry.set_alias(CHAMPION, &a).unwrap();
        registry.set_alias(CHAMPION, &b).unwrap();
        assert_eq!(undo(&registry, c.as_str(), a.as_str(), "no").unwrap(), None, "it names another one");
        assert_eq!(undo(&registry, b.as_str(), a.as_str(), "why").unwrap(), Some(a.clone()));
        assert_eq!(undo(&registry, b.as_str(), a.as_str(), "again").unwrap(), None);
        let back = came(&registry, a.as_str()).unwrap().unwrap();
        assert_eq!((back.from.as_deref(), back.rollback), (Some(b.as_str()), true));
        let there = came(&registry, b.as_str()).unwrap().unwrap();
        assert_eq!((there.from.as_deref(), there.rollback), (Some(a.as_str()), false));
        assert_eq!(came(&registry, c.as_str()).unwrap(), None);
    }

    #[test]
    fn where_nothing_was_named_before_it_goes_to_what_was_compared_with() {
        let (_dir, registry, [a, b, _]) = registry();
        registry.set_alias(CHAMPION, &b).unwrap();
        assert_eq!(undo(&registry, b.as_str(), a.as_str(), "why").unwrap(), Some(a.clone()));
        assert_eq!(registry.alias(CHAMPION).unwrap(), Some(a));
    }

    #[test]
    fn a_challenger_is_dismissed_or_promoted_as_long_as_it_is_one() {
        let (_dir, registry, [a, b, c]) = registry();
        registry.set_alias(CHAMPION, &a).unwrap();
        registry.set_alias(CHALLENGER, &b).unwrap();
        dismiss(&registry, c.as_str(), "another one").unwrap();
        assert!(!promote(&registry, c.as_str(), a.as_str()).unwrap());
        assert!(!promote(&registry, b.as_str(), c.as_str()).unwrap(), "compared with another champion");
        assert!(promote(&registry, b.as_str(), a.as_str()).unwrap());
        assert_eq!((registry.alias(CHAMPION).unwrap(), registry.alias(CHALLENGER).unwrap()), (Some(b), None));
        registry.set_alias(CHALLENGER, &c).unwrap();
        dismiss(&registry, c.as_str(), "why").unwrap();
        assert_eq!(registry.alias(CHALLENGER).unwrap(), None);
    }
}
