//! Damage of the journal's tail, as a power cut or a bad disk leaves it.

use std::fs::{self, File};
use std::path::PathBuf;

use super::*;
use lately_store::StoreError;

const EVENTS: i64 = 12;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn journal(dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.find(|p| p.extension().is_some_and(|e| e == "jnl")).unwrap()
}

/// A store with some single-event batches, and the end of its journal's content.
fn written() -> (tempfile::TempDir, usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 0..EVENTS {
        store.append(vec![action("u", &format!("e{i}"), "save", T0 + i)]).unwrap();
    }
    drop(store);
    let path = journal(dir.path());
    let bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
    // Without the preallocated rest, copies are cheap.
    File::options().write(true).open(path).unwrap().set_len(end as u64).unwrap();
    (dir, end)
}

/// Opens a damaged copy; the log must be a prefix of what was sent, and the sequence must follow it.
fn check(dir: &Path) -> Result<usize, StoreError> {
    let store = Store::open(dir, schema(SCHEMA), StoreLimits::default())?;
    let records = log(&store);
    for (i, (offset, event)) in records.iter().enumerate() {
        assert_eq!((*offset, event), (i as u64, &action("u", &format!("e{i}"), "save", T0 + i as i64)));
    }
    assert_eq!(store.next_offset(), records.len() as u64);
    assert_eq!(store.sequence(&user("u")).unwrap().entries().len(), records.len().min(6));
    // And it goes on from there.
    let more = action("u", &format!("e{}", records.len()), "save", T0 + records.len() as i64);
    assert_eq!(store.append(vec![more]).unwrap().first_offset, records.len() as u64);
    Ok(records.len())
}

#[test]
fn a_torn_tail_leaves_the_longest_whole_prefix() {
    let (dir, end) = written();
    let mut found = Vec::new();
    for back in [0, 1, 2, 7, 8, 9, 20, 60, 110, 160, 210, 260, 330, 400, 500] {
        for zeros in [false, true] {
            let copied = tempfile::tempdir().unwrap();
            copy(dir.path(), copied.path());
            let file = File::options().write(true).open(journal(copied.path())).unwrap();
            file.set_len((end - back) as u64).unwrap();
            if zeros {
                file.set_len(end as u64 + 4_096).unwrap(); // the file was preallocated, the write never came
            }
            drop(file);
            found.push(check(copied.path()).unwrap_or_else(|e| panic!("cut {back} before the end: {e}")));
        }
    }
    assert_eq!(found[0], EVENTS as usize);
    assert!(found.is_sorted_by(|a, b| a >= b), "{found:?}");
    assert!(found[found.len() - 1] < found[0]);
}

#[test]
fn a_flipped_bit_is_refused_or_costs_the_last_batch_alone() {
    let (dir, end) = written();
    let (mut refused, mut cut) = (0, 0);
    for back in (1..end).step_by(67).chain(1..40) {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        let path = journal(copied.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[end - back] ^= 1 << (back % 8);
        fs::write(&path, bytes).unwrap();
        // The last batch cannot be told from one that was torn; in any other the damage is certain.
        match check(copied.path()) {
            Ok(records) => {
                assert_eq!(records, EVENTS as usize - 1, "flipped {back} before the end");
                cut += 1;
            }
            Err(StoreError::Damaged(why)) if why.contains("whole batches follow") => refused += 1,
            Err(e) => panic!("{e:?}"),
        }
    }
    assert!(refused > 20 && cut > 20, "{refused} refused, {cut} cut");
}
