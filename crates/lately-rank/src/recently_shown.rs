//! What was shown to whom a short while ago. In memory only: after a restart a feed may repeat itself once.

use std::collections::HashSet;
use std::sync::Arc;

use lately_features::{ItemId, UserId};
use quick_cache::sync::Cache;

use crate::config::SelectConfig;

/// Shown items and when, newest first.
type Shown = Arc<Vec<(ItemId, i64)>>;

pub(crate) struct RecentlyShown {
    users: Cache<UserId, Shown>,
    items: usize,
    window_ms: i64,
}

impl RecentlyShown {
    pub(crate) fn new(config: &SelectConfig) -> Self {
        Self {
            users: Cache::new(config.shown_users.max(1)),
            items: config.shown_items,
            window_ms: i64::from(config.shown_seconds) * 1_000,
        }
    }

    /// Remembers a slate. Of two slates of one user at the very same moment one may be lost, which only repeats it.
    pub(crate) fn add<'a>(&self, user: &UserId, items: impl Iterator<Item = &'a ItemId>, now_ms: i64) {
        let former = self.users.get(user).unwrap_or_default();
        let all = items.map(|i| (i.clone(), now_ms)).chain(former.iter().cloned());
        let all: Vec<_> = all.filter(|(_, at)| now_ms - at <= self.window_ms).take(self.items).collect();
        self.users.insert(user.clone(), Arc::new(all));
    }

    pub(crate) fn of(&self, user: &UserId, now_ms: i64) -> HashSet<ItemId> {
        let shown = self.users.get(user).unwrap_or_default();
        shown.iter().filter(|(_, at)| now_ms - at <= self.window_ms).map(|(i, _)| i.clone()).collect()
    }

    pub(crate) fn forget(&self, user: &UserId) {
        self.users.remove(user);
    }
}
