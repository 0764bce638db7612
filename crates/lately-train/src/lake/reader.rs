//! Rows of a lake as a dataset: what is written, as it was corrected, under the item vectors that a model is to see.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use lately_features::{Features, ItemId, ItemVectors, Schema, Token, UserId};
use lately_store::objects::Objects;
use parquet::errors::ParquetError;

use super::columns::{Corrections, Items, Requests};
use super::config::LakeConfig;
use super::error::LakeError;
use super::files::{self, Found};
use super::manifest::{File, Manifest, Object};
use super::page::{item_features, item_id, text};
use super::stream::HOUR_MS;
use crate::dataset::{Candidate, Dataset, Request, head_bits};
use crate::dates::DateRange;
use crate::join::check_size;
use crate::known::Interner;
use crate::stats::JoinStats;

/// How often a reader begins again with a newer manifest where files went that it was about to read.
const TRIES: usize = 3;

/// Corrected bits by offset and candidate.
pub(super) type Corrected = HashMap<(i64, i32), i64>;

/// A handle to read with: cheap to clone, for any thread and process, also while the lake is advanced elsewhere.
#[derive(Clone)]
pub struct LakeReader {
    pub(super) objects: Arc<dyn Objects>,
    pub(super) schema: Arc<Schema>,
    partition: u32,
    max_rows: usize,
    max_tokens: usize,
    /// Objects that were found damaged; maintenance moves them aside.
    pub(super) damaged: Arc<Mutex<HashSet<String>>>,
}

impl fmt::Debug for LakeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeReader")
            .field("objects", &self.objects)
            .field("partition", &self.partition)
            .finish()
    }
}

impl LakeReader {
    /// A reader of the lake in `objects`.
    pub fn new(objects: Arc<dyn Objects>, schema: &Arc<Schema>, config: &LakeConfig) -> Self {
        let LakeConfig { partition, max_rows, max_tokens, .. } = *config;
        let damaged = Arc::default();
        Self { objects, schema: schema.clone(), partition, max_rows, max_tokens, damaged }
    }

    /// Rows of requests of a range of time, as of the newest manifest, with all corrections. Items have what they were
    /// sent with, or, where a table is given, its vectors, as [`join`](crate::join()) lays them over. Rows that are no
    /// examples (`degraded`, `bot`, `unknowable`) are left out.
    ///
    /// A damaged file is left out with a warning.
    ///
    /// # Errors
    /// Where the lake cannot be read, is of another schema, or holds more than the limits.
    pub fn read(&self, range: DateRange, vectors: Option<&Arc<ItemVectors>>) -> Result<Dataset, LakeError> {
        self.read_newest(range, vectors, false)
    }

    /// As [`LakeReader::read`], with the rows that are no examples.
    ///
    /// # Errors
    /// As there.
    pub fn read_all(
        &self,
        range: DateRange,
        vectors: Option<&Arc<ItemVectors>>,
    ) -> Result<Dataset, LakeError> {
        self.read_newest(range, vectors, true)
    }

