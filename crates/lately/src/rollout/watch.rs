//! Which version is watched, and with which it is compared.

/// How an alias came to name a version, by the audit trail.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Came {
    /// What it named before.
    pub(super) from: Option<String>,
    /// When.
    pub(super) time_ms: i64,
    /// Whether somebody went back to it.
    pub(super) rollback: bool,
}

/// The champion's watch. A version is watched from its swap on, beside the last one that stood the time. What somebody
/// rolls back to is trusted: the watch does not argue with people.
#[derive(Debug, Default)]
pub(super) struct Watch {
    serves: Option<String>,
    /// The last version that was not taken back in its time.
    reference: Option<String>,
    /// Since when the one that serves is watched.
    since_ms: Option<i64>,
    /// Whether the next rollback is this server's own doing.
    undoing: bool,
}

impl Watch {
    pub(super) fn serves(&self, version: &str) -> bool {
        self.serves.as_deref() == Some(version)
    }

    /// Another version serves. Returns whether what is known of it must be forgotten, as its watch begins now; that of a
    /// swap shortly before the server's start goes on with what the log told.
    pub(super) fn see(&mut self, version: &str, came: Option<Came>, now_ms: i64, length_ms: i64) -> bool {
        let first = self.serves.replace(version.to_owned()).is_none();
        let ours = std::mem::take(&mut self.undoing);
        let back = came.as_ref().is_some_and(|c| c.rollback) && !ours;
        let recent = came.filter(|c| now_ms - c.time_ms < length_ms);
        if first && !back {
            self.reference = recent.as_ref().and_then(|c| c.from.clone());
        }
        if back || self.reference.as_deref().is_none_or(|r| r == version) {
            self.reference = Some(version.to_owned());
            self.since_ms = None;
            return false;
        }
        self.since_ms = Some(recent.filter(|_| first).map_or(now_ms, |c| c.time_ms));
        !first
    }

    /// With which version the one that serves is to be compared, and since when it is watched; `None` where it is not. A
    /// time that is over makes it what the next one is compared with.
    pub(super) fn reference(&mut self, now_ms: i64, length_ms: i64) -> Option<(String, i64)> {
        let since_ms = self.since_ms?;
        if now_ms - since_ms >= length_ms {
            self.since_ms = None;
            self.reference.clone_from(&self.serves);
            tracing::info!(version = self.serves, "the champion has stood its time under watch");
            return None;
        }
        Some((self.reference.clone()?, since_ms))
    }

    /// The version that serves is about to be taken back.
    pub(super) fn undo(&mut self) {
        self.undoing = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: i64 = 100;

    fn came(from: &str, time_ms: i64, rollback: bool) -> Option<Came> {
        Some(Came { from: Some(from.to_owned()), time_ms, rollback })
    }

    fn watch_of(version: &str) -> Watch {
        let mut watch = Watch::default();
        assert!(!watch.see(version, None, 0, LENGTH));
        watch
    }

    fn reference(watch: &mut Watch, now_ms: i64) -> Option<(String, i64)> {
        watch.reference(now_ms, LENGTH)
    }

    #[test]
    fn a_swap_is_watched_for_its_time_and_is_then_what_the_next_one_is_compared_with() {
        let mut watch = watch_of("a");
        assert_eq!(reference(&mut watch, 50), None, "the first has nothing to be compared with");
        assert!(watch.see("b", came("a", 58, false), 60, LENGTH));
        assert_eq!(reference(&mut watch, 159), Some(("a".into(), 60)));
        // One more within that time: still beside the last that stood.
        assert!(watch.see("c", came("b", 150, false), 150, LENGTH));
        assert_eq!(reference(&mut watch, 249), Some(("a".into(), 150)));
        assert_eq!(reference(&mut watch, 250), None);
        assert!(watch.see("d", came("c", 300, false), 300, LENGTH));
        assert_eq!(reference(&mut watch, 301), Some(("c".into(), 300)));
    }

    #[test]
    fn who_goes_back_is_not_argued_with() {
        let mut watch = watch_of("a");
        watch.see("b", came("a", 10, false), 10, LENGTH);
        assert!(!watch.see("a", came("b", 20, false), 20, LENGTH), "promoted again instead of rolled back");
        assert_eq!(reference(&mut watch, 21), None);
        assert!(!watch.see("older", came("a", 30, true), 30, LENGTH));
        assert_eq!(reference(&mut watch, 31), None);
        watch.see("c", came("older", 40, false), 40, LENGTH);
        assert_eq!(reference(&mut watch, 41), Some(("older".into(), 40)));
    }

    #[test]
    fn what_the_server_itself_goes_back_to_is_watched_unless_it_has_stood() {
        let mut watch = watch_of("a");
        watch.see("b", came("a", 10, false), 10, LENGTH);
        watch.see("c", came("b", 20, false), 20, LENGTH);
        watch.undo();
        assert!(watch.see("b", came("c", 30, true), 30, LENGTH));
        assert_eq!(reference(&mut watch, 31), Some(("a".into(), 30)));
        watch.undo();
        assert!(!watch.see("a", came("b", 40, true), 40, LENGTH));
        assert_eq!(reference(&mut watch, 41), None);
    }

    #[test]
    fn a_watch_goes_on_after_a_restart() {
        let mut watch = Watch::default();
        assert!(!watch.see("b", came("a", 950, false), 1_000, LENGTH), "with what the log told of it");
        assert_eq!(reference(&mut watch, 1_001), Some(("a".into(), 950)));
        assert_eq!(reference(&mut watch, 1_050), None);
        for (before, back) in [(900, false), (950, true)] {
            let mut watch = Watch::default();
            watch.see("b", came("a", before, back), 1_000, LENGTH);
            assert_eq!(reference(&mut watch, 1_001), None, "long ago, or gone back to");
        }
    }
}
