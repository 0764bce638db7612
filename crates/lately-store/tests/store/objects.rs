//! What every engine of objects promises: one suite, over the local directory and over S3.

use std::collections::BTreeSet;
use std::sync::Barrier;

use lately_store::objects::{Directory, ObjectError, Objects};

/// More than one TCP window and one page of anything.
const LARGE: usize = 24 << 20;
/// Threads that race.
const RACERS: usize = 4;

/// All promises; `objects` is empty.
fn keeps_its_promises(objects: &dyn Objects) {
    reads_what_was_written(objects);
    lists_by_prefix_in_order(objects);
    refuses_names_that_lead_elsewhere(objects);
    of_those_that_create_one_wins(objects);
    of_those_that_swap_each_step_has_one_winner(objects);
    a_reader_sees_whole_objects(objects);
}

fn reads_what_was_written(o: &dyn Objects) {
    assert_eq!(o.get("a/b=1/c.bin").unwrap(), None);
    o.put("a/b=1/c.bin", b"one").unwrap();
    o.put("a/b=1/c.bin", b"two").unwrap();
    assert_eq!(o.get("a/b=1/c.bin").unwrap().unwrap(), b"two");
    assert!(!o.create("a/b=1/c.bin", b"three").unwrap());
    assert!(!o.swap("a/b=1/c.bin", None, b"three").unwrap());
    assert!(!o.swap("a/b=1/c.bin", Some(b"one"), b"three").unwrap());
    assert!(!o.swap("none", Some(b""), b"x").unwrap(), "an empty object is not none");
    assert!(o.swap("a/b=1/c.bin", Some(b"two"), b"").unwrap());
    assert_eq!(o.get("a/b=1/c.bin").unwrap().unwrap(), b"");
    assert!(o.swap("a/b=1/c.bin", Some(b""), b"four").unwrap());
    assert!(o.swap("new", None, b"x").unwrap());
    for _ in 0..2 {
        o.delete("a/b=1/c.bin").unwrap();
        o.delete("new").unwrap();
    }
    assert_eq!(o.get("a/b=1/c.bin").unwrap(), None);
    assert_eq!(o.list("").unwrap(), []);
    let large: Vec<u8> = (0..LARGE).map(|i| ((i * 31) >> 7) as u8).collect();
    o.put("large", &large).unwrap();
    assert!(o.get("large").unwrap().unwrap() == large);
    o.delete("large").unwrap();
    o.sweep().unwrap();
}

fn lists_by_prefix_in_order(o: &dyn Objects) {
    for name in ["h=2/b", "h=10/a", "h=1/z", "h=1/a", "h", "ha/x"] {
        o.put(name, name.as_bytes()).unwrap();
    }
    let names = |prefix| -> Vec<_> { o.list(prefix).unwrap().into_iter().map(|i| i.name).collect() };
    assert_eq!(names("h="), ["h=1/a", "h=1/z", "h=10/a", "h=2/b"]);
    assert_eq!(names("h=1"), ["h=1/a", "h=1/z", "h=10/a"], "a prefix of the name, not of its parts");
    assert_eq!(names("h=1/"), ["h=1/a", "h=1/z"]);
    assert_eq!(names(""), ["h", "h=1/a", "h=1/z", "h=10/a", "h=2/b", "ha/x"]);
    assert_eq!(names("x"), [] as [&str; 0]);
    let info = o.list("h=10/a").unwrap().pop().unwrap();
    assert_eq!(info.bytes, 6);
    assert!(info.written_ms > 1_700_000_000_000, "{info:?}");
    names("").iter().for_each(|name| o.delete(name).unwrap());
}

fn refuses_names_that_lead_elsewhere(o: &dyn Objects) {
    let long = "a".repeat(513);
    for name in
        ["", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a\\b", "a b", "ü", "a\0", "a%2e", "a?b", &long]
    {
        let refused = |result: Result<(), ObjectError>| {
            assert!(matches!(result, Err(ObjectError::Name(_))), "{name:?}");
        };
        refused(o.put(name, b"x"));
        refused(o.create(name, b"x").map(drop));
        refused(o.swap(name, Some(b""), b"x").map(drop));
        refused(o.get(name).map(drop));
        refused(o.delete(name));
    }
    assert_eq!(o.list("").unwrap(), []);
}

fn of_those_that_create_one_wins(o: &dyn Objects) {
    for round in 0..5 {
        let (name, start) = (format!("race/{round}"), Barrier::new(RACERS));
        let race = |racer: usize| {
            start.wait();
            o.create(&name, racer.to_string().as_bytes()).unwrap().then_some(racer)
        };
        let race = &race;
        let won: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || race(racer))).collect();
            threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
        });
        let there = o.get(&name).unwrap().unwrap();
        assert_eq!(won.iter().map(usize::to_string).collect::<Vec<_>>(), [String::from_utf8(there).unwrap()]);
        o.delete(&name).unwrap();
    }
}