    fn read_newest(
        &self,
        range: DateRange,
        vectors: Option<&Arc<ItemVectors>>,
        all: bool,
    ) -> Result<Dataset, LakeError> {
        let mut tries = 1;
        loop {
            let (manifest, _) = Manifest::newest(&*self.objects, self.partition)?;
            let manifest = manifest.unwrap_or_else(|| Manifest::new(self.partition, self.schema.hash()));
            match self.read_of(&manifest, range, vectors.cloned(), all) {
                Err(LakeError::Gone(_)) if tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }

    /// Rows as of a manifest.
    pub(super) fn read_of(
        &self,
        manifest: &Manifest,
        range: DateRange,
        vectors: Option<Arc<ItemVectors>>,
        all: bool,
    ) -> Result<Dataset, LakeError> {
        if manifest.schema != self.schema.hash() {
            return Err(LakeError::Schema { there: manifest.schema.clone(), here: self.schema.hash() });
        }
        let mut rows = Rows::new(manifest, &self.schema, range, vectors.clone(), all);
        let mut corrected = HashMap::new();
        for file in manifest.files.iter().filter(|f| overlaps(f.hour, range)) {
            let corrected = match corrected.entry(file.hour) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(place) => place.insert(self.corrected(manifest, file.hour)?),
            };
            if let Some((requests, items)) = self.load(file, for_training)? {
                let added = rows.add(&requests, &items, corrected);
                self.noticed(added, &file.requests.name);
                check_size(&rows.stats, self.max_rows, self.max_tokens)?;
            }
        }
        let version = vectors.map(|v| v.version().to_owned()).unwrap_or_default();
        let ids = (rows.users.list, rows.items.list);
        Ok(Dataset::new(self.schema.clone(), version, ids, rows.requests, rows.stats))
    }

    /// A file's columns; `None` where it is damaged.
    pub(super) fn load(
        &self,
        file: &File,
        wanted: fn(&str) -> bool,
    ) -> Result<Option<(Requests, Items)>, LakeError> {
        let Some(requests) = self.bytes(&file.requests)? else { return Ok(None) };
        let Some(items) = self.bytes(&file.items)? else { return Ok(None) };
        let requests = self.noticed(Requests::from_parquet(requests, wanted), &file.requests.name);
        let items = self.noticed(Items::from_parquet(items, |_| true), &file.items.name);
        Ok(requests.zip(items))
    }

    /// What was corrected of an hour; what is damaged of it is left out.
    pub(super) fn corrected(&self, manifest: &Manifest, hour: i64) -> Result<Corrected, LakeError> {
        let mut corrected = Corrected::new();
        for correction in manifest.corrections.iter().filter(|c| c.hour == hour) {
            let Some(bytes) = self.bytes(&correction.object)? else { continue };
            let read = Corrections::from_parquet(bytes, |_| true);
            let Some(rows) = self.noticed(read, &correction.object.name) else { continue };
            let places = rows.offset.values.iter().copied().zip(rows.candidate.values.iter().copied());
            corrected.extend(places.zip(rows.observed.values.iter().copied()));
        }
        Ok(corrected)
    }

    /// Whether an object was found damaged.
    pub(super) fn is_damaged(&self, name: &str) -> bool {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    fn bytes(&self, object: &Object) -> Result<Option<Vec<u8>>, LakeError> {
        match files::get(&*self.objects, object)? {
            Found::Whole(bytes) => Ok(Some(bytes)),
            Found::Gone => Err(LakeError::Gone(object.name.clone())),
            Found::Damaged => {
                let other = Err(super::commit::senseless("its bytes are not those that were written"));
                Ok(self.noticed(other, &object.name))
            }
        }
    }

    /// Remembers an object that makes no sense.
    fn noticed<T>(&self, read: Result<T, ParquetError>, name: &str) -> Option<T> {
        let error = match read {
            Ok(read) => return Some(read),
            Err(error) => error,
        };
        tracing::warn!(%name, %error, "a file of the lake is damaged: its rows are left out");
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        None
    }
}

/// Bits of the actions that make some head's label 1.
pub(super) fn positive(schema: &Schema) -> u64 {
    head_bits(schema).into_iter().fold(0, |all, bits| all | bits)
}

fn overlaps(hour: i64, range: DateRange) -> bool {
    let start = hour.saturating_mul(HOUR_MS);
    start < range.end_ms && start.saturating_add(HOUR_MS) > range.start_ms
}

/// Columns that a dataset is made of.
fn for_training(column: &str) -> bool {
    !matches!(
        column,
        "request"
            | "watermark"
            | "model"
            | "embedding_version"
            | "variant"
            | "degraded"
            | "candidate_score"
            | "candidate_propensity"
            | "candidate_heads"
    )
}

/// Collects the requests of files.
struct Rows {
    range: DateRange,
    all: bool,
    vectors: Option<Arc<ItemVectors>>,
    /// Bits of the actions that make some head's label 1.
    positive: u64,
    /// By user the offset before which rows are gone.
    forgotten: HashMap<String, i64>,
    users: Interner<UserId>,
    items: Interner<ItemId>,
    requests: Vec<Request>,
    stats: JoinStats,
}

/// A file's items: their numbers, and their features under the table.
type Named = Vec<(u32, Option<Arc<Features>>)>;

impl Rows {
    fn new(
        manifest: &Manifest,
        schema: &Schema,
        range: DateRange,
        vectors: Option<Arc<ItemVectors>>,
        all: bool,
    ) -> Self {
        let positive = positive(schema);
        let forgotten = manifest.forgotten.iter().map(|f| (f.user.clone(), f.offset as i64)).collect();
        let (users, items) = (Interner::default(), Interner::default());
        Self {
            range,
            all,
            vectors,
            positive,
            forgotten,
            users,
            items,
            requests: Vec::new(),
            stats: JoinStats::default(),
        }
    }

    fn add(&mut self, rows: &Requests, items: &Items, corrected: &Corrected) -> Result<(), ParquetError> {
        let named = self.named(items)?;
        for row in 0..rows.offset.len() {
            let user = text(&rows.user.values[row])?;
            let gone = self.forgotten.get(user).is_some_and(|offset| rows.offset.values[row] < *offset);
            if gone || !self.range.contains(rows.time.values[row]) || !self.wanted(rows, row)? {
                continue;
            }
            let user = UserId::new(user).map_err(|e| ParquetError::General(e.to_string()))?;
            let user = self.users.number(&user);
            let request = request(rows, row, user, &named, corrected, self.positive)?;
            self.stats.rows += request.candidates.len() as u64;
            self.stats.tokens += request.tokens.len() as u64;
            self.requests.push(request);
        }
        Ok(())
    }

    /// Whether a row is an example, or all are wanted.
    fn wanted(&mut self, rows: &Requests, row: usize) -> Result<bool, ParquetError> {
        let Some([reason]) = rows.excluded.get(row) else { return Ok(true) };
        match text(reason)? {
            "degraded" => self.stats.degraded += 1,
            "unknowable" => self.stats.unknowable += 1,
            _ => {}
        }
        Ok(self.all)
    }

    fn named(&mut self, items: &Items) -> Result<Named, ParquetError> {
        let of = |row: usize| {
            let id = item_id(&items.item.values[row])?;
            let mut features = item_features(items, row);
            if let (Some(vectors), Some(features)) = (self.vectors.as_deref(), &mut features) {
                vectors.put(&id, features);
            }
            Ok((self.items.number(&id), features.map(Arc::new)))
        };
        (0..items.item.len()).map(of).collect()
    }
}

fn request(
    rows: &Requests,
    row: usize,
    user: u32,
    named: &Named,
    corrected: &Corrected,
    positive: u64,
) -> Result<Request, ParquetError> {
    let item = |number: &i32| {
        named
            .get(*number as usize)
            .ok_or_else(|| super::commit::senseless("it names an item that is not there"))
    };
    let offset = rows.offset.values[row];
    // A negative that thinning kept stands for those that it dropped.
    let rate = rows.negative_rate.values[row];
    let shown = rows.candidate_item.row(row).iter().zip(rows.candidate_position.row(row));
    let candidate = |(at, ((number, position), observed)): (i32, ((&i32, &i32), &i64))| {
        let (item, features) = item(number)?.clone();
        // Thinning has moved the places that corrections name, and comes when there are none any more.
        let observed = corrected.get(&(offset, at)).filter(|_| rate >= 1.0).unwrap_or(observed);
        let observed = *observed as u64;
        let stands_for = if observed & positive == 0 { 1.0 / rate } else { 1.0 };
        Ok(Candidate { item, features, observed, position: *position as u16, stands_for })
    };
    let observed = rows.candidate_observed.row(row);
    let candidates = (0..).zip(shown.zip(observed)).map(candidate);
    let tokens = (0..rows.token_time.row(row).len()).map(|at| {
        Ok(Token {
            action: rows.token_action.row(row)[at] as u8,
            actions: rows.token_actions.row(row)[at] as u64,
            surface: rows.token_surface.row(row)[at] as u16,
            time_ms: rows.token_time.row(row)[at],
            item: item(&rows.token_item.row(row)[at])?.1.clone(),
        })
    });
    Ok(Request {
        time_ms: rows.time.values[row],
        offset: offset as u64,
        user,
        surface: rows.surface.values[row] as u16,
        core: rows.core.values[row],
        tokens: tokens.collect::<Result<_, ParquetError>>()?,
        features: user_features(rows, row).map(Arc::new),
        candidates: candidates.collect::<Result<_, ParquetError>>()?,
    })
}

fn user_features(rows: &Requests, row: usize) -> Option<Features> {
    Some(Features {
        categorical: rows.user_categorical.get(row)?.iter().map(|b| *b as u32).collect(),
        numeric: rows.user_numeric.get(row)?.into(),
        embedding: rows.user_embedding.get(row)?.into(),
    })
}
