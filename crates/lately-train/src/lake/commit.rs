//! A commit: rows, corrections and state as new objects, then one manifest that names them.

use std::collections::BTreeMap;

use lately_features::codec;
use parquet::errors::ParquetError;

use super::columns::Corrections;
use super::delays;
use super::error::LakeError;
use super::files::{self, CORRECTIONS, ITEMS, REQUESTS};
use super::manifest::{Correction, Counts, File, Forgotten, Manifest, Replaced};
use super::page::Page;
use super::state;
use super::stream::{Closed, HOUR_MS, Since};
use super::{Advanced, Lake};

/// The state is written again after as many records as an eighth of the actions that it holds, if that is more than
/// `snapshot_records`: it then costs a few bytes a record.
const STATE_SHARE: u64 = 8;

impl Lake {
    /// Writes the rows whose wait is over at `at_ms`, with all that has changed since the last commit. `false`: there
    /// was nothing to write.
    pub(super) fn commit(&mut self, at_ms: i64, now_ms: i64, done: &mut Advanced) -> Result<bool, LakeError> {
        let closed = self.stream.close(at_ms);
        let stream = &self.stream;
        let anything = !closed.is_empty()
            || !stream.corrections.is_empty()
            || !stream.forgotten.is_empty()
            || stream.next_offset() > self.manifest.next_offset;
        if !anything {
            return Ok(false);
        }
        let result = self.write(closed, now_ms, done);
        self.broken |= result.is_err();
        result.map(|()| true)
    }

    fn write(&mut self, closed: Vec<Closed>, now_ms: i64, done: &mut Advanced) -> Result<(), LakeError> {
        let mut next = self.next(now_ms);
        next.next_offset = self.stream.next_offset();
        let offsets: Vec<u64> = closed.iter().map(|(row, _)| row.offset).collect();
        for (hour, page) in self.pages(closed) {
            done.rows += page.rows() as u64;
            done.candidates += page.candidates() as u64;
            next.files.push(self.write_page(&page, hour, next.number, 1.0, false)?);
        }
        done.corrections += self.stream.corrections.len() as u64;
        self.write_corrections(&mut next)?;
        let forgotten = std::mem::take(&mut self.stream.forgotten);
        let forgotten =
            forgotten.into_iter().map(|(user, offset)| Forgotten { user: user.to_string(), offset });
        next.forgotten.extend(forgotten);
        self.stream.evict();
        self.write_state(&mut next, offsets)?;
        next.counts = self.counts();
        done.commits += 1;
        self.install(next)
    }

    /// The next manifest, as the last one but without what nobody can be reading any more.
    pub(super) fn next(&self, now_ms: i64) -> Manifest {
        let mut next = self.manifest.clone();
        next.number += 1;
        let grace_ms = i64::from(self.config.reader_grace_seconds) * 1000;
        next.replaced.retain(|r| r.at_ms.saturating_add(grace_ms) > now_ms);
        next
    }

    /// Writes a manifest and removes what it and the one before it do not name.
    pub(super) fn install(&mut self, mut next: Manifest) -> Result<(), LakeError> {
        let objects = self.reader.objects.clone();
        next.commit(&*objects)?;
        let named: std::collections::HashSet<&str> = next.names().collect();
        let gone = |name: &&str| !named.contains(name);
        let dropped: Vec<String> = self.manifest.names().filter(gone).map(str::to_owned).collect();
        for name in self.dropped.drain(..) {
            objects.delete(&name)?;
        }
        (self.dropped, self.manifest) = (dropped, next);
        self.manifest.remove_former(&*objects)
    }

    fn pages(&self, closed: Vec<Closed>) -> BTreeMap<i64, Page> {
        let mut pages = BTreeMap::<i64, Page>::new();
        for (row, marks) in closed {
            pages.entry(row.time_ms.div_euclid(HOUR_MS)).or_default().push(&row, &marks, &self.stream.known);
        }
        pages
    }

    /// Writes a file of requests and that of their items.
    pub(super) fn write_page(
        &self,
        page: &Page,
        hour: i64,
        commit: u64,
        negative_rate: f32,
        compacted: bool,
    ) -> Result<File, LakeError> {
        let (objects, partition) = (&*self.reader.objects, self.config.partition);
        let offsets = page.requests.offset.values.iter().map(|o| *o as u64);
        let (first, last) = (offsets.clone().min().unwrap_or(0), offsets.max().unwrap_or(0));
        let name = |kind| files::file(kind, hour, partition, (first, last), commit);
        let requests = page.requests.to_parquet(page.rows())?;
        let items = page.items.to_parquet(page.items.item.len())?;
        Ok(File {
            hour,
            items: files::put(objects, name(ITEMS), &items)?,
            requests: files::put(objects, name(REQUESTS), &requests)?,
            first_offset: first,
            last_offset: last,
            rows: page.rows() as u64,
            candidates: page.candidates() as u64,
            negative_rate,
            compacted,
        })
    }

    fn write_corrections(&mut self, next: &mut Manifest) -> Result<(), LakeError> {
        let mut hours = BTreeMap::<i64, Corrections>::new();
        for ((hour, offset, candidate), observed) in std::mem::take(&mut self.stream.corrections) {
            let rows = hours.entry(hour).or_default();
            rows.offset.push(offset as i64);
            rows.candidate.push(i32::from(candidate));
            rows.observed.push(observed as i64);
        }
        for (hour, rows) in hours {
            let all = &rows.offset.values;
            let offsets = (all.first().map_or(0, |o| *o as u64), all.last().map_or(0, |o| *o as u64));
            let name = files::file(CORRECTIONS, hour, self.config.partition, offsets, next.number);
            let (bytes, rows) = (rows.to_parquet(all.len())?, all.len() as u64);
            next.corrections.push(Correction {
                hour,
                object: files::put(&*self.reader.objects, name, &bytes)?,
                rows,
            });
        }
        Ok(())
    }

    /// Writes what is needed to go on: what this commit closed, or, where that is long ago, the whole state.
    fn write_state(&self, next: &mut Manifest, closed: Vec<u64>) -> Result<(), LakeError> {
        let (objects, partition, number) = (&*self.reader.objects, next.partition, next.number);
        let since = next.next_offset - next.state_offset;
        if since < self.config.snapshot_records.max(self.stream.actions() / STATE_SHARE) {
            let bytes = codec::encode(&Since { next_offset: next.next_offset, closed })?;
            next.since.push(files::put(objects, files::since(partition, number), &bytes)?);
            return Ok(());
        }
        let former = next.state.drain(..).chain(next.since.drain(..));
        // Nobody reads them but who opens the lake by the manifest before.
        next.replaced.extend(former.map(|o| Replaced { name: o.name, at_ms: i64::MIN }));
        let mut parts = Vec::new();
        state::write(&self.stream, &mut |bytes| {
            let name = files::state(partition, number, parts.len());
            parts.push(files::put(objects, name, &bytes)?);
            Ok::<_, LakeError>(())
        })?;
        (next.state, next.state_offset) = (parts, next.next_offset);
        Ok(())
    }

    pub(super) fn counts(&self) -> Counts {
        let (stream, wait_ms) = (&self.stream, self.stream.wait_ms());
        Counts {
            open_requests: stream.open.len() as u64,
            wait_ms,
            log_time_ms: stream.log_time_ms,
            delays: delays::report(&stream.delays, &stream.known.schema, wait_ms),
            late: stream.late.clone(),
        }
    }
}

/// An error of Parquet where bytes make no sense.
pub(super) fn senseless(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}
