//! The registry, in a directory and on S3.

use std::sync::Barrier;

use lately_store::registry::{Change, Registry, RegistryError, Version};
use serde_json::json;

fn registry() -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(&dir.path().join("models")).unwrap();
    (dir, registry)
}

/// Runs each of these on an empty registry of its own.
fn suite(mut empty: impl FnMut() -> Registry) {
    publishes_lists_loads_and_points_aliases(&empty());
    rollbacks_walk_back_and_a_new_champion_begins_from_there(&empty());
    a_veto_holds_until_somebody_insists(&empty());
    reasons_are_recorded(&empty());
    of_concurrent_rollbacks_each_takes_one_step(&empty());
    concurrent_publishers_and_switches_leave_whole_versions(&empty());
    garbage_is_removed_and_the_same_bytes_can_come_again(&empty());
}

#[test]
fn a_registry_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    suite(|| {
        count += 1;
        Registry::open_uri(&format!("file://{}/{count}", dir.path().display())).unwrap()
    });
}

#[cfg(feature = "s3")]
#[test]
fn a_registry_on_s3() {
    let Some(moto) = crate::moto::Moto::start() else { return };
    let mut count = 0;
    suite(|| {
        count += 1;
        Registry::over(std::sync::Arc::new(moto.objects(&format!("s3://models/{count}"))))
    });
}

fn publishes_lists_loads_and_points_aliases(r: &Registry) {
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

fn rollbacks_walk_back_and_a_new_champion_begins_from_there(r: &Registry) {
    let nothing = |r: &Registry| matches!(r.rollback("champion"), Err(RegistryError::NothingBefore { .. }));
    assert!(nothing(r), "never set");
    let [a, b, c, d] = [b"a", b"b", b"c", b"d"].map(|bytes| r.publish(bytes, &json!({})).unwrap());
    let now = || r.alias("champion").unwrap().unwrap();
    r.set_alias("champion", &a).unwrap();
    assert!(nothing(r), "nothing before the first");
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
    assert!(nothing(r), "it does not toggle");
    assert_eq!((now(), r.alias("challenger").unwrap()), (a.clone(), Some(c.clone())));

    r.set_alias("champion", &d).unwrap();
    r.set_alias("champion", &a).unwrap(); // a promotion of an old one is a change like any other
    for (from, to) in [(&a, &d), (&d, &a)] {
        assert_eq!(r.rollback("champion").unwrap(), (from.clone(), to.clone()));
    }
    assert!(nothing(r));
    assert!(r.rollback("../x").is_err());
}

fn a_veto_holds_until_somebody_insists(r: &Registry) {
    let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| r.publish(bytes, &json!({})).unwrap());
    for version in [&a, &b, &c] {
        r.promote("champion", version).unwrap();
    }
    assert_eq!(r.vetoed(&c).unwrap(), None);
    r.veto(&c, "guardrail: score_shift 1.9 > 1.0").unwrap();
    r.veto(&b, "by hand").unwrap();
    assert_eq!(r.rollback("champion").unwrap(), (c.clone(), a.clone()), "not to what was vetoed since");
    assert_eq!(r.vetoed(&c).unwrap().as_deref(), Some("guardrail: score_shift 1.9 > 1.0"));
    assert_eq!(r.publish(b"c", &json!({})).unwrap(), c, "the same bytes are the same version");
    let refused = r.promote("champion", &c).unwrap_err();
    assert!(matches!(&refused, RegistryError::Vetoed { version, .. } if *version == c));
    assert!(refused.to_string().contains("score_shift"), "{refused}");
    assert_eq!(r.alias("champion").unwrap(), Some(a.clone()));
    r.set_alias("champion", &c).unwrap();
    assert!(r.vetoed(&c).unwrap().is_some(), "insisting once takes no veto back");
    // Who insisted on it may go back to it.
    r.set_alias("champion", &a).unwrap();
    assert_eq!(r.rollback("champion").unwrap(), (a, c));
}

