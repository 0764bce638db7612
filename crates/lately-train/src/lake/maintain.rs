//! Maintenance: parts of closed hours become one file with all corrections, negatives are thinned, what is old or was
//! forgotten goes, what is damaged is moved aside. Each step is a commit of its own; doing it again changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use super::error::LakeError;
use super::files;
use super::manifest::{File, Manifest, Replaced};
use super::rewrite::Rewrite;
use super::stream::HOUR_MS;
use super::{Lake, Maintained};

/// Objects of corrections of one hour that are not folded in while more of them may come.
const CORRECTIONS_KEPT: usize = 16;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What is to be done with an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// All its files become one, corrections are folded in; with thinning where that is due.
    Whole { thin: bool },
    /// Its files are written again one by one, without the users who asked to be forgotten.
    Forget,
}

impl Lake {
    /// Compacts hours that are over at `now_ms` (ms since 1970 UTC), folds corrections in, thins, drops what is past
    /// retention and who asked to be forgotten, moves damaged files aside, and removes objects that nobody needs.
    ///
    /// # Errors
    /// Where objects cannot be read or written; the lake must then be opened again.
    pub fn maintain(&mut self, now_ms: i64) -> Result<Maintained, LakeError> {
        if self.broken {
            return Err(LakeError::Broken);
        }
        let mut done = Maintained::default();
        let result = self.maintain_all(now_ms, &mut done);
        self.broken |= result.is_err();
        result.map(|()| done)
    }

    fn maintain_all(&mut self, now_ms: i64, done: &mut Maintained) -> Result<(), LakeError> {
        self.quarantine(now_ms, done)?;
        self.drop_old(now_ms, done)?;
        for (hour, task) in self.tasks(now_ms)? {
            self.rewrite_hour(hour, task, now_ms, done)?;
        }
        self.quarantine(now_ms, done)?;
        self.forget_done(now_ms, done)?;
        let next = self.next(now_ms);
        if next.replaced.len() < self.manifest.replaced.len() || !self.dropped.is_empty() {
            self.install(next)?;
        }
        Ok(())
    }

    /// Moves objects aside that a reader found damaged: each is copied, then no longer named, then removed.
    fn quarantine(&mut self, now_ms: i64, done: &mut Maintained) -> Result<(), LakeError> {
        let damaged =
            std::mem::take(&mut *self.reader.damaged.lock().unwrap_or_else(PoisonError::into_inner));
        let mut next = self.next(now_ms);
        let bad = |name: &str| damaged.contains(name);
        let files = next.files.extract_if(.., |f| bad(&f.requests.name) || bad(&f.items.name));
        let mut names: Vec<String> = files.flat_map(|f| [f.requests.name, f.items.name]).collect();
        names.extend(next.corrections.extract_if(.., |c| bad(&c.object.name)).map(|c| c.object.name));
        if names.is_empty() {
            return Ok(());
        }
        for name in &names {
            tracing::warn!(%name, "a damaged file of the lake goes to quarantine/; `lately join --rebuild` makes it again");
            files::set_aside(&*self.reader.objects, name)?;
        }
        done.quarantined += names.len() as u64;
        next.quarantined.extend(names);
        self.install(next)
    }

    fn drop_old(&mut self, now_ms: i64, done: &mut Maintained) -> Result<(), LakeError> {
        let days = i64::from(self.config.retention_days);
        let old = |hour: i64| days > 0 && end_ms(hour).saturating_add(days * DAY_MS) <= now_ms;
        let mut next = self.next(now_ms);
        let files: Vec<_> = next.files.extract_if(.., |f| old(f.hour)).collect();
        let corrections: Vec<_> = next.corrections.extract_if(.., |c| old(c.hour)).collect();
        if files.is_empty() && corrections.is_empty() {
            return Ok(());
        }
        done.dropped += files.len() as u64;
        let names = files.into_iter().flat_map(|f| [f.requests.name, f.items.name]);
        let names = names.chain(corrections.into_iter().map(|c| c.object.name));
        next.replaced.extend(names.map(|name| Replaced { name, at_ms: now_ms }));
        self.install(next)
    }

    /// What is to be done, by hour.
    fn tasks(&self, now_ms: i64) -> Result<BTreeMap<i64, Task>, LakeError> {
        let manifest = &self.manifest;
        let mut tasks = BTreeMap::new();
        let hours = manifest.files.iter().map(|f| f.hour).chain(manifest.corrections.iter().map(|c| c.hour));
        let open: BTreeSet<i64> = self.stream.open.keys().map(|(ms, _)| ms.div_euclid(HOUR_MS)).collect();
        for hour in hours.collect::<BTreeSet<_>>() {
            if let Some(task) = self.task(hour, open.contains(&hour), now_ms) {
                tasks.insert(hour, task);
            }
        }
        for file in &manifest.files {
            if !tasks.contains_key(&file.hour) && self.holds_forgotten(file)? {
                tasks.insert(file.hour, Task::Forget);
            }
        }
        Ok(tasks)
    }