fn of_those_that_swap_each_step_has_one_winner(o: &dyn Objects) {
    const STEPS: usize = 8;
    o.put("n", b"0").unwrap();
    let add = || -> Vec<u32> {
        let mut won = Vec::new();
        while won.len() < STEPS {
            let now = o.get("n").unwrap().unwrap();
            let next = String::from_utf8(now.clone()).unwrap().parse::<u32>().unwrap() + 1;
            if o.swap("n", Some(&now), next.to_string().as_bytes()).unwrap() {
                won.push(next);
            }
        }
        won
    };
    let won: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..RACERS).map(|_| scope.spawn(add)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    let steps = (RACERS * STEPS) as u32;
    assert_eq!(won.into_iter().collect::<BTreeSet<_>>(), (1..=steps).collect(), "nobody's step is lost");
    assert_eq!(o.get("n").unwrap().unwrap(), steps.to_string().as_bytes());
    o.delete("n").unwrap();
}

fn a_reader_sees_whole_objects(o: &dyn Objects) {
    let states: Vec<Vec<u8>> = (0..4u8).map(|n| vec![n; 200_000]).collect();
    o.put("w", &states[0]).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..20).for_each(|n| o.put("w", &states[n % 4]).unwrap()));
        while !writer.is_finished() {
            let seen = o.get("w").unwrap().unwrap();
            assert!(states.contains(&seen), "{} bytes of more than one state", seen.len());
        }
    });
    o.delete("w").unwrap();
}

#[test]
fn a_directory_keeps_its_promises() {
    let dir = tempfile::tempdir().unwrap();
    keeps_its_promises(&Directory::open(&dir.path().join("in")).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing went elsewhere");
}

#[cfg(feature = "s3")]
mod remote {
    use super::*;
    use crate::moto::Moto;
    use lately_store::objects::S3;

    #[test]
    fn s3_keeps_its_promises() {
        let Some(moto) = Moto::start() else { return };
        keeps_its_promises(&moto.objects("s3://models/some/prefix"));
        keeps_its_promises(&moto.objects("s3://models"));
        // One prefix is not another's.
        let (a, ab) = (moto.objects("s3://models/a"), moto.objects("s3://models/ab"));
        ab.put("x", b"1").unwrap();
        assert_eq!((a.list("").unwrap(), a.get("x").unwrap()), (Vec::new(), None));
    }

    #[test]
    fn more_than_one_page_is_listed() {
        let Some(moto) = Moto::start() else { return };
        let objects = moto.objects("s3://models/pages");
        let names: Vec<_> = (0..1_020).map(|n| format!("p/{n:05}")).collect();
        std::thread::scope(|scope| {
            for part in names.chunks(255) {
                let objects = &objects;
                scope.spawn(move || part.iter().for_each(|n| objects.put(n, b"").unwrap()));
            }
        });
        let listed: Vec<_> = objects.list("p/").unwrap().into_iter().map(|i| i.name).collect();
        assert_eq!(listed, names);
    }

    #[test]
    fn what_fails_says_so_without_credentials() {
        const SECRET: &str = "do-not-show-me";
        let with = |endpoint: &str, uri: &str| {
            let settings = [
                ("AWS_ENDPOINT", endpoint),
                ("AWS_ACCESS_KEY_ID", SECRET),
                ("AWS_SECRET_ACCESS_KEY", SECRET),
                ("AWS_REGION", "us-east-1"),
            ];
            S3::open(uri, settings.map(|(k, v)| (k.to_owned(), v.to_owned())))
        };
        for (endpoint, uri, says) in [
            ("http://storage.example", "s3://models/x", "use https"),
            ("http://10.0.0.1:9000", "s3://models/x", "use https"),
            ("ftp://127.0.0.1", "s3://models/x", "use https"),
            ("nowhere", "s3://models/x", "no URL"),
            ("https://me:do-not-show-me@storage.example", "s3://models/x", "must not hold credentials"),
            ("https://storage.example", "s3://me:do-not-show-me@models/x", "s3://...@models/x"),
            ("https://storage.example", "s3://models/../x", "not a name"),
            ("https://storage.example", "s3://", "BUCKET"),
        ] {
            let error = format!("{0} {0:?}", with(endpoint, uri).map(drop).unwrap_err());
            assert!(error.contains(says) && !error.contains(SECRET), "{error}");
        }
        // Nobody listens there; with TLS, so that its part is there too.
        let closed = with("https://127.0.0.1:1", "s3://models/x").unwrap();
        assert!(!format!("{closed:?}").contains(SECRET));
        let error = format!("{0} {0:?}", closed.create("a", b"x").unwrap_err());
        assert!(error.contains("s3://models/x/a") && error.contains("refused"), "{error}");
        assert!(!error.contains(SECRET));

        let Some(moto) = Moto::start() else { return };
        let absent = moto.objects("s3://not-there/x");
        for error in [absent.get("a").map(drop), absent.put("a", b""), absent.list("").map(drop)] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("NoSuchBucket") && !error.contains(crate::moto::KEY), "{error}");
        }
    }
}
