//! A small world of people and things, to show and to test the whole loop without anybody's data.
//!
//! It knows nothing of how Lately ranks: it holds what people want, and answers what they do with what they are
//! shown. Everything follows from the seed. A person has lasting tastes over topics; for the length of a phase
//! (half an hour) they want something narrower, which may lie outside their tastes, shows only in what they do, and
//! moves with it; and they tire of a topic that repeats. So a ranker must follow the last minutes to do well.

mod bootstrap;
mod catalogue;
mod drift;
mod life;
mod population;
mod session;

use std::collections::HashMap;

use lately_features::{Event, ItemId, Schema, SchemaError, UserId};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::catalogue::Thing;
pub use self::life::Life;
pub use self::population::Arrival;
use self::population::Person;
pub use self::session::{Chances, Outcome, Session};

/// Content of the `[schema]` table for this world.
pub const SCHEMA: &str = include_str!("world.toml");

/// The schema of the world's events.
pub fn schema() -> Result<Schema, SchemaError> {
    Schema::from_toml(SCHEMA)
}

/// How large the world is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorldConfig {
    /// People. Default 400.
    pub users: usize,
    /// Things that can be shown. Default 1,200.
    pub items: usize,
    /// Topics, 2 to 24. Default 24.
    pub topics: usize,
    /// Everything follows from it. Default 1.
    pub seed: u64,
    /// How fast fashions and tastes move on from day to day; 1 is a quick world. Default 0: not at all.
    pub drift: f64,
    /// Chance that what a core person wants lies outside their lasting tastes. Default 0.6.
    pub core_stray: f64,
    /// The same of a person who is not core. Default 0.6.
    pub casual_stray: f64,
    /// Share of the people who are not core that come for the first time after the world's past. Default 0.
    pub newcomers: f64,
    /// Share of them that were there at the past's beginning only, and come again after it. Default 0.
    pub returners: f64,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            users: 400,
            items: 1_200,
            topics: 24,
            seed: 1,
            drift: 0.0,
            core_stray: session::STRAY,
            casual_stray: session::STRAY,
            newcomers: 0.0,
            returners: 0.0,
        }
    }
}

/// The person or thing is not of this world.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// No such person.
    #[error("no user `{0}` in this world: choose one of its users")]
    UnknownUser(UserId),
    /// No such thing.
    #[error("no item `{0}` in this world: show its own items")]
    UnknownItem(ItemId),
    /// A name of the world is no id; a fault of the world.
    #[error("a name of the world: {0}")]
    Id(#[from] lately_features::IdError),
}

/// People and things. Never changes: what changes is in a [`Session`].
#[derive(Debug)]
pub struct World {
    config: WorldConfig,
    people: Vec<Person>,
    things: Vec<Thing>,
    person_of: HashMap<UserId, usize>,
    thing_of: HashMap<ItemId, usize>,
}

impl World {
    /// Makes the world of a seed; sizes are raised to at least 1 user, 1 item and 2 topics.
    pub fn new(config: WorldConfig) -> Result<Self, WorldError> {
        let share = |share: f64| if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        let config = WorldConfig {
            core_stray: share(config.core_stray),
            casual_stray: share(config.casual_stray),
            newcomers: share(config.newcomers),
            returners: share(config.returners),
            users: config.users.max(1),
            items: config.items.max(1),
            topics: config.topics.clamp(2, catalogue::TOPICS.len()),
            ..config
        };
        let things = catalogue::make(&config)?;
        let people = population::make(&config)?;
        let person_of = people.iter().enumerate().map(|(i, p)| (p.id.clone(), i)).collect();
        let thing_of = things.iter().enumerate().map(|(i, t)| (t.id.clone(), i)).collect();
        Ok(Self { config, people, things, person_of, thing_of })
    }

    /// One item event for each thing, dated `time_ms`.
    pub fn items(&self, time_ms: i64) -> Vec<Event> {
        self.things.iter().map(|t| t.event(time_ms)).collect()
    }

    /// One user event for each person, dated `time_ms`.
    pub fn users(&self, time_ms: i64) -> Vec<Event> {
        self.people.iter().map(|p| p.event(time_ms)).collect()
    }

    /// Ids of all people, core users first.
    pub fn user_ids(&self) -> Vec<UserId> {
        let mut ids: Vec<&Person> = self.people.iter().collect();
        ids.sort_by_key(|p| !p.core);
        ids.into_iter().map(|p| p.id.clone()).collect()
    }

    /// Ids of all things.
    pub fn item_ids(&self) -> Vec<ItemId> {
        self.things.iter().map(|t| t.id.clone()).collect()
    }

    /// Visits that a person makes in a day, on average: core users many, casual ones few.
    pub fn visits_per_day(&self, user: &UserId) -> Result<f64, WorldError> {
        Ok(self.person(user)?.visits_per_day)
    }

    /// The seed from which everything follows.
    pub fn seed(&self) -> u64 {
        self.config.seed
    }

    /// Name of a topic of [`World::topic`], as it stands in events.
    pub(crate) fn topic_name(&self, topic: usize) -> &'static str {
        catalogue::TOPICS[topic]
    }

    /// Topic of a thing, from 0.
    pub fn topic(&self, item: &ItemId) -> Result<usize, WorldError> {
        Ok(self.thing(item)?.topic)
    }

    /// Whether a person is core, and when they are here.
    pub fn kind(&self, user: &UserId) -> Result<(bool, Arrival), WorldError> {
        let person = self.person(user)?;
        Ok((person.core, person.arrival))
    }

    /// Opens the app as `user` at `time_ms`.
    pub fn visit(&self, user: &UserId, time_ms: i64) -> Result<Session<'_>, WorldError> {
        Ok(Session::open(self, self.person(user)?, time_ms, Vec::new()))
    }

    /// A long memory with nothing in it, for [`World::visit_with`].
    pub fn life(&self) -> Life {
        Life::new(self.config.topics)
    }

    /// As [`World::visit`], of a person with a long memory; tell it of the visit by [`Life::lived`].
    pub fn visit_with(&self, user: &UserId, time_ms: i64, life: &Life) -> Result<Session<'_>, WorldError> {
        Ok(Session::open(self, self.person(user)?, time_ms, life.weariness(time_ms)))
    }

    fn person(&self, user: &UserId) -> Result<&Person, WorldError> {
        let at = self.person_of.get(user).ok_or_else(|| WorldError::UnknownUser(user.clone()))?;
        Ok(&self.people[*at])
    }

    fn thing(&self, item: &ItemId) -> Result<&Thing, WorldError> {
        let at = self.thing_of.get(item).ok_or_else(|| WorldError::UnknownItem(item.clone()))?;
        Ok(&self.things[*at])
    }
}

/// A stream of random numbers that depends on nothing but the seed and what it is for.
pub(crate) fn stream(seed: u64, purpose: u64, of: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose, of, 0x6c61_7465_6c79]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A number of mean 0 and variance 1, nearly normal: the sum of twelve uniform ones, which is the same on every
/// machine.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    use rand::RngExt;
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}

/// A number drawn in proportion to its weight.
fn draw(rng: &mut ChaCha8Rng, weights: &[f64]) -> usize {
    use rand::RngExt;
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (i, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return i;
        }
    }
    weights.len() - 1
}

#[cfg(test)]
mod tests;