    fn task(&self, hour: i64, open: bool, now_ms: i64) -> Option<Task> {
        let (manifest, config) = (&self.manifest, &self.config);
        let over =
            end_ms(hour).saturating_add(i64::from(config.hour_grace_seconds) * 1000) <= now_ms && !open;
        let files: Vec<&File> = manifest.files.iter().filter(|f| f.hour == hour).collect();
        let corrections = manifest.corrections.iter().filter(|c| c.hour == hour).count();
        // No action can belong to one of its requests any more.
        let log_time_ms = self.stream.log_time_ms.max(manifest.counts.log_time_ms);
        let settled = end_ms(hour).saturating_add(self.stream.horizon_ms()) <= log_time_ms;
        let age_ms = log_time_ms.saturating_sub(end_ms(hour));
        let thin = settled
            && config.thin_after_days > 0
            && age_ms >= i64::from(config.thin_after_days) * DAY_MS
            && files.iter().any(|f| f64::from(f.negative_rate) > config.negative_rate);
        let fold = corrections > CORRECTIONS_KEPT || (corrections > 0 && settled);
        (over && (files.len() > 1 || fold || thin)).then_some(Task::Whole { thin })
    }

    /// Whether a file holds rows of a user before their wish to be forgotten.
    fn holds_forgotten(&self, file: &File) -> Result<bool, LakeError> {
        let forgotten = &self.manifest.forgotten;
        if forgotten.iter().all(|f| f.offset < file.first_offset) {
            return Ok(false);
        }
        let Some((requests, _)) = self.reader.load(file, |column| matches!(column, "offset" | "user"))?
        else {
            return Ok(false); // it is damaged, and goes to quarantine
        };
        let rows = requests.offset.values.iter().zip(&requests.user.values);
        let gone = |(offset, user): (&i64, &parquet::data_type::ByteArray)| {
            forgotten.iter().any(|f| *offset < f.offset as i64 && f.user.as_bytes() == user.data())
        };
        Ok(rows.into_iter().any(gone))
    }

    /// Writes the files of an hour again, as few as there may be, and commits.
    fn rewrite_hour(
        &mut self,
        hour: i64,
        task: Task,
        now_ms: i64,
        done: &mut Maintained,
    ) -> Result<(), LakeError> {
        let mut next = self.next(now_ms);
        let files: Vec<File> = next.files.extract_if(.., |f| f.hour == hour).collect();
        let rewrite = Rewrite {
            reader: &self.reader,
            corrected: self.reader.corrected(&self.manifest, hour)?,
            forgotten: &self.manifest.forgotten,
            rate: matches!(task, Task::Whole { thin: true }).then_some(self.config.negative_rate as f32),
        };
        let mut corrections = next.corrections.iter().filter(|c| c.hour == hour);
        if corrections.any(|c| self.reader.is_damaged(&c.object.name)) {
            return Ok(()); // it must go to quarantine, not be folded in
        }
        for group in groups(&files, if task == Task::Forget { 0 } else { self.config.file_candidates }) {
            let Some((page, rate)) = rewrite.page(&group)? else {
                return Ok(()); // one is damaged: the hour is left as it is until that one is in quarantine
            };
            done.rows += page.rows() as u64;
            if page.rows() > 0 {
                next.files.push(self.write_page(&page, hour, next.number, rate, true)?);
            }
        }
        done.hours += 1;
        done.files += files.len() as u64;
        self.replace(&mut next, files, now_ms);
        if task != Task::Forget {
            let folded = next.corrections.extract_if(.., |c| c.hour == hour);
            let folded: Vec<_> = folded.map(|c| Replaced { name: c.object.name, at_ms: now_ms }).collect();
            next.replaced.extend(folded);
        }
        self.install(next)
    }

    fn replace(&self, next: &mut Manifest, files: Vec<File>, now_ms: i64) {
        let names = files.into_iter().flat_map(|f| [f.requests.name, f.items.name]);
        next.replaced.extend(names.map(|name| Replaced { name, at_ms: now_ms }));
    }

    /// Drops the wishes to be forgotten that all files have followed.
    fn forget_done(&mut self, now_ms: i64, done: &mut Maintained) -> Result<(), LakeError> {
        for file in &self.manifest.files {
            if self.holds_forgotten(file)? {
                return Ok(()); // of an hour that was left as it is
            }
        }
        done.forgotten += self.manifest.forgotten.len() as u64;
        if self.manifest.forgotten.is_empty() {
            return Ok(());
        }
        let mut next = self.next(now_ms);
        next.forgotten.clear();
        self.install(next)
    }
}

/// End of an hour, ms.
fn end_ms(hour: i64) -> i64 {
    hour.saturating_add(1).saturating_mul(HOUR_MS)
}

/// Files in groups of about so many candidates, in the order of the log.
fn groups(files: &[File], candidates: u64) -> Vec<Vec<&File>> {
    let mut ordered: Vec<&File> = files.iter().collect();
    ordered.sort_by_key(|f| f.first_offset);
    let mut groups: Vec<(u64, Vec<&File>)> = Vec::new();
    for file in ordered {
        match groups.last_mut() {
            Some((sum, group)) if *sum + file.candidates <= candidates => {
                *sum += file.candidates;
                group.push(file);
            }
            _ => groups.push((file.candidates, vec![file])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
