//! What was shown to whom a short while ago. In memory only: after a restart a feed may repeat itself once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lately_features::{ItemId, UserId};
use quick_cache::sync::Cache;

use crate::select::SelectConfig;

/// Shown items and when, newest first.
type Shown = Arc<Vec<(ItemId, i64)>>;

pub(crate) struct RecentlyShown {
    users: Cache<UserId, Shown>,
    items: usize,
    times: usize,
    window_ms: i64,
}

impl RecentlyShown {
    pub(crate) fn new(config: &SelectConfig) -> Self {
        Self {
            users: Cache::new(config.shown_users.max(1)),
            items: config.shown_items,
            times: config.shown_times,
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

    /// What was on as many pages of the window as count as just shown.
    pub(crate) fn of(&self, user: &UserId, now_ms: i64) -> HashSet<ItemId> {
        let shown = self.users.get(user).unwrap_or_default();
        let mut times: HashMap<&ItemId, usize> = HashMap::new();
        let recent = shown.iter().filter(|(_, at)| now_ms - at <= self.window_ms);
        recent.for_each(|(item, _)| *times.entry(item).or_default() += 1);
        times.into_iter().filter(|(_, n)| *n >= self.times).map(|(item, _)| item.clone()).collect()
    }

    pub(crate) fn forget(&self, user: &UserId) {
        self.users.remove(user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_counts_as_shown_after_so_many_pages_within_the_time() {
        let config = SelectConfig { shown_times: 2, shown_seconds: 10, ..SelectConfig::default() };
        let shown = RecentlyShown::new(&config);
        let (user, item) = (UserId::new("u").unwrap(), ItemId::new("i").unwrap());
        shown.add(&user, [&item].into_iter(), 0);
        assert!(shown.of(&user, 0).is_empty());
        shown.add(&user, [&item].into_iter(), 5_000);
        assert_eq!(shown.of(&user, 9_000), HashSet::from([item]));
        assert!(shown.of(&user, 12_000).is_empty(), "the first page is too old");
    }
}
