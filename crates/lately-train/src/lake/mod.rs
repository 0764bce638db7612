//! The lake: the log's rankings, joined as a stream with what followed, as hourly Parquet files.
//!
//! The promise: each request of the log is one row, once, whoever crashes where; what [`Lake::read`] gives is what
//! [`join`](crate::join()) would give of the same log, once all waits are over. Rows, corrections and the state that is
//! needed to go on become visible together, by one new manifest.
//!
//! Read in this order: `stream.rs` (the join, in memory), `row.rs`, `page.rs` and `columns.rs` (a row, a file, its
//! columns), `manifest.rs` and `commit.rs` (what makes a commit), `state.rs` (what is needed to go on), `reader.rs` (rows
//! as a dataset), `maintain.rs` (compaction, thinning, retention). `docs/lake.md` describes the files for those who read
//! them with other tools.

mod cells;
mod columns;
mod commit;
mod config;
mod delays;
mod error;
mod files;
mod maintain;
mod manifest;
mod page;
mod reader;
mod rewrite;
mod row;
mod state;
mod stream;
mod summary;
mod table;

use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use lately_features::{Event, ItemVectors, Schema, codec};
use lately_store::objects::Objects;

pub use config::{LakeConfig, LakeConfigError};
pub use delays::DelayReport;
pub use error::LakeError;
pub use reader::LakeReader;
pub use summary::{Advanced, LakeSummary, Maintained};

use crate::dataset::Dataset;
use crate::dates::DateRange;
use crate::join::JoinError;
use files::Found;
use manifest::{Manifest, Object};
use state::Restore;
use stream::{Replay, Stream};

/// Pages of the log that are read ahead: one is taken, one is decoded.
const PAGES_AHEAD: usize = 2;

/// One partition of the log, joined. One process at a time may advance it; any number may read.
pub struct Lake {
    reader: LakeReader,
    config: LakeConfig,
    manifest: Manifest,
    stream: Stream,
    /// Objects that the newest manifest no longer names: the next commit removes them.
    dropped: Vec<String>,
    /// Whether a commit failed: what is in memory may then differ from what is written.
    broken: bool,
}

impl Lake {
    /// Opens a lake, or makes one. It goes on from the newest manifest; what no manifest names is removed, and a process
    /// that was still writing it can commit no more.
    ///
    /// # Errors
    /// [`LakeError`]: settings out of range, another schema, damage that leaves nothing to go on from, or objects that
    /// cannot be read.
    pub fn open(
        objects: Arc<dyn Objects>,
        schema: &Arc<Schema>,
        config: &LakeConfig,
    ) -> Result<Self, LakeError> {
        config.check()?;
        let partition = config.partition;
        let (manifest, damaged) = Manifest::newest(&*objects, partition)?;
        let manifest = manifest.unwrap_or_else(|| Manifest::new(partition, schema.hash()));
        for name in &damaged {
            tracing::warn!(%name, used = manifest.number, "a manifest is damaged: the one before it is used");
            files::set_aside(&*objects, name)?;
            objects.delete(name)?;
        }
        if manifest.schema != schema.hash() {
            return Err(LakeError::Schema { there: manifest.schema, here: schema.hash() });
        }
        let stream = restore(&*objects, &manifest, schema, config)?;
        let reader = LakeReader::new(objects, schema, config);
        let config = config.clone();
        let mut lake = Self { reader, config, manifest, stream, dropped: Vec::new(), broken: false };
        lake.manifest.quarantined.extend(damaged);
        lake.remove_orphans()?;
        Ok(lake)
    }

    /// Makes a lake new from the first record of the log: all files of the former one are dropped at once.
    ///
    /// # Errors
    /// As [`Lake::open`].
    pub fn rebuild(
        objects: Arc<dyn Objects>,
        schema: &Arc<Schema>,
        config: &LakeConfig,
    ) -> Result<Self, LakeError> {
        config.check()?;
        let folder = manifest::folder(config.partition);
        let last = objects
            .list(&folder)?
            .pop()
            .and_then(|info| info.name.strip_prefix(&folder)?.strip_suffix(".json")?.parse::<u64>().ok());
        let mut manifest = Manifest::new(config.partition, schema.hash());
        manifest.number = last.map_or(0, |last| last + 1);
        manifest.commit(&*objects)?;
        manifest.remove_all_former(&*objects)?;
        Self::open(objects, schema, config)
    }

    /// First log record that is not yet joined.
    pub fn next_offset(&self) -> u64 {
        self.stream.next_offset().max(self.manifest.next_offset)
    }

    /// A handle to read with, which any thread may have.
    pub fn reader(&self) -> LakeReader {
        self.reader.clone()
    }