fn reasons_are_recorded(r: &Registry) {
    let why = r.because("gate passed");
    let v = why.publish(b"v", &json!({})).unwrap();
    why.set_alias("champion", &v).unwrap();
    r.because(&"x".repeat(501)).remove_alias("champion").unwrap();
    r.set_alias("champion", &v).unwrap();
    r.veto(&v, "bad\nline").unwrap();
    let trail = r.audit().unwrap();
    let reasons: Vec<_> = trail.iter().map(|a| a.reason.as_deref()).collect();
    let long = "x".repeat(500);
    let gate = Some("gate passed");
    assert_eq!(reasons, [gate, gate, Some(long.as_str()), None, Some("bad\nline")]);
    assert_eq!(trail.iter().map(|a| a.step).collect::<Vec<_>>(), [0, 1, 2, 3, 0]);
}

fn garbage_is_removed_and_the_same_bytes_can_come_again(r: &Registry) {
    let v: Vec<_> = (0..4u8).map(|n| r.publish_at(&[n], &json!({}), n.into()).unwrap()).collect();
    r.set_alias("champion", &v[0]).unwrap();
    assert_eq!(r.because("space").remove_garbage(1).unwrap(), [v[1].clone(), v[2].clone()]);
    assert!(matches!(r.load(&v[1]), Err(RegistryError::Unknown(_))));
    assert!(matches!(r.set_alias("champion", &v[1]), Err(RegistryError::Unknown(x)) if x == v[1]));
    assert_eq!(r.alias("champion").unwrap(), Some(v[0].clone()));
    assert_eq!(r.publish_at(&[1], &json!({"second": true}), 9).unwrap(), v[1]);
    assert_eq!(r.info(&v[1]).unwrap().unwrap().manifest, json!({"second": true}));
    let changes: Vec<_> =
        r.audit().unwrap().into_iter().rev().take(3).map(|a| (a.change, a.reason)).collect();
    let because = Some("space".to_owned());
    let gone = |v: &Version| (Change::Remove { version: v.clone() }, because.clone());
    assert_eq!(changes[0].0, Change::Publish { version: v[1].clone() });
    assert_eq!(changes[1..], [gone(&v[2]), gone(&v[1])]);
}

/// What the releases before compare-and-swap wrote.
#[test]
fn a_registry_of_a_former_release_is_read_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let [a, b] = ["a", "b"].map(|text| Version::of(text.as_bytes()));
    for (version, text) in [(&a, "a"), (&b, "b")] {
        write(&format!("artifacts/{version}.bin"), text);
        let listing = format!(
            "{{\n  \"version\": \"{version}\",\n  \"published_ms\": 7,\n  \"bytes\": 1,\n  \"manifest\": {{}}\n}}"
        );
        write(&format!("artifacts/{version}.json"), &listing);
    }
    write("aliases/champion", b.as_str());
    write("lock", "");
    let trail = format!(
        "{{\"time_ms\":7,\"change\":\"publish\",\"version\":\"{a}\"}}\n\
         {{\"time_ms\":8,\"change\":\"alias\",\"alias\":\"champion\",\"from\":null,\"to\":\"{a}\"}}\n\
         {{\"time_ms\":9,\"change\":\"alias\",\"alias\":\"champion\",\"from\":\"{a}\",\"to\":\"{b}\"}}\n"
    );
    write("audit.jsonl", &trail);
    let r = Registry::open(dir.path()).unwrap();
    assert_eq!(r.versions().unwrap().len(), 2);
    assert_eq!(r.alias("champion").unwrap(), Some(b.clone()));
    assert_eq!(r.audit().unwrap().len(), 3);
    assert_eq!(r.rollback("champion").unwrap(), (b.clone(), a.clone()));
    assert_eq!(r.alias("champion").unwrap(), Some(a));
    assert_eq!(r.remove_garbage(0).unwrap(), [b], "what no alias names and nothing leads back to");
    let text = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    assert!(text.starts_with(&trail), "former lines stay as they are");
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

fn of_concurrent_rollbacks_each_takes_one_step(r: &Registry) {
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

fn concurrent_publishers_and_switches_leave_whole_versions(r: &Registry) {
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
