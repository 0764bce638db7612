//! The registry.

use std::sync::Barrier;

use lately_store::registry::{Change, Registry, RegistryError, Version};
use serde_json::json;

fn registry() -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(&dir.path().join("models")).unwrap();
    (dir, registry)
}

#[test]
fn publishes_lists_loads_and_points_aliases() {
    let (_dir, r) = registry();
    let a = r.publish_at(b"weights a", &json!({"auc": 0.7}), 1).unwrap();
    let b = r.publish_at(b"weights b", &json!({"auc": 0.8}), 2).unwrap();
    assert_eq!(r.publish_at(b"weights a", &json!({"auc": 0.9}), 3).unwrap(), a);
    let listed: Vec<_> =
        r.versions().unwrap().into_iter().map(|v| (v.version, v.published_ms, v.manifest)).collect();
    assert_eq!(listed, [(a.clone(), 1, json!({"auc": 0.7})), (b.clone(), 2, json!({"auc": 0.8}))]);
    assert_eq!(r.load(&b).unwrap(), b"weights b");
    assert_eq!(r.alias("champion").unwrap(), None);
    r.set_alias_at("champion", &a, 4).unwrap();
    r.set_alias_at("champion", &b, 5).unwrap();
    assert_eq!(r.alias("champion").unwrap(), Some(b.clone()));
    let unknown = Version::of(b"never published");
    assert!(matches!(r.set_alias("champion", &unknown), Err(RegistryError::Unknown(v)) if v == unknown));
    assert!(matches!(r.load(&unknown), Err(RegistryError::Unknown(_))));
    let last = r.audit().unwrap().pop().unwrap();
    assert_eq!(last.time_ms, 5);
    assert_eq!(last.change, Change::Alias { alias: "champion".into(), from: Some(a), to: b.clone() });
    r.remove_alias("champion").unwrap();
    r.remove_alias("champion").unwrap();
    assert_eq!(r.alias("champion").unwrap(), None);
    let last = r.audit().unwrap().pop().unwrap();
    assert_eq!(last.change, Change::Unalias { alias: "champion".into(), from: b });
}

#[test]
fn rollbacks_walk_back_and_a_new_champion_begins_from_there() {
    let (_dir, r) = registry();
    let nothing = |r: &Registry| matches!(r.rollback("champion"), Err(RegistryError::NothingBefore { .. }));
    assert!(nothing(&r), "never set");
    let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|bytes| r.publish(bytes, &json!({})).unwrap());
    let now = || r.alias("champion").unwrap().unwrap();
    r.set_alias("champion", &a).unwrap();
    assert!(nothing(&r), "nothing before the first");
    assert_eq!(now(), a);
    for version in [&b, &b, &c] {
        r.set_alias("champion", version).unwrap(); // the same again is no change to go back over
        r.set_alias("challenger", version).unwrap(); // another alias has a past of its own
    }
    assert_eq!(r.rollback("champion").unwrap(), (c.clone(), b.clone()));
    assert_eq!(now(), b);
    assert_eq!(r.rollback("champion").unwrap(), (b.clone(), a.clone()));
    let last = r.audit().unwrap().pop().unwrap();
    assert_eq!(last.change, Change::Rollback { alias: "champion".into(), from: b.clone(), to: a.clone() });
    assert!(nothing(&r), "it does not toggle");
    assert_eq!((now(), r.alias("challenger").unwrap()), (a.clone(), Some(c.clone())));

    r.set_alias("champion", &d).unwrap();
    r.set_alias("champion", &a).unwrap(); // a promotion of an old one is a change like any other
    for (from, to) in [(&a, &d), (&d, &a)] {
        assert_eq!(r.rollback("champion").unwrap(), (from.clone(), to.clone()));
    }
    assert!(nothing(&r));
    assert!(r.rollback("../x").is_err());
}

#[test]
fn a_rollback_to_what_is_gone_or_damaged_is_refused_and_one_after_a_crash_knows_what_was_there() {
    let (dir, r) = registry();
    let [a, b] = [b"a", b"b"].map(|bytes| r.publish(bytes, &json!({})).unwrap());
    r.set_alias("champion", &a).unwrap();
    r.set_alias("champion", &b).unwrap();
    let file = dir.path().join(format!("models/artifacts/{a}.bin"));
    std::fs::write(&file, b"x").unwrap();
    assert!(matches!(r.rollback("champion"), Err(RegistryError::Damaged(v)) if v == a));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(r.rollback("champion"), Err(RegistryError::Unknown(v)) if v == a));
    assert_eq!(r.alias("champion").unwrap(), Some(b.clone()));
    r.publish(b"a", &json!({})).unwrap();

    // A crash between the alias and its line in the trail: the last line is gone.
    let trail = dir.path().join("models/audit.jsonl");
    let text = std::fs::read_to_string(&trail).unwrap();
    let without: String =
        text.lines().filter(|l| !l.contains("\"from\":\"")).map(|l| format!("{l}\n")).collect();
    std::fs::write(&trail, without).unwrap();
    assert_eq!(r.rollback("champion").unwrap(), (b, a.clone()));
    assert_eq!(r.alias("champion").unwrap(), Some(a));
}

