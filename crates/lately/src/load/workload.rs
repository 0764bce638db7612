//! What is sent: the bodies of rankings and actions.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use lately_features::{Event, ItemId, Schema, UserId};
use rand::{Rng, RngExt};
use serde_json::to_string;

use super::users::Users;
use crate::data_dir::DataDir;
use crate::log_source;

/// The user whose scores are checked; nobody's actions are sent under this name.
pub(crate) const PROBE: &str = "lately-bench-probe";

/// Whose names requests hold.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// Users, the most active first.
    pub(crate) users: Vec<UserId>,
    /// Items.
    pub(crate) items: Vec<ItemId>,
}

impl Names {
    /// Users and items of a data directory's log, whoever has it open. Memory grows with their number, not the log's.
    pub(crate) fn of_log(dir: &DataDir) -> Result<Self> {
        let (mut users, mut items) = (HashMap::<UserId, u64>::new(), HashMap::<ItemId, ()>::new());
        log_source::each(dir, &mut |_, event| {
            if let Some(user) = event.user() {
                *users.entry(user.clone()).or_default() += 1;
            }
            match event {
                Event::Item(item) => drop(items.insert(item.item, ())),
                Event::Forget(forget) => drop(users.remove(&forget.user)),
                _ => {}
            }
            Ok(())
        })?;
        users.retain(|user, _| user.as_str() != PROBE);
        let mut users: Vec<(UserId, u64)> = users.into_iter().collect();
        users.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut items: Vec<ItemId> = items.into_keys().collect();
        items.sort();
        Ok(Self { users: users.into_iter().map(|(user, _)| user).collect(), items })
    }
}

/// Makes bodies of requests. Ids stand in it as JSON, so that a body is made by putting texts together.
#[derive(Debug)]
pub(crate) struct Workload {
    users: Vec<String>,
    items: Vec<String>,
    /// Names of action types.
    actions: Vec<String>,
    of_users: Users,
    candidates: usize,
    /// What requests say about their deadline: a field, or nothing.
    deadline: String,
    /// Makes ids of events those of this run.
    run: u64,
}

impl Workload {
    /// Rankings of `candidates` items; `deadline_ms` is named in them where it is given.
    pub(crate) fn new(
        names: &Names,
        schema: &Schema,
        exponent: f64,
        candidates: usize,
        deadline_ms: Option<u64>,
    ) -> Result<Self> {
        ensure!(
            (1..=names.items.len()).contains(&candidates),
            "{candidates} candidates of {} items: ask for at least 1 and at most all",
            names.items.len()
        );
        Ok(Self {
            of_users: Users::new(names.users.len(), exponent)?,
            users: names.users.iter().map(to_string).collect::<Result<_, _>>()?,
            items: names.items.iter().map(to_string).collect::<Result<_, _>>()?,
            actions: schema.actions.iter().map(|a| to_string(&a.name)).collect::<Result<_, _>>()?,
            candidates,
            deadline: deadline_ms.map(|ms| format!(",\"deadline_ms\":{ms}")).unwrap_or_default(),
            run: rand::random(),
        })
    }

    /// Candidates of a ranking.
    pub(crate) fn candidates(&self) -> usize {
        self.candidates
    }

    /// A ranking of random candidates for a user by Zipf's law.
    pub(crate) fn ranking(&self, random: &mut impl Rng) -> String {
        let user = &self.users[self.of_users.sample(random)];
        let chosen = rand::seq::index::sample(random, self.items.len(), self.candidates);
        self.body(user, chosen.into_iter())
    }

    /// The ranking whose scores are known: always the same.
    pub(crate) fn probe(&self) -> String {
        self.body(&format!("\"{PROBE}\""), 0..self.candidates)
    }

    fn body(&self, user: &str, items: impl Iterator<Item = usize>) -> String {
        let mut body = format!("{{\"user\":{user}{},\"candidates\":[", self.deadline);
        for (n, item) in items.enumerate() {
            if n > 0 {
                body.push(',');
            }
            body.push_str(&self.items[item]);
        }
        body.push_str("]}");
        body
    }

    /// The `number`th action of the run, of a user by Zipf's law.
    pub(crate) fn action(&self, number: u64, random: &mut impl Rng) -> String {
        let user = &self.users[self.of_users.sample(random)];
        let item = &self.items[random.random_range(0..self.items.len())];
        let action = &self.actions[random.random_range(0..self.actions.len())];
        format!(
            "{{\"events\":[{{\"type\":\"action\",\"event_id\":\"b{:x}-{number}\",\"user\":{user},\"item\":{item},\
             \"action\":{action}}}]}}",
            self.run
        )
    }
}

/// The names of a made data directory.
pub(crate) fn made_names(users: usize, items: usize) -> Result<Names> {
    let user = |n| UserId::new(format!("user-{n}")).context("a made name");
    let item = |n| ItemId::new(format!("item-{n}")).context("a made name");
    Ok(Names {
        users: (0..users).map(user).collect::<Result<_>>()?,
        items: (0..items).map(item).collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use serde_json::Value;

    use super::*;
    use crate::config::Config;
    use crate::load::preset::Preset;

    fn workload(deadline: Option<u64>) -> Workload {
        let toml = Preset::Nano.toml(&[]).unwrap();
        let schema = Config::parse(&toml, std::path::Path::new("x")).unwrap().schema;
        let mut names = made_names(5, 9).unwrap();
        names.items[0] = ItemId::new("\"quoted\\").unwrap();
        Workload::new(&names, &schema, 1.0, 6, deadline).unwrap()
    }

    #[test]
    fn bodies_are_json_with_distinct_candidates() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let workload = workload(Some(70));
        for _ in 0..20 {
            let body: Value = serde_json::from_str(&workload.ranking(&mut random)).unwrap();
            let candidates: HashSet<&str> =
                body["candidates"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
            assert_eq!((candidates.len(), &body["deadline_ms"]), (6, &70.into()));
            assert!(body["user"].as_str().unwrap().starts_with("user-"));
        }
        let probe: Value = serde_json::from_str(&workload.probe()).unwrap();
        assert_eq!((&probe["user"], &probe["candidates"][0]), (&PROBE.into(), &"\"quoted\\".into()));
        assert_eq!(workload.probe(), workload.probe());
    }

    #[test]
    fn actions_are_of_the_schema_and_have_ids_of_their_own() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let workload = workload(None);
        let mut ids = HashSet::new();
        for number in 0..50 {
            let body: Value = serde_json::from_str(&workload.action(number, &mut random)).unwrap();
            let event = &body["events"][0];
            assert_eq!(event["type"], "action");
            assert!(["seen", "click", "save", "hide", "share"].contains(&event["action"].as_str().unwrap()));
            assert!(ids.insert(event["event_id"].as_str().unwrap().to_owned()));
        }
    }

    #[test]
    fn more_candidates_than_items_are_refused() {
        let schema =
            Config::parse(&Preset::Nano.toml(&[]).unwrap(), std::path::Path::new("x")).unwrap().schema;
        for candidates in [0, 10] {
            let refused = Workload::new(&made_names(5, 9).unwrap(), &schema, 1.0, candidates, None);
            assert!(refused.unwrap_err().to_string().contains("of 9 items"));
        }
    }
}
