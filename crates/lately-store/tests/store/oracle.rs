//! Random operations against a plain model: what was sent, first of each id, newest first, cut; and nothing else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use lately_features::{Event, Impression, RequestId};
use proptest::prelude::*;

use super::*;

const USERS: [&str; 3] = ["a", "ab", "b"];
const CAP: usize = 6;

#[derive(Debug, Clone)]
enum Op {
    /// One append of several events, each by a small number for user, id and time.
    Append(Vec<Sent>),
    Forget(usize),
    /// Read a sequence, so that it is cached.
    Read(usize),
    Reopen,
    Rebuild,
}

#[derive(Debug, Clone)]
enum Sent {
    Action { user: usize, id: u8, time: i64, action: &'static str },
    Impression { user: usize, id: u8 },
    Item { item: u8, views: u8, active: bool },
    User { user: usize, country: u8 },
}

impl Sent {
    fn event(&self) -> Event {
        match self {
            // Times of before 1970 too: the store validates nothing, the order must hold.
            Self::Action { user, id, time, action } => {
                super::action(USERS[*user], &format!("e{id}"), action, *time)
            }
            Self::Impression { user, id } => {
                let request = RequestId::new(format!("r{id}")).unwrap();
                let shown = Impression::outside(request, super::user(USERS[*user]), None, T0, vec![]);
                Event::Impression(shown)
            }
            Self::Item { item, views, active } => item_event(&format!("i{item}"), f64::from(*views), *active),
            Self::User { user, country } => user_event(USERS[*user], &format!("c{country}")),
        }
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        6 => (0..3usize, 0..40u8, -20..20i64, prop::sample::select(vec!["click", "save", "seen"]))
            .prop_map(|(user, id, time, action)| Sent::Action { user, id, time, action }),
        1 => (0..3usize, 0..6u8).prop_map(|(user, id)| Sent::Impression { user, id }),
        1 => (0..4u8, 0..4u8, any::<bool>()).prop_map(|(item, views, active)| Sent::Item { item, views, active }),
        1 => (0..3usize, 0..3u8).prop_map(|(user, country)| Sent::User { user, country }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop::collection::vec(sent(), 1..8).prop_map(Op::Append),
        4 => (0..3usize).prop_map(Op::Read),
        2 => (0..3usize).prop_map(Op::Forget),
        1 => Just(Op::Reopen),
        1 => Just(Op::Rebuild),
    ]
}

/// What must be true.
#[derive(Default)]
struct Model {
    log: BTreeMap<u64, Event>,
    ids: BTreeSet<(String, bool, String)>,
    items: BTreeMap<String, (f32, bool)>,
    users: BTreeMap<String, u32>,
    next: u64,
}

impl Model {
    fn append(&mut self, event: Event) -> bool {
        let id = match &event {
            Event::Action(a) => Some((a.user.to_string(), true, a.event_id.to_string())),
            Event::Impression(i) => Some((i.user.to_string(), false, i.request.to_string())),
            _ => None,
        };
        if id.is_some_and(|id| !self.ids.insert(id)) {
            return false;
        }
        if let Event::Item(i) = &event {
            let Some(FeatureValue::Number(views)) = i.features.get("views") else { unreachable!() };
            self.items.insert(i.item.to_string(), (*views as f32, i.active));
        }
        if let Event::User(u) = &event {
            let Some(FeatureValue::Text(country)) = u.features.get("country") else { unreachable!() };
            self.users.insert(u.user.to_string(), lately_features::schema::bucket(country, 16));
        }
        self.log.insert(self.next, event);
        self.next += 1;
        true
    }

    fn forget(&mut self, user: &UserId, event: Event) -> u64 {
        let before = self.log.len();
        self.log.retain(|_, e| matches!(e, Event::Forget(_)) || e.user() != Some(user));
        let removed = (before - self.log.len()) as u64;
        self.ids.retain(|(u, _, _)| u != user.as_str());
        self.users.remove(user.as_str());
        self.append(event);
        removed
    }