#[test]
fn of_concurrent_rollbacks_each_takes_one_step() {
    let (_dir, r) = registry();
    let versions: Vec<_> = (0..9u8).map(|n| r.publish(&[n], &json!({})).unwrap()).collect();
    versions.iter().for_each(|v| r.set_alias("champion", v).unwrap());
    let start = Barrier::new(4);
    let mut steps: Vec<_> = std::thread::scope(|scope| {
        let two = || {
            start.wait();
            [r.rollback("champion").unwrap(), r.rollback("champion").unwrap()]
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(two)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    let place = |v: &Version| versions.iter().position(|x| x == v).unwrap();
    steps.sort_by_key(|(from, _)| place(from));
    let steps: Vec<_> = steps.iter().map(|(from, to)| (place(from), place(to))).collect();
    assert_eq!(steps, (1..9).map(|n| (n, n - 1)).collect::<Vec<_>>());
    assert_eq!(r.alias("champion").unwrap(), Some(versions[0].clone()));
}

#[test]
fn damaged_bytes_are_refused_and_the_alias_stays() {
    let (dir, r) = registry();
    let good = r.publish(b"good", &json!({})).unwrap();
    let bad = r.publish(b"bad", &json!({})).unwrap();
    r.set_alias("champion", &good).unwrap();
    let path = dir.path().join(format!("models/artifacts/{bad}.bin"));
    for bytes in [&b"bat"[..], b"ba", b""] {
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(r.load(&bad), Err(RegistryError::Damaged(v)) if v == bad));
        assert!(r.set_alias("champion", &bad).is_err());
        assert_eq!(r.alias("champion").unwrap(), Some(good.clone()));
    }
    // To publish the bytes again heals it.
    r.publish(b"bad", &json!({})).unwrap();
    assert_eq!(r.load(&bad).unwrap(), b"bad");
}

#[test]
fn names_never_reach_a_path_unchecked() {
    let (dir, r) = registry();
    let v = r.publish(b"x", &json!({})).unwrap();
    let long = "a".repeat(65);
    for name in
        ["", "../x", "..", "a/b", "a\\b", "/etc", "Champion", ".hidden", "a.b", "a\0", "ä", "-a", &long]
    {
        assert!(matches!(r.set_alias(name, &v), Err(RegistryError::Alias(_))), "{name:?}");
        assert!(matches!(r.alias(name), Err(RegistryError::Alias(_))), "{name:?}");
    }
    for text in ["", "../../x", &"A".repeat(64), &"g".repeat(64), &"0".repeat(63)] {
        assert!(text.parse::<Version>().is_err(), "{text:?}");
        assert!(serde_json::from_value::<Version>(json!(text)).is_err(), "{text:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    r.set_alias("challenger-2_b", &v).unwrap();
}

#[test]
fn concurrent_publishers_and_switches_leave_whole_versions() {
    let (_dir, r) = registry();
    let first = r.publish(b"first", &json!({})).unwrap();
    r.set_alias("champion", &first).unwrap();
    let barrier = Barrier::new(5);
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (r, barrier) = (r.clone(), &barrier);
            scope.spawn(move || {
                barrier.wait();
                for i in 0..6 {
                    // All publish the same six, and switch the alias under the reader.
                    let bytes = format!("model {i}").repeat(500);
                    let v = r.publish(bytes.as_bytes(), &json!({"by": t})).unwrap();
                    r.set_alias("champion", &v).unwrap();
                }
            });
        }
        barrier.wait();
        for _ in 0..100 {
            let v = r.alias("champion").unwrap().unwrap();
            r.load(&v).unwrap();
            r.versions().unwrap();
        }
    });
    assert_eq!(r.versions().unwrap().len(), 7);
    let audit = r.audit().unwrap();
    assert_eq!(audit.iter().filter(|a| matches!(a.change, Change::Publish { .. })).count(), 7);
    assert_eq!(audit.len(), 7 + 1 + 24);
}

#[test]
fn garbage_never_takes_what_an_alias_points_at() {
    let (dir, r) = registry();
    let v: Vec<_> = (0..5).map(|i| r.publish_at(&[i], &json!({}), i.into()).unwrap()).collect();
    r.set_alias("champion", &v[0]).unwrap();
    // What crashes leave: an unfinished file, a listing without bytes, a cut line of the trail.
    let artifacts = dir.path().join("models/artifacts");
    std::fs::write(artifacts.join(".unfinished-x"), b"half").unwrap();
    std::fs::write(artifacts.join(format!("{}.json", Version::of(b"half"))), b"{}").unwrap();
    let trail = dir.path().join("models/audit.jsonl");
    let cut = [std::fs::read(&trail).unwrap(), b"{\"time_ms\":9,\"chan".to_vec()].concat();
    std::fs::write(&trail, cut).unwrap();
    assert_eq!(r.versions().unwrap().len(), 5);
    assert_eq!(r.remove_garbage(2).unwrap(), [v[1].clone(), v[2].clone()]);
    let left: Vec<_> = r.versions().unwrap().into_iter().map(|i| i.version).collect();
    assert_eq!(left, [v[0].clone(), v[3].clone(), v[4].clone()]);
    assert!(!artifacts.join(".unfinished-x").exists());
    assert_eq!(r.audit().unwrap().len(), 5 + 1 + 2);
    // A damaged alias stops the removal: it may point at anything.
    std::fs::write(dir.path().join("models/aliases/champion"), b"zz").unwrap();
    assert!(matches!(r.remove_garbage(0), Err(RegistryError::File { .. })));
    assert_eq!(r.versions().unwrap().len(), 3);
}
