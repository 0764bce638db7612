//! Garbage: whatever happens in whatever order, nothing that lives is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lately_store::registry::{Garbage, ROLLBACKS, Registry, RegistryError, Version};
use proptest::prelude::*;
use serde_json::json;

const ALIASES: [&str; 2] = ["champion", "challenger"];

#[derive(Debug, Clone)]
enum Step {
    Publish(u8),
    Point(usize, u8),
    Rollback(usize),
    Unalias(usize),
    Veto(u8),
    Collect(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let model = 0..30u8;
    prop_oneof![
        3 => model.clone().prop_map(Step::Publish),
        4 => (0..2usize, model.clone()).prop_map(|(alias, m)| Step::Point(alias, m)),
        2 => (0..2usize).prop_map(Step::Rollback),
        1 => (0..2usize).prop_map(Step::Unalias),
        1 => model.prop_map(Step::Veto),
        2 => (0..4usize).prop_map(Step::Collect),
    ]
}

fn version(model: u8) -> Version {
    Version::of(&[model])
}

/// An editor's undo, told anew.
#[derive(Default)]
struct Undo {
    /// Named, and whether it was vetoed since.
    named: Vec<(u8, bool)>,
    current: Option<u8>,
}

impl Undo {
    fn point(&mut self, model: u8) {
        self.current = Some(model);
        match self.named.last_mut() {
            Some(last) if last.0 == model => last.1 = false,
            _ => self.named.push((model, false)),
        }
    }

    fn back(&self) -> Option<u8> {
        let current = self.current?;
        let former = &self.named[..self.named.len() - 1];
        former.iter().rev().find(|(m, vetoed)| *m != current && !vetoed).map(|(m, _)| *m)
    }

    fn roll_back(&mut self, to: u8) {
        while self.named.last().is_some_and(|(m, _)| *m != to) {
            self.named.pop();
        }
        self.point(to);
    }
}

#[derive(Default)]
struct Oracle {
    /// By model: which publication it was.
    there: BTreeMap<u8, i64>,
    clock: i64,
    aliases: [Undo; 2],
}

impl Oracle {
    fn live(&self, keep: usize) -> BTreeSet<u8> {
        let mut by_age: Vec<_> = self.there.iter().map(|(m, time)| (*time, *m)).collect();
        by_age.sort_unstable();
        let newest = by_age.iter().rev().take(keep).map(|(_, m)| *m);
        let named = self.aliases.iter().flat_map(|undo| {
            undo.named.iter().rev().take(ROLLBACKS + 1).map(|(m, _)| *m).chain(undo.current)
        });
        newest.chain(named).filter(|m| self.there.contains_key(m)).collect()
    }

