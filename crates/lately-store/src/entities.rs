//! Items and users in memory, encoded for the model.
//!
//! Ranking looks up thousands of items a request, so all of them are held: a lookup is a hash and one reference
//! count. On disk lies the record as it was sent, so that a changed schema encodes it anew at the next open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use lately_features::event::FeatureValues;
use lately_features::schema::FeatureKind;
use lately_features::{EntityTable, Event, Features, ItemId, ItemVectors, Schema, UserId, codec};

use crate::StoreError;
use crate::engine::{Engine, damaged};

type ActiveItems = Arc<Vec<(ItemId, Arc<Features>)>>;

/// The tables. A lock that a panicking thread held is taken over: each change is one insertion, never half done.
pub(crate) struct Entities {
    /// Features, and whether the item is active.
    items: RwLock<HashMap<ItemId, (Arc<Features>, bool)>>,
    users: RwLock<EntityTable<UserId>>,
    /// Made when asked for, dropped when an item changes. Lock order: this one before `items`.
    active: Mutex<Option<ActiveItems>>,
    unfit: usize,
}

/// Sizes of the tables.
pub(crate) struct Counts {
    pub(crate) items: usize,
    pub(crate) users: usize,
    pub(crate) unfit: usize,
}

impl Entities {
    /// Reads all stored items and users.
    pub(crate) fn load(
        engine: &Engine,
        schema: &Schema,
        vectors: Option<&ItemVectors>,
    ) -> Result<Self, StoreError> {
        let (mut items, mut users, mut unfit) = (HashMap::new(), EntityTable::default(), 0);
        for guard in engine.items.iter() {
            let Event::Item(item) = entity(guard, "item")? else {
                return Err(damaged("items holds another record"));
            };
            let (mut features, fit) = encode_what_fits(&schema.item_features, &item.features);
            unfit += usize::from(!fit);
            if let Some(vectors) = vectors {
                vectors.put(&item.item, &mut features);
            }
            items.insert(item.item, (Arc::new(features), item.active));
        }
        for guard in engine.users.iter() {
            let Event::User(user) = entity(guard, "user")? else {
                return Err(damaged("users holds another record"));
            };
            let (features, fit) = encode_what_fits(&schema.user_features, &user.features);
            unfit += usize::from(!fit);
            users.insert(user.user, Arc::new(features));
        }
        if unfit > 0 {
            tracing::warn!(
                unfit,
                "stored items or users have features that the schema no longer declares so"
            );
        }
        Ok(Self { items: RwLock::new(items), users: RwLock::new(users), active: Mutex::new(None), unfit })
    }

    pub(crate) fn item(&self, item: &ItemId) -> Option<Arc<Features>> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        items.get(item).map(|(features, _)| features.clone())
    }

    pub(crate) fn active_item(&self, item: &ItemId) -> Option<Arc<Features>> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        items.get(item).filter(|(_, active)| *active).map(|(features, _)| features.clone())
    }

    pub(crate) fn user(&self, user: &UserId) -> Option<Arc<Features>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).get(user).cloned()
    }

    pub(crate) fn set_items(&self, changes: Vec<(ItemId, Arc<Features>, bool)>) {
        if changes.is_empty() {
            return;
        }
        let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
        items.extend(changes.into_iter().map(|(item, features, active)| (item, (features, active))));
        drop(items);
        *self.active.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn set_users(&self, changes: Vec<(UserId, Arc<Features>)>) {
        if changes.is_empty() {
            return;
        }
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        for (user, features) in changes {
            users.insert(user, features);
        }
    }

    pub(crate) fn remove_user(&self, user: &UserId) {
        self.users.write().unwrap_or_else(PoisonError::into_inner).remove(user);
    }

    /// Holds the snapshot's lock while it reads the table, so that a change either is in it or drops it afterwards.
    pub(crate) fn active_items(&self) -> ActiveItems {
        let mut slot = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(active) = &*slot {
            return active.clone();
        }
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        let active = items.iter().filter(|(_, (_, active))| *active);
        let mut active: Vec<_> =
            active.map(|(item, (features, _))| (item.clone(), features.clone())).collect();
        drop(items);
        // By id: the same data gives the same order, in every process.
        active.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        slot.insert(Arc::new(active)).clone()
    }

    /// Test hook: while the guard lives, no change of a user gets through.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> std::sync::RwLockReadGuard<'_, EntityTable<UserId>> {
        self.users.read().unwrap()
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            items: self.items.read().unwrap_or_else(PoisonError::into_inner).len(),
            users: self.users.read().unwrap_or_else(PoisonError::into_inner).len(),
            unfit: self.unfit,
        }
    }
}

fn entity(guard: fjall::Guard, what: &str) -> Result<Event, StoreError> {
    let (key, value) = guard.into_inner()?;
    codec::decode(&value).map_err(StoreError::record(format!("{what} `{}`", String::from_utf8_lossy(&key))))
}

/// Encodes what the schema still declares; false where a value had to be left out.
fn encode_what_fits(kinds: &[FeatureKind], values: &FeatureValues) -> (Features, bool) {
    if let Ok(features) = Features::encode(kinds, values) {
        return (features, true);
    }
    let fits = |name: &String, value: &_| {
        Features::encode(kinds, &FeatureValues::from([(name.clone(), Clone::clone(value))])).is_ok()
    };
    let kept: FeatureValues = values
        .iter()
        .filter(|(name, value)| fits(name, value))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    // Each value fits alone and features do not depend on one another, so this cannot fail; if it ever does, an
    // entity without features is what the model knows as missing.
    let features = Features::encode(kinds, &kept).or_else(|_| Features::encode(kinds, &FeatureValues::new()));
    (
        features.unwrap_or_else(|_| Features {
            categorical: [].into(),
            numeric: [].into(),
            embedding: [].into(),
        }),
        false,
    )
}
