//! Checks the engine's journals before the engine reads them.
//!
//! The engine (fjall 3.1) replays its journals at open, and stops at the first byte that it does not understand: it
//! cuts the file there, without a word, though whole batches may follow. That is right for a torn tail, the batch
//! that was being written when the power went; for a bad disk it would drop acknowledged batches in silence. And a
//! tail torn in the midst of a batch, with the preallocated zeros behind it, is an error or a panic there. So each
//! journal is walked here first:
//!
//! - every batch has its checksum and a number above the former one's, then zeros or the end: nothing to do;
//! - in the newest journal, the last batch is broken and none follows: every batch was synced before the next was
//!   begun, so only this one can be torn, and it was never acknowledged: it is cut off, with a warning;
//! - anything else is damage, and the store does not open.
//!
//! A batch is a start (tag 1, item count u32, sequence number u64), items (tag 2; see `item`) or clears (tag 4,
//! keyspace u64), and an end (tag 3, XXH3-64 of the items' bytes, magic); little-endian.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::StoreError;
use crate::engine::damaged;

/// Ends each batch, and is the content of the file that names the format.
const MAGIC: &[u8; 4] = b"FJL\x03";

/// Checks, and cuts a torn tail. Does nothing where there is no database yet, or one of another format, which the
/// engine itself refuses.
pub(crate) fn check(dir: &Path) -> Result<(), StoreError> {
    let version = match fs::read(dir.join("version")) {
        Ok(version) => version,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(e)),
    };
    if version != MAGIC {
        return Ok(());
    }
    let _lock = lock(dir)?;
    let mut journals = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let number = path.file_name().and_then(|n| n.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        journals.extend(number.map(|number| (number, path)));
    }
    journals.sort();
    let newest = journals.last().map(|(number, _)| *number);
    let mut sequence = 0;
    for (number, path) in journals {
        check_file(&path, Some(number) == newest, &mut sequence)?;
    }
    Ok(())
}

/// Holds the engine's own lock while we look: nobody writes meanwhile.
fn lock(dir: &Path) -> Result<Option<File>, StoreError> {
    let file = match File::options().read(true).write(true).open(dir.join("lock")) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked(dir.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(io(e)),
    }
}

/// `sequence`: the next batch's number is at least this one.
fn check_file(path: &Path, newest: bool, sequence: &mut u64) -> Result<(), StoreError> {
    let bytes = fs::read(path).map_err(io)?;
    let mut at = 0;
    while let Some(batch) = batch(&bytes[at..]) {
        // The batch's checksum leaves its number out; numbers count up.
        if !(*sequence..sequence.saturating_add(MOST_SKIPPED)).contains(&batch.sequence) {
            break;
        }
        *sequence = batch.sequence + 1;
        at += batch.length;
    }
    let rest = &bytes[at..];
    let Some(last) = rest.iter().rposition(|b| *b != 0) else { return Ok(()) };
    let name = path.file_name().unwrap_or_default().display();
    if !newest {
        return Err(damaged(format!("journal {name} is broken at byte {at}, though it was complete")));
    }
    if (1..=last).any(|from| rest[from] == START && batch(&rest[from..]).is_some()) {
        return Err(damaged(format!("journal {name} is broken at byte {at}, and whole batches follow")));
    }
    tracing::warn!(journal = %name, at, bytes = last + 1, "cut a batch that was torn before it was acknowledged");
    let file = File::options().write(true).open(path).map_err(io)?;
    file.set_len(at as u64).and_then(|()| file.sync_all()).map_err(io)
}

/// Between two batches the engine uses up some numbers for itself, never as many as this.
const MOST_SKIPPED: u64 = 1 << 40;
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

struct Batch {
    length: usize,
    sequence: u64,
}

/// The whole batch at the beginning, its checksum valid; `None` where there is none.
fn batch(bytes: &[u8]) -> Option<Batch> {
    let mut cursor = Cursor { bytes, at: 0 };
    if cursor.take(1)? != [START] {
        return None;
    }
    let count = cursor.u32()?;
    let sequence = u64::from_le_bytes(cursor.take(8)?.try_into().ok()?);
    let items = cursor.at;
    for _ in 0..count {
        match cursor.take(1)? {
            [ITEM] => item(&mut cursor)?,
            [CLEAR] => drop(cursor.take(8)?),
            _ => return None,
        }
    }
    let end = cursor.at;
    let sum = xxh3_64(&bytes[items..end]).to_le_bytes();
    let whole = cursor.take(1)? == [END] && cursor.take(8)? == sum && cursor.take(4)? == MAGIC;
    whole.then_some(Batch { length: cursor.at, sequence })
}

/// Kind u8, compression u8, keyspace u64, lengths of key u16, value u32 and stored value u32, key, stored value.
fn item(cursor: &mut Cursor<'_>) -> Option<()> {
    cursor.take(1 + 1 + 8)?;
    let key = usize::from(u16::from_le_bytes(cursor.take(2)?.try_into().ok()?));
    cursor.take(4)?;
    let stored = cursor.u32()? as usize;
    cursor.take(key.checked_add(stored)?).map(drop)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
}

fn io(error: std::io::Error) -> StoreError {
    StoreError::Engine(Arc::new(fjall::Error::Io(error)))
}
