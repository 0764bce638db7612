//! From an event to all that one batch writes: the log record, its index key, the sequence entry, the entity.
//!
//! Two steps. [`Preparer`] does what needs no offset (names to positions, bytes, features) on the caller's thread.
//! [`Projection`] gives offsets and collects the batch, on the writer's thread alone.

use std::collections::HashSet;
use std::sync::Arc;

use fjall::{OwnedWriteBatch, UserKey, UserValue};
use lately_features::schema::Polarity;
use lately_features::{
    Action, Event, EventError, Features, ItemId, ItemVectors, Schema, SequenceEntry, UserId, codec,
};
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use crate::StoreError;
use crate::engine::Engine;
use crate::key::{self, Kind};

/// An event, ready to be given an offset.
pub(crate) struct Prepared {
    pub(crate) record: UserValue,
    pub(crate) effect: Effect,
}

/// What an event changes besides the log.
pub(crate) enum Effect {
    /// `entry` has no offset yet; `None` for a type that does not feed the sequence. `hides`: the item of a negative
    /// action.
    Action {
        user: UserId,
        event: u64,
        entry: Option<SequenceEntry>,
        hides: Option<ItemId>,
    },
    Impression {
        user: UserId,
        request: u64,
    },
    Item {
        item: ItemId,
        features: Arc<Features>,
        active: bool,
    },
    User {
        user: UserId,
        features: Arc<Features>,
    },
    Forget {
        user: UserId,
    },
}

/// Turns events into [`Prepared`] ones, by the schema.
#[derive(Clone)]
pub(crate) struct Preparer {
    pub(crate) schema: Arc<Schema>,
    pub(crate) vectors: Option<Arc<ItemVectors>>,
}

impl Preparer {
    pub(crate) fn new(schema: Arc<Schema>, vectors: Option<Arc<ItemVectors>>) -> Self {
        Self { schema, vectors }
    }

    /// `index` is the event's place in the caller's list, for the error.
    pub(crate) fn prepare(&self, event: &Event, index: usize) -> Result<Prepared, StoreError> {
        let effect = self.effect(event).map_err(|source| StoreError::Refused { index, source })?;
        Ok(Prepared { record: codec::encode(event).map_err(StoreError::Encode)?.into(), effect })
    }

    fn effect(&self, event: &Event) -> Result<Effect, EventError> {
        Ok(match event {
            Event::Action(a) => {
                if let Some(name) = &a.surface
                    && self.schema.surface(name).is_none()
                {
                    return Err(EventError::UnknownSurface(name.clone()));
                }
                let (entry, hides) = (self.entry(a)?, self.hides(a).cloned());
                Effect::Action { user: a.user.clone(), event: a.event_id.hash64(), entry, hides }
            }
            Event::Impression(i) => Effect::Impression { user: i.user.clone(), request: i.request.hash64() },
            Event::Item(i) => {
                let vectors = self.vectors.as_deref();
                let features = Features::encode_item(&self.schema, vectors, &i.item, &i.features)?;
                Effect::Item { item: i.item.clone(), features: Arc::new(features), active: i.active }
            }
            Event::User(u) => {
                let features = Features::encode(&self.schema.user_features, &u.features)?;
                Effect::User { user: u.user.clone(), features: Arc::new(features) }
            }
            Event::Forget(f) => Effect::Forget { user: f.user.clone() },
        })
    }

    /// The item that an action hides from its user for good: that of a negative one.
    pub(crate) fn hides<'a>(&self, a: &'a Action) -> Option<&'a ItemId> {
        let action = self.schema.action(&a.action)?;
        let negative = self.schema.actions[usize::from(action)].polarity == Polarity::Negative;
        negative.then_some(&a.item)
    }

    /// The sequence entry of an action, with offset 0; `None` where the type does not feed the sequence. A surface
    /// that is no longer declared counts as none: a rebuild reads records of former schemas.
    pub(crate) fn entry(&self, a: &Action) -> Result<Option<SequenceEntry>, EventError> {
        let action =
            self.schema.action(&a.action).ok_or_else(|| EventError::UnknownAction(a.action.clone()))?;
        if !self.schema.actions[usize::from(action)].sequence {
            return Ok(None);
        }
        Ok(Some(SequenceEntry {
            time_ms: a.time_ms,
            offset: 0,
            event: a.event_id.hash64(),
            request: a.request.as_ref().map_or(0, lately_features::RequestId::hash64),
            action,
            surface: a.surface.as_ref().and_then(|s| self.schema.surface(s)).unwrap_or(0),
            item: a.item.clone(),
        }))
    }
}

/// What the views in memory must take over once the batch is on disk.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) entries: Vec<(UserId, SequenceEntry)>,
    pub(crate) items: Vec<(ItemId, Arc<Features>, bool)>,
    pub(crate) users: Vec<(UserId, Arc<Features>)>,
}

