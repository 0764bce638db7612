//! The stream's state as bytes, in parts of limited size.

use std::collections::HashMap;
use std::sync::Arc;

use lately_features::codec::{self, CodecError};
use lately_features::{Features, ItemId, Schema, SequenceEntry, UserId, UserSequence};
use serde::{Deserialize, Serialize};

use super::config::LakeConfig;
use super::delays::Delays;
use super::row::Row;
use super::stream::{Rate, Stream};
use crate::join::JoinError;
use crate::known::Version;
use crate::labels::Past;

/// Bytes, about, after which a part ends.
const PART_BYTES: usize = 16 << 20;

/// An entry of a sequence, its item by number.
#[derive(Serialize, Deserialize)]
struct Entry {
    time_ms: i64,
    offset: u64,
    event: u64,
    request: u64,
    action: u8,
    surface: u16,
    item: u32,
}

/// One user.
#[derive(Serialize, Deserialize)]
struct Person {
    id: UserId,
    sequence: Vec<Entry>,
    features: Vec<(u64, Arc<Features>)>,
    past: Past,
    rate: Rate,
}

/// A piece of the state. Later ones refer to earlier ones by their number.
#[derive(Serialize, Deserialize)]
enum Piece {
    Head {
        last: Option<u64>,
        log_time_ms: i64,
        delays: Vec<Delays>,
        late: Vec<u64>,
    },
    Item(ItemId),
    /// Features of an item; `current`: they are among the versions that requests may still ask for.
    Version {
        of: u32,
        offset: Option<u64>,
        features: Option<Arc<Features>>,
        current: bool,
    },
    Person(Box<Person>),
    Open(Box<Row<u32>>),
}

impl Piece {
    /// Bytes, about.
    fn weight(&self) -> usize {
        let features = |f: &Features| 4 * (f.categorical.len() + f.numeric.len() + f.embedding.len());
        match self {
            Self::Head { .. } | Self::Item(_) => 64,
            Self::Version { features: f, .. } => 16 + f.as_deref().map_or(0, features),
            Self::Person(p) => {
                let shown = p.past.shown.iter().map(|s| 32 + 4 * s.items.len()).sum::<usize>();
                let own = p.features.iter().map(|(_, f)| features(f)).sum::<usize>();
                64 + 40 * (p.sequence.len() + p.past.acted.len()) + shown + own
            }
            Self::Open(row) => 256 + 24 * row.tokens.len() + 12 * row.candidates.len() + 4 * row.heads.len(),
        }
    }
}

/// Collects pieces and hands over parts.
struct Parts<'a, E> {
    pieces: Vec<Piece>,
    weight: usize,
    on_part: &'a mut dyn FnMut(Vec<u8>) -> Result<(), E>,
}

impl<E: From<CodecError>> Parts<'_, E> {
    fn push(&mut self, piece: Piece) -> Result<(), E> {
        self.weight += piece.weight();
        self.pieces.push(piece);
        if self.weight >= PART_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), E> {
        let bytes = codec::encode(&self.pieces)?;
        (self.pieces, self.weight) = (Vec::new(), 0);
        (self.on_part)(bytes)
    }
}

/// Hands over the state part by part.
pub(crate) fn write<E: From<CodecError>>(
    stream: &Stream,
    on_part: &mut dyn FnMut(Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let mut parts = Parts { pieces: Vec::new(), weight: 0, on_part };
    let Stream { last, log_time_ms, .. } = *stream;
    let (delays, late) = (stream.delays.clone(), stream.late.clone());
    parts.push(Piece::Head { last, log_time_ms, delays, late })?;
    for item in &stream.known.items.list {
        parts.push(Piece::Item(item.clone()))?;
    }
    let mut numbers = HashMap::new();
    let current = stream.known.item_features.iter().flat_map(|v| &v.list).map(|v| (v, true));
    let of_row = |row: &Row<Arc<Version>>| {
        let tokens = row.tokens.iter().map(|t| t.item.clone());
        tokens.chain(row.candidates.iter().map(|c| c.item.clone())).collect::<Vec<_>>()
    };
    let waiting: Vec<_> = stream.open.values().flat_map(of_row).collect();
    for (version, current) in current.chain(waiting.iter().map(|v| (v, false))) {
        let (of, offset) = (version.of, version.offset);
        let next = numbers.len() as u32;
        if *numbers.entry((of, offset)).or_insert(next) == next {
            parts.push(Piece::Version { of, offset, features: version.features.clone(), current })?;
        }
    }
    let mut users = HashMap::new();
    for (user, id) in stream.known.users.list.iter().enumerate() {
        if let Some(person) = person(stream, user, id) {
            users.insert(user as u32, users.len() as u32);
            parts.push(Piece::Person(Box::new(person)))?;
        }
    }
    for row in stream.open.values() {
        let user = users.get(&row.user).copied().unwrap_or(u32::MAX); // one who has an open row has a past
        let row = Row { user, ..row.clone() }.map(|v| numbers[&(v.of, v.offset)]);
        parts.push(Piece::Open(Box::new(row)))?;
    }
    parts.flush()
}

/// A user of whom there is anything; who was forgotten leaves not even an id.
fn person(stream: &Stream, user: usize, id: &UserId) -> Option<Person> {
    let known = &stream.known.people[user];
    let item = |id: &ItemId| stream.known.items.find(id).unwrap_or(u32::MAX); // all were given a number
    let entry = |e: &SequenceEntry| Entry {
        time_ms: e.time_ms,
        offset: e.offset,
        event: e.event,
        request: e.request,
        action: e.action,
        surface: e.surface,
        item: item(&e.item),
    };
    let feature = |v: &Arc<Version>| Some((v.offset?, v.features.clone()?));
    let person = Person {
        id: id.clone(),
        sequence: known.sequence.entries().iter().map(entry).collect(),
        features: known.features.list.iter().filter_map(feature).collect(),
        past: stream.labels.pasts.get(user).cloned().unwrap_or_default(),
        rate: stream.rates.get(user).copied().unwrap_or_default(),
    };
    let nothing = person.sequence.is_empty()
        && person.features.is_empty()
        && person.past.shown.is_empty()
        && person.past.acted.is_empty();
    (!nothing).then_some(person)
}

/// Makes the state from its parts, in order.
pub(crate) struct Restore {
    stream: Stream,
    versions: Vec<Arc<Version>>,
}

/// Why a part is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("it names what is not there")]
    Reference,
}