    fn apply(&mut self, r: &Registry, step: &Step) {
        match *step {
            Step::Publish(m) => {
                self.clock += 1;
                r.publish_at(&[m], &json!({}), self.clock).unwrap();
                self.there.entry(m).or_insert(self.clock);
            }
            Step::Point(alias, m) => match r.set_alias(ALIASES[alias], &version(m)) {
                Ok(()) => {
                    assert!(self.there.contains_key(&m));
                    self.aliases[alias].point(m);
                }
                Err(RegistryError::Unknown(_)) => assert!(!self.there.contains_key(&m)),
                Err(e) => panic!("{e}"),
            },
            Step::Rollback(alias) => match (r.rollback(ALIASES[alias]), self.aliases[alias].back()) {
                (Ok((_, to)), Some(m)) => {
                    assert_eq!(to, version(m));
                    self.aliases[alias].roll_back(m);
                }
                (Err(RegistryError::NothingBefore { .. }), None) => {}
                // Older than what is kept for rollbacks.
                (Err(RegistryError::Unknown(v)), Some(m)) => {
                    assert!(v == version(m) && !self.there.contains_key(&m));
                }
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            },
            Step::Unalias(alias) => {
                r.remove_alias(ALIASES[alias]).unwrap();
                self.aliases[alias].current = None;
            }
            Step::Veto(m) => {
                r.veto(&version(m), "no").unwrap();
                let named = self.aliases.iter_mut().flat_map(|undo| &mut undo.named);
                named.filter(|(named, _)| *named == m).for_each(|(_, vetoed)| *vetoed = true);
            }
            Step::Collect(keep) => {
                let garbage = Garbage { keep, grace: Duration::ZERO, dry_run: false };
                let foretold = r.gc(&Garbage { dry_run: true, ..garbage.clone() }).unwrap();
                let removed = r.gc(&garbage).unwrap();
                assert_eq!(removed, foretold);
                assert!(removed.leftovers.is_empty());
                let live = self.live(keep);
                let dead: BTreeSet<_> =
                    self.there.keys().filter(|m| !live.contains(m)).map(|m| version(*m)).collect();
                assert_eq!(removed.versions.iter().cloned().collect::<BTreeSet<_>>(), dead);
                self.there.retain(|m, _| live.contains(m));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_lives_is_removed(steps in prop::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let r = Registry::open(dir.path()).unwrap();
        let mut oracle = Oracle::default();
        for step in &steps {
            oracle.apply(&r, step);
            for (alias, undo) in ALIASES.iter().zip(&oracle.aliases) {
                let named = r.alias(alias).unwrap();
                prop_assert_eq!(&named, &undo.current.map(version));
                if let Some(named) = named {
                    r.load(&named).unwrap();
                }
            }
        }
        let listed: BTreeSet<_> = r.versions().unwrap().into_iter().map(|i| i.version).collect();
        prop_assert_eq!(listed, oracle.there.keys().map(|m| version(*m)).collect());
    }
}

/// Points and collects at once, with the grace that a real run has: what is pointed at is never missing afterwards.
#[test]
fn who_points_and_who_collects_keep_out_of_each_others_way() {
    let dir = tempfile::tempdir().unwrap();
    let r = Registry::open(dir.path()).unwrap();
    let old: Vec<_> = (0..60u8).map(|n| r.publish_at(&[n], &json!({}), 1).unwrap()).collect();
    let stop = AtomicBool::new(false);
    let pointed = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                r.remove_garbage(0).unwrap();
            }
        });
        let mut pointed = 0;
        for version in &old {
            match r.set_alias("champion", version) {
                Ok(()) => pointed += 1,
                Err(RegistryError::Unknown(_)) => {}
                Err(e) => panic!("{e}"),
            }
            if let Some(named) = r.alias("champion").unwrap() {
                r.load(&named).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        pointed
    });
    println!("{pointed} of 60 were pointed at before they were removed");
    let named = r.alias("champion").unwrap();
    named.iter().for_each(|v| drop(r.load(v).unwrap()));
    // Each is there whole or recorded as removed.
    let there = r.versions().unwrap().len();
    assert_eq!(there + removals(&r), 60);
}

fn removals(r: &Registry) -> usize {
    use lately_store::registry::Change;
    r.audit().unwrap().iter().filter(|a| matches!(a.change, Change::Remove { .. })).count()
}

#[test]
fn a_hundred_rollbacks_under_a_reader_and_a_collector() {
    let dir = tempfile::tempdir().unwrap();
    let r = Registry::open(dir.path()).unwrap();
    let versions: Vec<_> = (0..101u8)
        .map(|n| {
            let version = r.publish(&vec![n; 50_000], &json!({})).unwrap();
            r.set_alias("champion", &version).unwrap();
            version
        })
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let version = r.alias("champion").unwrap().unwrap();
                r.load(&version).unwrap();
                seen.insert(version);
            }
            seen.len()
        });
        for pair in versions.windows(2).rev() {
            assert_eq!(r.rollback("champion").unwrap(), (pair[1].clone(), pair[0].clone()));
            r.remove_garbage(1).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 1, "the reader saw rollbacks");
    });
    assert!(matches!(r.rollback("champion"), Err(RegistryError::NothingBefore { .. })));
}

#[test]
fn what_is_young_and_its_parents_stay_and_leftovers_wait_for_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let r = Registry::open(dir.path()).unwrap();
    let parent = r.publish_at(b"parent", &json!({}), 1).unwrap();
    let other = r.publish_at(b"other", &json!({}), 2).unwrap();
    let child = r.publish(b"child", &json!({"parent": parent.as_str()})).unwrap();
    let half = Version::of(b"half");
    let artifacts = dir.path().join("artifacts");
    std::fs::write(artifacts.join(format!("{half}.bin")), b"half").unwrap();
    assert_eq!(r.remove_garbage(0).unwrap(), [other]);
    assert!(artifacts.join(format!("{half}.bin")).exists(), "somebody may be at it");
    let removed = r.gc(&Garbage { keep: 5, grace: Duration::ZERO, dry_run: false }).unwrap();
    assert_eq!((removed.versions, removed.leftovers), (vec![], vec![half]));
    assert!(removed.bytes >= 4);
    assert_eq!(r.versions().unwrap().len(), 2);
    assert_eq!(std::fs::read_dir(&artifacts).unwrap().count(), 4);
    r.load(&child).unwrap();
    // What is being removed is not published meanwhile, and a crash on the way is made good by the next run.
    let listing = artifacts.join(format!("{parent}.json"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let claimed = format!(
        "{{\"version\":\"{parent}\",\"published_ms\":1,\"bytes\":6,\"manifest\":null,\"removed_ms\":{now}}}"
    );
    std::fs::write(&listing, claimed).unwrap();
    assert!(matches!(r.publish(b"parent", &json!({})), Err(RegistryError::Removing(v)) if v == parent));
    assert!(matches!(r.set_alias("champion", &parent), Err(RegistryError::Unknown(_))));
    assert_eq!(r.versions().unwrap().len(), 1);
    assert_eq!(
        r.gc(&Garbage::default()).unwrap().leftovers,
        [] as [Version; 0],
        "the parent of what is young"
    );
    std::fs::remove_file(artifacts.join(format!("{child}.bin"))).unwrap();
    assert_eq!(r.gc(&Garbage::default()).unwrap().leftovers, [parent]);
}