/// One batch in the making.
pub(crate) struct Projection<'a> {
    engine: &'a Engine,
    batch: OwnedWriteBatch,
    next: u64,
    /// Index keys of this batch, which the engine does not show yet.
    seen: HashSet<UserKey, Xxh3DefaultBuilder>,
    changes: Changes,
}

impl<'a> Projection<'a> {
    /// Starts a batch whose first record gets the offset `next`.
    pub(crate) fn new(engine: &'a Engine, next: u64) -> Self {
        Self { engine, batch: engine.batch(), next, seen: HashSet::default(), changes: Changes::default() }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Adds an event; false where its id is known already, and nothing is added.
    pub(crate) fn add(&mut self, prepared: Prepared) -> Result<bool, StoreError> {
        let Prepared { record, effect } = prepared;
        let offset = self.next;
        match effect {
            Effect::Action { user, event, entry, hides } => {
                if !self.claim(key::index(&user, Kind::Action, event))? {
                    return Ok(false);
                }
                if let Some(item) = hides {
                    insert_hidden(self.engine, &mut self.batch, &user, &item, offset)?;
                }
                if let Some(entry) = entry {
                    self.push_entry(user, SequenceEntry { offset, ..entry })?;
                }
            }
            Effect::Impression { user, request } => {
                if !self.claim(key::index(&user, Kind::Impression, request))? {
                    return Ok(false);
                }
            }
            Effect::Item { item, features, active } => {
                self.batch.insert(&self.engine.items, item.as_str(), record.clone());
                self.changes.items.push((item, features, active));
            }
            Effect::User { user, features } => {
                self.batch.insert(&self.engine.users, user.as_str(), record.clone());
                // Every one is a record of its own: the offset stands for an id.
                self.claim(key::index(&user, Kind::User, offset))?;
                self.changes.users.push((user, features));
            }
            Effect::Forget { user } => {
                self.batch.remove(&self.engine.users, user.as_str());
            }
        }
        self.batch.insert(&self.engine.log, offset.to_be_bytes(), record);
        self.next += 1;
        Ok(true)
    }

    /// Takes an index key for the next record; false where it is taken.
    fn claim(&mut self, key: UserKey) -> Result<bool, StoreError> {
        if self.seen.contains(&key) || self.engine.index.contains_key(&key)? {
            return Ok(false);
        }
        self.batch.insert(&self.engine.index, key.clone(), self.next.to_be_bytes());
        self.seen.insert(key);
        Ok(true)
    }

    fn push_entry(&mut self, user: UserId, entry: SequenceEntry) -> Result<(), StoreError> {
        insert_entry(self.engine, &mut self.batch, &user, &entry)?;
        self.changes.entries.push((user, entry));
        Ok(())
    }

    /// Removes sequence entries by their keys.
    pub(crate) fn trim(&mut self, keys: Vec<UserKey>) {
        for key in keys {
            self.batch.remove(&self.engine.sequences, key);
        }
    }

    /// Removes all records of a user that are on disk; returns how many.
    pub(crate) fn scrub(&mut self, user: &UserId) -> Result<u64, StoreError> {
        let prefix = key::user(user);
        let mut removed = 0;
        for guard in self.engine.index.prefix(&prefix) {
            let (key, value) = guard.into_inner()?;
            if key::offset(&value).is_none() {
                return Err(crate::engine::damaged(format!("an index value of `{user}` is no offset")));
            }
            self.batch.remove(&self.engine.log, value);
            self.batch.remove(&self.engine.index, key);
            removed += 1;
        }
        for keyspace in [&self.engine.sequences, &self.engine.hidden] {
            for guard in keyspace.prefix(&prefix) {
                self.batch.remove(keyspace, guard.key()?);
            }
        }
        Ok(removed)
    }

    /// Makes the batch durable; returns what the views take over.
    pub(crate) fn commit(mut self) -> Result<Changes, StoreError> {
        self.engine.set_next(&mut self.batch, self.next);
        self.engine.commit(self.batch)?;
        Ok(self.changes)
    }
}

/// Writes that a user is not to be shown an item. The first action stays: from its offset on it is hidden.
pub(crate) fn insert_hidden(
    engine: &Engine,
    batch: &mut OwnedWriteBatch,
    user: &UserId,
    item: &ItemId,
    offset: u64,
) -> Result<(), StoreError> {
    let key = key::hidden(user, item);
    if !engine.hidden.contains_key(&key)? {
        batch.insert(&engine.hidden, key, offset.to_be_bytes());
    }
    Ok(())
}

/// Writes a sequence entry.
pub(crate) fn insert_entry(
    engine: &Engine,
    batch: &mut OwnedWriteBatch,
    user: &UserId,
    entry: &SequenceEntry,
) -> Result<(), StoreError> {
    let value = codec::encode(entry).map_err(StoreError::Encode)?;
    batch.insert(&engine.sequences, key::sequence(user, entry.time_ms, entry.offset), value);
    Ok(())
}