impl Restore {
    pub(crate) fn new(schema: &Arc<Schema>, config: &LakeConfig) -> Result<Self, JoinError> {
        Ok(Self { stream: Stream::new(schema, config)?, versions: Vec::new() })
    }

    pub(crate) fn part(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        for piece in codec::decode::<Vec<Piece>>(bytes)? {
            self.piece(piece).ok_or(RestoreError::Reference)?;
        }
        Ok(())
    }

    /// `None` where it names what is not there.
    fn piece(&mut self, piece: Piece) -> Option<()> {
        let known = &mut self.stream.known;
        match piece {
            Piece::Head { last, log_time_ms, delays, late } => {
                let fits = delays.len() == self.stream.delays.len() && late.len() == delays.len();
                fits.then_some(())?;
                (self.stream.last, self.stream.log_time_ms) = (last, log_time_ms);
                (self.stream.delays, self.stream.late) = (delays, late);
            }
            Piece::Item(id) => {
                known.item(&id);
            }
            Piece::Version { of, offset, features, current } => {
                let versions = known.item_features.get_mut(of as usize)?;
                match (offset, features) {
                    (Some(offset), Some(features)) if current => {
                        versions.push(offset, features);
                        self.versions.push(versions.list.last()?.clone());
                    }
                    (offset, features) => self.versions.push(Arc::new(Version { of, offset, features })),
                }
            }
            Piece::Person(person) => self.person(*person)?,
            Piece::Open(row) => {
                ((row.user as usize) < known.people.len()).then_some(())?;
                let named = row.tokens.iter().map(|t| t.item).chain(row.candidates.iter().map(|c| c.item));
                (named.max().is_none_or(|max| (max as usize) < self.versions.len())).then_some(())?;
                let row = row.map(|v| self.versions[v as usize].clone());
                self.stream.open.insert((row.time_ms, row.offset), row);
            }
        }
        Some(())
    }

    fn person(&mut self, person: Person) -> Option<()> {
        let known = &mut self.stream.known;
        let user = known.user(&person.id) as usize;
        let entry = |e: Entry| {
            let item = known.items.list.get(e.item as usize)?.clone();
            let Entry { time_ms, offset, event, request, action, surface, .. } = e;
            Some(SequenceEntry { time_ms, offset, event, request, action, surface, item })
        };
        let entries = person.sequence.into_iter().map(entry).collect::<Option<Vec<_>>>()?;
        known.people[user].sequence = UserSequence::from_ordered(entries);
        for (offset, features) in person.features {
            known.people[user].features.push(offset, features);
        }
        let items = known.items.list.len() as u32;
        let shown = person.past.shown.iter().all(|s| s.items.iter().all(|i| *i < items));
        let kinds = self.stream.delays.len();
        let acted = person.past.acted.iter().all(|a| usize::from(a.action) < kinds);
        (shown && acted).then_some(())?;
        *self.stream.labels.past(user as u32) = person.past;
        self.stream.labels.past(user as u32).restore();
        self.stream.rates.resize(known.users.list.len(), Rate::default());
        self.stream.rates[user] = person.rate;
        Some(())
    }

    pub(crate) fn finish(self) -> Stream {
        self.stream
    }
}
