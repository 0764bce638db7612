//! The manifest: which objects are the lake. A commit writes its objects first and then a manifest with the next number,
//! which fails where that number is taken: what no manifest names was never there.

use lately_store::objects::Objects;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::delays::DelayReport;
use super::error::LakeError;

/// Version of the manifests that this build writes.
const FORMAT: u32 = 1;
/// Manifests that are kept: the newest, and the one that takes its place where it is damaged.
const KEPT: u64 = 2;

/// One object that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// XXH3-128 of its bytes.
    pub(crate) check: String,
}

/// Requests of one hour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct File {
    /// Hours since 1970 UTC.
    pub(crate) hour: i64,
    pub(crate) requests: Object,
    pub(crate) items: Object,
    pub(crate) first_offset: u64,
    pub(crate) last_offset: u64,
    pub(crate) rows: u64,
    pub(crate) candidates: u64,
    /// Share of the negatives that are there.
    pub(crate) negative_rate: f32,
    /// Whether maintenance wrote it.
    pub(crate) compacted: bool,
}

/// Corrections of one hour's requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Correction {
    pub(crate) hour: i64,
    pub(crate) object: Object,
    pub(crate) rows: u64,
}

/// A user who asked to be forgotten, until no file holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Forgotten {
    pub(crate) user: String,
    /// Of the wish: rows before it are gone.
    pub(crate) offset: u64,
}

/// An object that nothing needs but those who read it now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Replaced {
    pub(crate) name: String,
    /// When it was replaced, ms since 1970 UTC.
    pub(crate) at_ms: i64,
}

/// What the lake counted, for those who ask.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) open_requests: u64,
    pub(crate) wait_ms: i64,
    pub(crate) log_time_ms: i64,
    pub(crate) delays: Vec<DelayReport>,
    /// Of each action type those that came after the row was written.
    pub(crate) late: Vec<u64>,
}

/// Which objects are the lake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) number: u64,
    pub(crate) partition: u32,
    /// Hash of the schema.
    pub(crate) schema: String,
    /// First log record that is not joined.
    pub(crate) next_offset: u64,
    pub(crate) files: Vec<File>,
    /// In the order in which they apply.
    pub(crate) corrections: Vec<Correction>,
    pub(crate) forgotten: Vec<Forgotten>,
    /// The state as of `state_offset`, in parts.
    pub(crate) state: Vec<Object>,
    pub(crate) state_offset: u64,
    /// What was written since, commit by commit.
    pub(crate) since: Vec<Object>,
    pub(crate) replaced: Vec<Replaced>,
    /// Objects that were moved aside because they were damaged.
    pub(crate) quarantined: Vec<String>,
    pub(crate) counts: Counts,
    /// XXH3-128 of this manifest with an empty check.
    pub(crate) check: String,
}

impl Manifest {
    pub(crate) fn new(partition: u32, schema: String) -> Self {
        Self {
            format: FORMAT,
            number: 0,
            partition,
            schema,
            next_offset: 0,
            files: Vec::new(),
            corrections: Vec::new(),
            forgotten: Vec::new(),
            state: Vec::new(),
            state_offset: 0,
            since: Vec::new(),
            replaced: Vec::new(),
            quarantined: Vec::new(),
            counts: Counts::default(),
            check: String::new(),
        }
    }

    /// Names of all objects that it needs.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let files = self.files.iter().flat_map(|f| [&f.requests, &f.items]);
        let objects =
            files.chain(self.corrections.iter().map(|c| &c.object)).chain(&self.state).chain(&self.since);
        objects.map(|o| o.name.as_str()).chain(self.replaced.iter().map(|r| r.name.as_str()))
    }

    fn to_bytes(&self) -> Vec<u8> {
        // It holds no map with keys other than texts and no number that is not finite: it always has a form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn seal(&mut self) -> Vec<u8> {
        self.check.clear();
        self.check = check(&self.to_bytes());
        self.to_bytes()
    }

    /// `None`: it is damaged.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut manifest: Self = serde_json::from_slice(bytes).ok()?;
        let said = std::mem::take(&mut manifest.check);
        (manifest.format == FORMAT && said == check(&manifest.to_bytes()))
            .then_some(Self { check: said, ..manifest })
    }

    /// Writes it as the newest.
    ///
    /// # Errors
    /// [`LakeError::Taken`] where another process did.
    pub(crate) fn commit(&mut self, objects: &dyn Objects) -> Result<(), LakeError> {
        let bytes = self.seal();
        match objects.create(&name(self.partition, self.number), &bytes)? {
            true => Ok(()),
            false => Err(LakeError::Taken { number: self.number }),
        }
    }

    /// The newest that is whole, and the names of those after it that are not.
    pub(crate) fn newest(
        objects: &dyn Objects,
        partition: u32,
    ) -> Result<(Option<Self>, Vec<String>), LakeError> {
        let mut damaged = Vec::new();
        for info in objects.list(&folder(partition))?.into_iter().rev() {
            // It may have been removed since: there is a newer one then.
            let Some(bytes) = objects.get(&info.name)? else { continue };
            match Self::parse(&bytes) {
                Some(manifest) => return Ok((Some(manifest), damaged)),
                None if is_newer(&bytes) => return Err(LakeError::Newer { name: info.name }),
                None => damaged.push(info.name),
            }
        }
        match damaged.first() {
            Some(name) => Err(LakeError::Manifest { name: name.clone() }),
            None => Ok((None, damaged)),
        }
    }

    /// One of a given number, if it is there and whole.
    pub(crate) fn numbered(
        objects: &dyn Objects,
        partition: u32,
        number: u64,
    ) -> Result<Option<Self>, LakeError> {
        Ok(objects.get(&name(partition, number))?.and_then(|bytes| Self::parse(&bytes)))
    }

    /// Removes the manifests that are not kept.
    pub(crate) fn remove_former(&self, objects: &dyn Objects) -> Result<(), LakeError> {
        self.remove_before(KEPT, objects)
    }

    /// Removes all manifests before this one.
    pub(crate) fn remove_all_former(&self, objects: &dyn Objects) -> Result<(), LakeError> {
        self.remove_before(1, objects)
    }

    fn remove_before(&self, kept: u64, objects: &dyn Objects) -> Result<(), LakeError> {
        let Some(last) = self.number.checked_sub(kept) else { return Ok(()) };
        for info in objects.list(&folder(self.partition))? {
            if info.name <= name(self.partition, last) {
                objects.delete(&info.name)?;
            }
        }
        Ok(())
    }
}

/// Whether a newer build wrote a manifest: it is not for this one to call it damaged.
fn is_newer(bytes: &[u8]) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    value.and_then(|v| v.get("format")?.as_u64()).is_some_and(|format| format > u64::from(FORMAT))
}

/// XXH3-128 as 32 hex digits.
pub(crate) fn check(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// Where a partition's manifests are.
pub(crate) fn folder(partition: u32) -> String {
    format!("manifests/{partition}/")
}

fn name(partition: u32, number: u64) -> String {
    format!("{}{number:012}.json", folder(partition))
}
