//! What a nightly batch job knows of a person: the topics that they saved most of late.
//!
//! The article's control has the like, long-term embeddings of people that are made once a day from months of actions.
//! Without it the sequence would also stand in for what any product knows of those who come daily.

use std::collections::HashMap;

use lately_features::event::User;
use lately_features::{Event, FeatureValue, UserId};

use super::person::Inhabitant;
use crate::world::World;

/// Name of the user feature.
const FEATURE: &str = "top_topics";
/// Its place in the schema: beside the world's own features of people.
const DECLARED: &str = r#"
    { kind = "categorical", name = "top_topics", buckets = 256, dim = 8, max_values = 4 },"#;
/// Topics that are named, at most; as many as a person of the world likes.
const TOPICS: usize = 4;
/// What a save counts after a night: half after a week.
const KEPT: f64 = 0.905_723_664_263_906_7;
/// What a topic must count to be named: more than one save.
const LEAST: f64 = 1.5;

/// One person's saves by topic, the older the less.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Profile {
    saves: Vec<f64>,
}

impl Profile {
    /// A save on a topic.
    pub(super) fn saved(&mut self, topic: usize) {
        if self.saves.len() <= topic {
            self.saves.resize(topic + 1, 0.0);
        }
        self.saves[topic] += 1.0;
    }

    /// The night between two days.
    pub(super) fn age(&mut self) {
        self.saves.iter_mut().for_each(|saves| *saves *= KEPT);
    }

    /// The topics that are named, the most saved first.
    fn top(&self) -> Vec<usize> {
        let mut named: Vec<usize> = (0..self.saves.len()).filter(|t| self.saves[*t] >= LEAST).collect();
        named.sort_by(|a, b| self.saves[*b].total_cmp(&self.saves[*a]).then(a.cmp(b)));
        named.truncate(TOPICS);
        named
    }
}

/// The world's schema, with the profile among the features of people.
pub(super) fn schema(of_world: &str) -> String {
    of_world.replacen("user_features = [", &format!("user_features = [{DECLARED}"), 1)
}

/// What is known of all people in a night.
pub(super) fn tonight(world: &World, people: &[Inhabitant], time_ms: i64) -> Vec<Event> {
    let profiles: HashMap<&UserId, &Profile> = people.iter().map(|p| (&p.user, &p.profile)).collect();
    let with = |event| match event {
        Event::User(mut user) => {
            let top = profiles.get(&user.user).map(|profile| profile.top());
            name(world, &mut user, &top.unwrap_or_default());
            Event::User(user)
        }
        other => other,
    };
    world.users(time_ms).into_iter().map(with).collect()
}

fn name(world: &World, user: &mut User, top: &[usize]) {
    let names: Vec<String> = top.iter().map(|t| world.topic_name(*t).to_owned()).collect();
    if !names.is_empty() {
        user.features.insert(FEATURE.to_owned(), FeatureValue::Texts(names));
    }
}

#[cfg(test)]
mod tests {
    use super::super::person::inhabitants;
    use super::super::recipe::Recipe;
    use super::*;
    use crate::world::{SCHEMA, WorldConfig};

    #[test]
    fn what_was_saved_more_than_once_is_named_until_it_is_long_ago() {
        let mut profile = Profile::default();
        [3, 7, 7, 9, 9, 9].into_iter().for_each(|topic| profile.saved(topic));
        assert_eq!(profile.top(), [9, 7]);
        (0..7).for_each(|_| profile.age());
        assert!((profile.saves[9] - 1.5).abs() < 1e-9, "half after a week");
        profile.age();
        assert_eq!(profile.top(), [0usize; 0]);
        [1, 2, 4, 5, 6].into_iter().flat_map(|t| [t; 2]).for_each(|t| profile.saved(t));
        assert_eq!(profile.top(), [1, 2, 4, 5], "no more than are liked");
    }

    #[test]
    fn the_schema_has_it_and_the_night_tells_it() {
        let schema = lately_features::Schema::from_toml(&schema(SCHEMA)).unwrap();
        assert!(schema.user_features.iter().any(|f| f.name() == FEATURE), "{:?}", schema.user_features);
        let world = World::new(WorldConfig { users: 3, items: 24, ..WorldConfig::default() }).unwrap();
        let mut people = inhabitants(&world, &Recipe::default(), &[]).unwrap();
        (0..2).for_each(|_| people[1].profile.saved(2));
        let told = tonight(&world, &people, 5);
        let named: Vec<_> = told
            .iter()
            .filter_map(|event| match event {
                Event::User(user) => Some((user.user.clone(), user.features.get(FEATURE)?.clone())),
                other => panic!("{other:?}"),
            })
            .collect();
        let birds = FeatureValue::Texts(vec!["birds".to_owned()]);
        assert_eq!((named, told.len()), (vec![(people[1].user.clone(), birds)], 3));
    }
}
