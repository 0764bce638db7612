//! kill -9 while models are published, pointed at, rolled back and collected.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lately_store::registry::{Change, Garbage, Registry, Version};
use serde_json::json;

const DIR: &str = "LATELY_REGISTRY_CRASH_DIR";
const ROUND: &str = "LATELY_REGISTRY_CRASH_ROUND";
const ROUNDS: u64 = 25;

/// Not a test of its own: the process that is killed. It prints what was done once it is.
#[test]
fn child() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else { return };
    let r = Registry::open(Path::new(&dir)).unwrap();
    let say = |what: &str, version: &Version| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "done {what} {version}").unwrap();
        out.flush().unwrap();
    };
    for n in 0u64.. {
        // Larger than a page, so that a kill can fall into the middle of it.
        let bytes = format!("model {round} {n} ").repeat(20_000);
        let version = r.publish(bytes.as_bytes(), &json!({"n": n})).unwrap();
        say("publish", &version);
        r.set_alias("champion", &version).unwrap();
        say("alias", &version);
        if n % 3 == 2 {
            say("rollback", &r.rollback("champion").unwrap().1);
        }
        if n % 5 == 4 {
            r.gc(&Garbage { keep: 3, grace: Duration::ZERO, dry_run: false }).unwrap();
        }
    }
}

/// Runs the child, kills it, and returns what it said.
fn killed(dir: &Path, round: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "registry_crash::child", "--nocapture"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.by_ref().find(|l| l.contains("done ")).expect("the child does something");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_micros(round * 7_919 % 97 * 1_000 + round * 137));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    });
    let said = std::iter::once(first).chain(lines);
    let done = said.filter_map(|l| l.split_once("done ").map(|(_, d)| d.to_owned())).collect();
    killer.join().unwrap();
    done
}

#[test]
fn no_half_version_and_no_lost_record_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let done = killed(dir.path(), round);
        let r = Registry::open(dir.path()).unwrap();
        let versions = r.versions().unwrap();
        versions.iter().for_each(|i| assert_eq!(r.load(&i.version).unwrap().len() as u64, i.bytes));
        let champion = r.alias("champion").unwrap();
        champion.iter().for_each(|v| drop(r.load(v).unwrap()));
        assert!(champion.is_some() || done.iter().all(|d| !d.starts_with("alias")));

        // What was told is recorded, and the changes of the alias have no gap.
        let trail = r.audit().unwrap();
        for line in done.iter().filter_map(|d| d.strip_prefix("publish ")).filter(|v| v.len() == 64) {
            let is_it = |c: &Change| matches!(c, Change::Publish { version } if version.as_str() == line);
            assert!(trail.iter().any(|a| is_it(&a.change)), "round {round}: {line}");
        }
        let steps: Vec<_> = trail.iter().map(|a| a.step).filter(|s| *s > 0).collect();
        assert_eq!(steps, (1..=steps.len() as u64).collect::<Vec<_>>(), "round {round}");
        let last = trail.iter().rev().find_map(|a| match &a.change {
            Change::Alias { to, .. } | Change::Rollback { to, .. } => Some(to),
            _ => None,
        });
        assert_eq!(last, champion.as_ref(), "round {round}");

        // Nothing is left over once garbage was removed, and the champion is still there.
        r.gc(&Garbage { keep: 3, grace: Duration::ZERO, dry_run: false }).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(dir.path().join("artifacts"))
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let whole = r.versions().unwrap().into_iter().map(|i| i.version);
        let mut expected: Vec<_> = whole.flat_map(|v| [format!("{v}.bin"), format!("{v}.json")]).collect();
        expected.sort();
        assert_eq!(files, expected, "round {round}");
        champion.iter().for_each(|v| drop(r.load(v).unwrap()));
    }
}
