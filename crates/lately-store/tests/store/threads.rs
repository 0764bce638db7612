//! Many callers at once.

use super::*;
use std::collections::BTreeSet;
use std::sync::Arc;

#[test]
fn concurrent_appenders_get_distinct_contiguous_offsets_and_share_fsyncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let (threads, rounds, size) = (8, 20, 3);
    let ranges: Vec<_> = std::thread::scope(|scope| {
        let run = |t: usize| {
            let store = store.clone();
            move || {
                let name = format!("u{t}");
                let one = |r: usize| {
                    let events = (0..size).map(|i| action(&name, &format!("{r}-{i}"), "save", T0 + r as i64));
                    let appended = store.append(events.collect()).unwrap();
                    // What was acknowledged is read at once, in sequence, log and watermark.
                    let newest = store.sequence(&user(&name)).unwrap().entries()[0].clone();
                    assert_eq!(newest.offset, appended.first_offset + 2);
                    assert!(store.next_offset() > newest.offset);
                    assert_eq!(store.read(newest.offset, 1).unwrap()[0].0, newest.offset);
                    appended.first_offset
                };
                (0..rounds).map(one).collect::<Vec<_>>()
            }
        };
        let handles: Vec<_> = (0..threads).map(|t| scope.spawn(run(t))).collect();
        handles.into_iter().flat_map(|h| h.join().unwrap()).collect()
    });
    let all: BTreeSet<u64> = ranges.iter().flat_map(|first| *first..first + size as u64).collect();
    assert_eq!(all, (0..(threads * rounds * size) as u64).collect());
    let commits = store.stats().unwrap().commits;
    assert!(commits < (threads * rounds) as u64, "{commits} fsyncs for {} appends", threads * rounds);
}

#[test]
fn a_long_append_is_cut_into_batches_and_a_forget_within_takes_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let limits = StoreLimits { batch_events: 10, ..Default::default() };
    let store = Store::open(dir.path(), schema(SCHEMA), limits).unwrap();
    let mut events: Vec<_> = (0..35).map(|i| action("u", &format!("e{i}"), "save", T0 + i)).collect();
    events.push(Event::Forget(lately_features::event::Forget { user: user("u"), time_ms: T0 }));
    events.push(action("u", "e0", "save", T0));
    let appended = store.append(events).unwrap();
    assert_eq!((appended.first_offset, appended.count, appended.duplicates), (0, 37, 0));
    assert_eq!(store.stats().unwrap().commits, 4 + 1 + 1);
    assert_eq!(log(&store).iter().map(|(o, _)| *o).collect::<Vec<_>>(), [35, 36]);
    assert_eq!(store.sequence(&user("u")).unwrap().entries().len(), 1);
}

/// Readers that fill the cache while the writer commits must never keep an older state.
#[test]
fn a_cache_filled_during_appends_ends_equal_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    // A cache for about two users: evictions and loads all the time.
    let limits = StoreLimits { sequence_cache_bytes: 8_192, ..Default::default() };
    let store = Arc::new(Store::open(dir.path(), schema(SCHEMA), limits).unwrap());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    (0..20).for_each(|u| drop(store.sequence(&user(&format!("u{u}"))).unwrap()));
                }
            });
        }
        for i in 0..400 {
            store.append(vec![action(&format!("u{}", i % 20), &format!("e{i}"), "save", T0 + i)]).unwrap();
            let got = store.sequence(&user(&format!("u{}", i % 20))).unwrap();
            assert_eq!(got.entries()[0].time_ms, T0 + i, "read your writes");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let cached: Vec<_> = (0..20).map(|u| store.sequence(&user(&format!("u{u}"))).unwrap()).collect();
    drop(store);
    let store = open(dir.path());
    for (u, cached) in cached.iter().enumerate() {
        assert_eq!(**cached, *store.sequence(&user(&format!("u{u}"))).unwrap());
        assert_eq!(cached.entries().len(), 6);
    }
}
