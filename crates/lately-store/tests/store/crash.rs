//! kill -9 while appends run: every acknowledged event is there afterwards, and nothing that was not sent.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::*;

const DIR: &str = "LATELY_CRASH_DIR";
const ROUND: &str = "LATELY_CRASH_ROUND";
const ROUNDS: u64 = 10;

/// The event that the id stands for, so that a record can be checked against what was sent.
fn sent(id: &str) -> Event {
    let (user, number) = id.split_once('-').unwrap();
    action(user, id, "save", T0 + number.parse::<i64>().unwrap())
}

/// Not a test of its own: the process that is killed. It prints each id once its append has returned.
#[test]
fn child() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else { return };
    let store = Arc::new(open(Path::new(&dir)));
    let append = |thread: usize| {
        for number in 0.. {
            // Batches of 1 to 4; several users a round, so that sequences do not overflow their cap at once.
            let ids: Vec<_> =
                (0..1 + number % 4).map(|i| format!("r{round}t{thread}n{number}-{i}")).collect();
            store.append(ids.iter().map(|id| sent(id)).collect()).unwrap();
            let mut out = std::io::stdout().lock();
            ids.iter().for_each(|id| writeln!(out, "acked {id}").unwrap());
            out.flush().unwrap();
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|t| drop(scope.spawn(move || append(t)))));
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let first = lines.by_ref().find(|l| l.contains("acked ")).expect("the child acknowledges something");
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(round * 7_919 % 60 * 1_000 + round * 137));
            child.kill().unwrap(); // SIGKILL
            child.wait().unwrap();
        });
        let before = acked.len();
        for line in std::iter::once(first).chain(lines) {
            // The last line may be cut: then its event counts as not acknowledged.
            let id = line.split_once("acked ").map(|(_, id)| id.to_owned());
            acked.extend(id.filter(|id| id.split_once('-').is_some_and(|(_, n)| n.len() == 1)));
        }
        killer.join().unwrap();
        assert!(acked.len() > before);

        let store = open(dir.path());
        let records = log(&store);
        let mut there = BTreeSet::new();
        for (at, (offset, event)) in records.iter().enumerate() {
            assert_eq!(at as u64, *offset, "offsets count up by one");
            let Event::Action(a) = event else { panic!("never sent: {event:?}") };
            assert_eq!(*event, sent(a.event_id.as_str()), "readable was sent");
            assert!(there.insert(a.event_id.to_string()), "once");
        }
        let lost: Vec<_> = acked.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged and lost in round {round}: {lost:?}");
        assert_eq!(store.next_offset(), records.len() as u64);
        // The sequences follow the log: at most 4 events a user here, below the cap.
        for (offset, event) in &records {
            let Event::Action(a) = event else { continue };
            let sequence = store.sequence(&a.user).unwrap();
            assert!(sequence.entries().iter().any(|e| e.offset == *offset), "{a:?} is not in the sequence");
        }
    }
}
