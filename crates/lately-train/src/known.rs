//! What the join knows at a place in the log: who did what, features by version, ids by number. The join of a whole log
//! and the stream of the lake share it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use lately_features::{
    Assembler, Event, EventError, Features, ItemId, ItemVectors, Schema, SequenceEntry, Token, UserId,
    UserSequence, tokens,
};

/// Kept versions of one user's or item's features; older ones matter only to a request that was ranked this many
/// changes ago.
const VERSIONS: usize = 8;

/// Features of an item or user as one record of the log brought them.
#[derive(Debug)]
pub(crate) struct Version {
    /// Number of the item or user.
    pub(crate) of: u32,
    /// Offset of the record; `None`: nothing was known yet.
    pub(crate) offset: Option<u64>,
    pub(crate) features: Option<Arc<Features>>,
}

/// The latest features of one user or item, oldest first.
pub(crate) struct Versions {
    none: Arc<Version>,
    pub(crate) list: Vec<Arc<Version>>,
}

impl Versions {
    pub(crate) fn new(of: u32) -> Self {
        Self { none: Arc::new(Version { of, offset: None, features: None }), list: Vec::new() }
    }

    pub(crate) fn push(&mut self, offset: u64, features: Arc<Features>) {
        if self.list.len() == VERSIONS {
            self.list.remove(0);
        }
        let version = Version { of: self.none.of, offset: Some(offset), features: Some(features) };
        self.list.push(Arc::new(version));
    }

    /// What was known at a watermark.
    pub(crate) fn before(&self, watermark: u64) -> &Arc<Version> {
        self.list.iter().rev().find(|v| v.offset < Some(watermark)).unwrap_or(&self.none)
    }
}

/// Numbers for ids, in order of first appearance.
pub(crate) struct Interner<Id> {
    numbers: HashMap<Id, u32>,
    pub(crate) list: Vec<Id>,
}

impl<Id> Default for Interner<Id> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), list: Vec::new() }
    }
}

impl<Id: Clone + Eq + Hash> Interner<Id> {
    pub(crate) fn find(&self, id: &Id) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    pub(crate) fn number(&mut self, id: &Id) -> u32 {
        if let Some(number) = self.find(id) {
            return number;
        }
        let number = self.list.len() as u32;
        self.numbers.insert(id.clone(), number);
        self.list.push(id.clone());
        number
    }
}

/// What is known of one user.
pub(crate) struct Person {
    pub(crate) sequence: UserSequence,
    pub(crate) features: Versions,
}

impl Person {
    pub(crate) fn new(user: u32) -> Self {
        Self { sequence: UserSequence::default(), features: Versions::new(user) }
    }
}

/// A user at a watermark.
pub(crate) struct View {
    /// What the ranker saw, newest first; `None` where that can no longer be said.
    pub(crate) tokens: Option<Vec<Token>>,
    /// Of each token the item, at its version.
    pub(crate) items: Vec<Arc<Version>>,
    pub(crate) features: Option<Arc<Features>>,
}

impl View {
    /// Whether the user was core by the schema's rule.
    pub(crate) fn is_core(&self, schema: &Schema) -> bool {
        let rule = schema.core_users.as_ref();
        let of = |f: &Arc<Features>| f.is_core(&schema.user_features, rule);
        self.features.as_ref().map_or(rule.is_none(), of)
    }
}

/// What is known of all users and items.
pub(crate) struct Known {
    pub(crate) schema: Arc<Schema>,
    pub(crate) assembler: Assembler,
    stored: usize,
    slack: usize,
    vectors: Option<Arc<ItemVectors>>,
    pub(crate) users: Interner<UserId>,
    pub(crate) people: Vec<Person>,
    pub(crate) items: Interner<ItemId>,
    pub(crate) item_features: Vec<Versions>,
}

impl Known {
    /// Nothing is known. `slack`: actions of one user kept beyond `sequence.stored`.
    pub(crate) fn new(schema: &Arc<Schema>, slack: usize, vectors: Option<Arc<ItemVectors>>) -> Self {
        Self {
            schema: schema.clone(),
            assembler: Assembler::new(schema),
            stored: usize::from(schema.sequence.stored),
            slack,
            vectors,
            users: Interner::default(),
            people: Vec::new(),
            items: Interner::default(),
            item_features: Vec::new(),
        }
    }

    pub(crate) fn user(&mut self, id: &UserId) -> u32 {
        let user = self.users.number(id);
        if user as usize == self.people.len() {
            self.people.push(Person::new(user));
        }
        user
    }

    pub(crate) fn item(&mut self, id: &ItemId) -> u32 {
        let item = self.items.number(id);
        if item as usize == self.item_features.len() {
            self.item_features.push(Versions::new(item));
        }
        item
    }

    /// An item as it was known at a watermark.
    pub(crate) fn item_at(&self, item: u32, watermark: u64) -> &Arc<Version> {
        self.item_features[item as usize].before(watermark)
    }

    /// Takes an action into its user's sequence; its `item` is replaced by the kept id of number `item`.
    pub(crate) fn act(&mut self, user: u32, item: u32, mut entry: SequenceEntry) {
        entry.item = self.items.list[item as usize].clone();
        self.people[user as usize].sequence.apply(entry, self.stored + self.slack);
    }

    /// Takes features of an item or user; other events are none.
    ///
    /// # Errors
    /// Where the features do not fit the schema: the ones before stay.
    pub(crate) fn learn(&mut self, offset: u64, event: &Event) -> Result<(), EventError> {
        match event {
            Event::Item(e) => {
                let item = self.item(&e.item);
                let vectors = self.vectors.as_deref();
                let features = Features::encode_item(&self.schema, vectors, &e.item, &e.features)?;
                self.item_features[item as usize].push(offset, Arc::new(features));
            }
            Event::User(e) => {
                let user = self.user(&e.user);
                let features = Features::encode(&self.schema.user_features, &e.features)?;
                self.people[user as usize].features.push(offset, Arc::new(features));
            }
            _ => {}
        }
        Ok(())
    }

    /// Drops all that is known of a user.
    pub(crate) fn forget(&mut self, user: u32) {
        self.people[user as usize] = Person::new(user);
    }

    /// A user as the ranker saw them at `watermark`: the newest `stored` actions, then the shared token function.
    pub(crate) fn view(&self, user: u32, watermark: u64) -> View {
        let person = &self.people[user as usize];
        let features = person.features.before(watermark).features.clone();
        let entries = person.sequence.entries();
        let mut items = Vec::new();
        let mut of = |sequence: &UserSequence| {
            tokens(&self.assembler, sequence, watermark, |id| {
                let version = self.items.find(id).map(|item| self.item_at(item, watermark))?;
                items.push(version.clone());
                version.features.clone()
            })
        };
        if entries.len() <= self.stored {
            let tokens = Some(of(&person.sequence)); // nothing was cut then or since
            return View { tokens, items, features };
        }
        let known = entries.iter().filter(|e| e.offset < watermark).take(self.stored);
        let known = UserSequence::from_ordered(known.cloned().collect());
        let full = entries.len() == self.stored + self.slack;
        let cut = full && known.entries().len() < self.stored;
        let tokens = (!cut).then(|| of(&known));
        View { tokens, items, features }
    }
}