    /// Rows of a range of time as a dataset, under the item vectors of a table; see [`LakeReader::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, range: DateRange, vectors: Option<Arc<ItemVectors>>) -> Result<Dataset, LakeError> {
        self.reader.read_of(&self.manifest, range, vectors, false)
    }

    /// Joins what the log holds and has not been joined, writes the rows of requests whose wait is over at `now_ms`
    /// (ms since 1970 UTC), and commits. `read` gives some records from an offset on, none at the end; it runs on
    /// another thread, ahead of the join.
    ///
    /// While it catches up, a wait is over by the time of the log; at its end, by `now_ms`.
    ///
    /// # Errors
    /// Where the log cannot be read: what was joined stays, and the next call goes on. Where a commit fails: the lake
    /// must be opened again.
    pub fn advance<E>(
        &mut self,
        read: &mut (dyn FnMut(u64) -> Result<Vec<(u64, Event)>, E> + Send),
        now_ms: i64,
    ) -> Result<Advanced, LakeError>
    where
        E: Error + Send + Sync + 'static,
    {
        if self.broken {
            return Err(LakeError::Broken);
        }
        let mut advanced = Advanced::default();
        let from = self.stream.next_offset();
        thread::scope(|scope| {
            let (sender, pages) = mpsc::sync_channel(PAGES_AHEAD);
            scope.spawn(move || read_pages(read, from, &sender));
            for page in pages {
                let page = page.map_err(|e| JoinError::Read(Box::new(e)))?;
                self.take(&page, now_ms, &mut advanced)?;
            }
            Ok::<_, LakeError>(())
        })?;
        // The records after the last that is there may have been scrubbed.
        self.stream.close_again(u64::MAX);
        if self.manifest.next_offset > self.stream.next_offset() {
            self.stream.last = Some(self.manifest.next_offset - 1);
        }
        while self.commit(now_ms, now_ms, &mut advanced)? {}
        advanced.open = self.stream.open.len();
        advanced.next_offset = self.next_offset();
        advanced.wait_ms = self.stream.wait_ms();
        Ok(advanced)
    }

    /// Joins some records; commits where enough rows are due.
    fn take(&mut self, page: &[(u64, Event)], now_ms: i64, advanced: &mut Advanced) -> Result<(), LakeError> {
        for (offset, event) in page {
            if self.stream.push(*offset, event, now_ms)? {
                advanced.events += 1;
            }
        }
        while !self.stream.replays()
            && self.stream.due(self.stream.log_time_ms) >= self.config.commit_candidates
            && self.commit(self.stream.log_time_ms, now_ms, advanced)?
        {}
        Ok(())
    }

    /// Removes what neither the newest manifest nor the one before it names. A new manifest comes first, so that a
    /// process that was about to name one of them cannot.
    fn remove_orphans(&mut self) -> Result<(), LakeError> {
        let objects = self.reader.objects.clone();
        let former = self.manifest.number.checked_sub(1);
        let former = former.map(|number| Manifest::numbered(&*objects, self.config.partition, number));
        let former = former.transpose()?.flatten();
        let named: HashSet<&str> = self.manifest.names().collect();
        let before: HashSet<&str> = former.iter().flat_map(Manifest::names).collect();
        let mut unnamed = files::all(&*objects, self.config.partition)?;
        unnamed.retain(|name| !named.contains(name.as_str()));
        let orphans = unnamed.iter().filter(|name| !before.contains(name.as_str())).count();
        if orphans == 0 {
            self.dropped = unnamed;
            return Ok(());
        }
        tracing::info!(orphans, "removing objects of a process that did not commit");
        self.manifest.number += 1;
        self.manifest.commit(&*objects)?;
        self.manifest.remove_former(&*objects)?;
        unnamed.iter().try_for_each(|name| Ok(objects.delete(name)?))
    }
}

/// Reads page after page until one is empty, one fails, or nobody wants more.
fn read_pages<E>(
    read: &mut (dyn FnMut(u64) -> Result<Vec<(u64, Event)>, E> + Send),
    mut from: u64,
    sender: &mpsc::SyncSender<Result<Vec<(u64, Event)>, E>>,
) {
    loop {
        let page = read(from);
        let last = page.as_ref().ok().and_then(|page| page.last()).map(|(offset, _)| *offset);
        if page.is_ok() && last.is_none() {
            return;
        }
        if sender.send(page).is_err() {
            return;
        }
        match last {
            Some(last) => from = last + 1,
            None => return,
        }
    }
}

/// The stream as of a manifest's state, ready to read the log again from there.
fn restore(
    objects: &dyn Objects,
    manifest: &Manifest,
    schema: &Arc<Schema>,
    config: &LakeConfig,
) -> Result<Stream, LakeError> {
    let refuse =
        |name: &str, why: &dyn ToString| LakeError::State { name: name.to_owned(), why: why.to_string() };
    let whole = |object: &Object| match files::get(objects, object)? {
        Found::Whole(bytes) => Ok(bytes),
        Found::Damaged => Err(refuse(&object.name, &"its bytes are not those that were written")),
        Found::Gone => Err(refuse(&object.name, &"it is not there")),
    };
    let mut restore = Restore::new(schema, config)?;
    for part in &manifest.state {
        restore.part(&whole(part)?).map_err(|e| refuse(&part.name, &e))?;
    }
    let mut commits = VecDeque::new();
    for commit in &manifest.since {
        commits.push_back(codec::decode(&whole(commit)?).map_err(|e| refuse(&commit.name, &e))?);
    }
    let mut stream = restore.finish();
    stream.replay = Replay::new(commits);
    Ok(stream)
}

#[cfg(test)]
mod tests;