    fn sequence(&self, user: &UserId) -> Vec<(i64, u64, String)> {
        let entry = |(offset, e): (&u64, &Event)| match e {
            Event::Action(a) if a.user == *user && a.action != "seen" => {
                Some((a.time_ms, *offset, a.item.to_string()))
            }
            _ => None,
        };
        let mut entries: Vec<_> = self.log.iter().filter_map(entry).collect();
        entries.sort_by_key(|(time, offset, _)| Reverse((*time, *offset)));
        entries.truncate(CAP);
        entries
    }
}

fn check(store: &Store, model: &Model, users: &[usize]) {
    assert_eq!(store.next_offset(), model.next);
    assert_eq!(log(store), model.log.clone().into_iter().collect::<Vec<_>>());
    for user in users.iter().map(|u| super::user(USERS[*u])) {
        let got = store.sequence(&user).unwrap();
        let got: Vec<_> = got.entries().iter().map(|e| (e.time_ms, e.offset, e.item.to_string())).collect();
        assert_eq!(got, model.sequence(&user), "sequence of {user}");
    }
    for name in USERS {
        let got = store.user(&super::user(name)).map(|f| f.categorical[0]);
        assert_eq!(got, model.users.get(name).copied(), "user {name}");
    }
    for (name, (views, _)) in &model.items {
        assert_eq!(store.item(&super::item(name)).unwrap().numeric[0], *views, "item {name}");
    }
    let active: Vec<_> = store.active_items().iter().map(|(i, f)| (i.to_string(), f.numeric[0])).collect();
    let want =
        model.items.iter().filter(|(_, (_, active))| *active).map(|(i, (views, _))| (i.clone(), *views));
    assert_eq!(active, want.collect::<Vec<_>>());
}

fn run(ops: Vec<Op>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut model) = (open(dir.path()), Model::default());
    for op in ops {
        // Only explicit reads fill the cache in mid-run: both paths, cached and not, are compared.
        let mut look = vec![];
        match op {
            Op::Append(sent) => {
                let events: Vec<_> = sent.iter().map(Sent::event).collect();
                let (first, total) = (model.next, events.len());
                let count = events.iter().cloned().map(|e| model.append(e)).filter(|new| *new).count();
                let got = store.append(events).unwrap();
                assert_eq!((got.first_offset, got.count, got.duplicates), (first, count, total - count));
            }
            Op::Forget(user) => {
                let user = super::user(USERS[user]);
                let event = Event::Forget(lately_features::event::Forget { user: user.clone(), time_ms: T0 });
                assert_eq!(store.forget(&user, T0).unwrap(), model.forget(&user, event));
            }
            Op::Read(user) => look.push(user),
            Op::Reopen => {
                drop(store);
                store = open(dir.path());
            }
            Op::Rebuild => {
                store.rebuild_sequences().unwrap();
            }
        }
        check(&store, &model, &look);
    }
    check(&store, &model, &[0, 1, 2]);
    drop(store);
    check(&open(dir.path()), &model, &[0, 1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn the_store_is_what_was_sent_and_nothing_else(ops in prop::collection::vec(op(), 1..25)) {
        run(ops);
    }
}

#[test]
fn arrival_out_of_order_and_repeats_give_one_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (u, week) = (user("u"), 7 * 86_400_000);
    store.sequence(&u).unwrap(); // cached from the start
    for (event, time) in [("e3", T0), ("e1", T0 - week), ("e4", T0 + week), ("e2", T0 - 1), ("e3", T0 + 5)] {
        store.append(vec![action("u", event, "save", time); 5]).unwrap();
    }
    let order =
        |s: &Store| s.sequence(&u).unwrap().entries().iter().map(|e| e.item.to_string()).collect::<Vec<_>>();
    let want = ["item of e4", "item of e3", "item of e2", "item of e1"];
    assert_eq!(order(&store), want);
    assert_eq!(store.stats().unwrap().duplicates, 21);
    assert_eq!(store.next_offset(), 4);
    let entry = store.sequence(&u).unwrap().entries()[1].clone();
    assert_eq!((entry.time_ms, entry.action, entry.surface), (T0, 1, 2));
    drop(store);
    assert_eq!(order(&open(dir.path())), want);
}
