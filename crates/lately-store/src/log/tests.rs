//! What needs a look inside: a write that fails, a writer that stands still.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lately_features::{Action, EventId, ItemId, Schema};

use super::*;
use crate::engine::Engine;

const SCHEMA: &str = r#"
    item_embedding = "vector"
    actions = [{ name = "save", polarity = "positive" }]
    heads = [{ name = "save", actions = ["save"] }]
    item_features = [{ kind = "embedding", name = "vector", dim = 2 }]
"#;

fn event(n: usize) -> Event {
    Event::Action(Action {
        event_id: EventId::new(format!("e{n}")).unwrap(),
        user: UserId::new("u").unwrap(),
        item: ItemId::new("i").unwrap(),
        action: "save".into(),
        time_ms: n as i64,
        request: None,
        surface: None,
    })
}

struct Setup {
    shared: Arc<Shared>,
    preparer: Preparer,
    log: Log,
    dir: tempfile::TempDir,
}

fn setup(limits: StoreLimits) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let schema = Arc::new(Schema::from_toml(SCHEMA).unwrap());
    let engine = Engine::open(dir.path(), &limits).unwrap();
    let entities = Entities::load(&engine, &schema, None).unwrap();
    let shared = Arc::new(Shared::new(engine, entities, SequenceCache::new(1 << 20, 8), 0));
    let preparer = Preparer::new(schema, None);
    let log = Log::start(shared.clone(), preparer.clone(), limits).unwrap();
    Setup { shared, preparer, log, dir }
}

#[test]
fn every_nth_failed_write_ends_acknowledgements_for_good() {
    for n in 0..4u64 {
        let s = setup(StoreLimits::default());
        s.shared.engine.commits_left.store(n, Ordering::SeqCst);
        let results: Vec<_> = (0..6).map(|i| s.log.append(&s.preparer, vec![event(i)])).collect();
        for (i, result) in results.iter().enumerate() {
            match result {
                Ok(done) => {
                    assert_eq!((i as u64, i as u64), (done.first_offset, done.first_offset.min(n - 1)))
                }
                Err(StoreError::Poisoned(why)) => assert!(i as u64 >= n && why.contains("injected"), "{why}"),
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(s.shared.next.load(Ordering::SeqCst), n, "the watermark stays at what is durable");
        // A disk that works again changes nothing: what it holds is unknown until a restart reads it.
        s.shared.engine.commits_left.store(u64::MAX, Ordering::SeqCst);
        assert!(matches!(s.log.append(&s.preparer, vec![event(9)]), Err(StoreError::Poisoned(_))));
        assert!(matches!(s.log.rebuild(), Err(StoreError::Poisoned(_))));
        let Setup { shared, log, dir, .. } = s;
        drop(log);
        drop(shared);
        let engine = Engine::open(dir.path(), &StoreLimits::default()).unwrap();
        assert_eq!(engine.next().unwrap(), n);
    }
}

#[test]
fn all_callers_of_a_failed_group_hear_of_it() {
    let s = setup(StoreLimits::default());
    s.shared.engine.commits_left.store(5, Ordering::SeqCst);
    let acked: u64 = std::thread::scope(|scope| {
        let one = |t: usize| {
            let s = &s;
            move || {
                (0..10).filter(|i| s.log.append(&s.preparer, vec![event(t * 10 + i)]).is_ok()).count() as u64
            }
        };
        let handles: Vec<_> = (0..6).map(|t| scope.spawn(one(t))).collect();
        handles.into_iter().map(|h| h.join().unwrap()).sum()
    });
    assert_eq!(acked, s.shared.next.load(Ordering::SeqCst));
    assert!((5..60).contains(&acked));
}

#[test]
fn a_writer_that_stands_still_makes_callers_overloaded_not_stuck() {
    let s = setup(StoreLimits { queue_events: 2, queue_wait_ms: 50, ..Default::default() });
    let user = UserId::new("u").unwrap();
    s.log.append(&s.preparer, vec![event(0)]).unwrap();
    std::thread::scope(|scope| {
        // The writer waits for the tables' lock after its commit, so the queue behind it fills.
        let held = s.shared.entities.hold();
        let features = Event::User(lately_features::User {
            user: user.clone(),
            time_ms: 0,
            features: Default::default(),
        });
        let append = |event: Event| {
            let s = &s;
            move || s.log.append(&s.preparer, vec![event])
        };
        let mut waiting = vec![scope.spawn(append(features))];
        while s.shared.engine.log.get(1u64.to_be_bytes()).unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        waiting.extend((1..3).map(|i| scope.spawn(append(event(i)))));
        while s.log.queued_events() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(matches!(append(event(3))(), Err(StoreError::Overloaded { waited_ms: 50 })));
        assert_eq!(s.shared.next.load(Ordering::SeqCst), 1, "no watermark before the views");
        drop(held);
        waiting.into_iter().for_each(|w| assert_eq!(w.join().unwrap().unwrap().count, 1));
    });
    assert_eq!(s.log.append(&s.preparer, vec![event(3)]).unwrap().first_offset, 4);
}

#[test]
fn an_interrupted_rebuild_is_made_good_at_the_next_open() {
    for n in 0..5u64 {
        let s = setup(StoreLimits { batch_events: 3, ..Default::default() });
        s.log.append(&s.preparer, (0..8).map(event).collect()).unwrap();
        let user = UserId::new("u").unwrap();
        let before = s.shared.sequences.get(&s.shared.engine, &user).unwrap();
        s.shared.engine.commits_left.store(n, Ordering::SeqCst);
        assert!(matches!(s.log.rebuild(), Err(StoreError::Poisoned(_))));
        let Setup { shared, preparer, log, dir } = s;
        drop(log);
        drop(shared);
        let store = crate::Store::open(dir.path(), preparer.schema, StoreLimits::default()).unwrap();
        assert_eq!(store.sequence(&user).unwrap(), before, "stopped at commit {n}");
        assert_eq!(before.entries().len(), 8);
    }
}
