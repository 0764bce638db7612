//! What the numbers in stored sequences mean, and whether the declared schema still agrees.
//!
//! The log holds names, a sequence entry holds positions in the schema. Where only the sequences are concerned they
//! are rebuilt from the log; another list of action types is refused, as models and impressions name them too.

use lately_features::schema::Polarity;
use lately_features::{Schema, codec};
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::engine::Engine;

const KEY: &str = "vocabulary";
const REBUILDING: &str = "rebuilding";
/// Key of the names of the action types that hid items when they were written.
const NEGATIVE: &str = "negative";

/// The part of a schema that shapes stored sequences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Vocabulary {
    /// Names of action types, and whether they feed the sequence.
    actions: Vec<(String, bool)>,
    surfaces: Vec<String>,
    /// Cap of a sequence, entries.
    stored: u16,
}

impl Vocabulary {
    fn of(schema: &Schema) -> Self {
        Self {
            actions: schema.actions.iter().map(|a| (a.name.clone(), a.sequence)).collect(),
            surfaces: schema.surfaces.clone(),
            stored: schema.sequence.stored,
        }
    }
}

/// Names of the action types that hide an item for good.
fn negative(schema: &Schema) -> Vec<String> {
    let all = schema.actions.iter().filter(|a| a.polarity == Polarity::Negative);
    all.map(|a| a.name.clone()).collect()
}

/// What follows from a changed schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) rebuild: bool,
}

/// Compares the schema with what the data was written by.
pub(crate) fn check(engine: &Engine, schema: &Schema) -> Result<Change, StoreError> {
    let interrupted = engine.meta.contains_key(REBUILDING)?;
    let Some(bytes) = engine.meta.get(KEY)? else { return Ok(Change { rebuild: interrupted }) };
    let stored: Vocabulary = codec::decode(&bytes).map_err(StoreError::record("the stored vocabulary"))?;
    let declared = Vocabulary::of(schema);
    for (position, (name, _)) in stored.actions.iter().enumerate() {
        let found = declared.actions.get(position).map_or("(none)", |(name, _)| name.as_str());
        if found != name {
            let (stored, declared) = (name.clone(), found.to_owned());
            return Err(StoreError::Vocabulary { position, stored, declared });
        }
    }
    let hidden_by = engine.meta.get(NEGATIVE)?;
    let hidden_by = hidden_by.map(|bytes| codec::decode::<Vec<String>>(&bytes)).transpose();
    let hidden_by = hidden_by.map_err(StoreError::record("the stored names of negative actions"))?;
    let rebuild = interrupted
        || hidden_by != Some(negative(schema)) // `None`: written before hidden items were kept
        || !declared.actions.starts_with(&stored.actions)
        || !declared.surfaces.starts_with(&stored.surfaces)
        || declared.stored > stored.stored;
    Ok(Change { rebuild })
}

/// Records that the data now follows this schema.
pub(crate) fn save(engine: &Engine, schema: &Schema) -> Result<(), StoreError> {
    let vocabulary = codec::encode(&Vocabulary::of(schema)).map_err(StoreError::Encode)?;
    let negative = codec::encode(&negative(schema)).map_err(StoreError::Encode)?;
    let mut batch = engine.batch();
    for (key, bytes) in [(KEY, vocabulary), (NEGATIVE, negative)] {
        if engine.meta.get(key)?.is_none_or(|old| *old != *bytes) {
            batch.insert(&engine.meta, key, bytes);
        }
    }
    if batch.is_empty() { Ok(()) } else { engine.commit(batch) }
}

/// Marks that the sequences are incomplete, or complete again, so that a crash between is noticed.
pub(crate) fn mark_rebuilding(engine: &Engine, yes: bool) -> Result<(), StoreError> {
    let mut batch = engine.batch();
    if yes {
        batch.insert(&engine.meta, REBUILDING, [1]);
    } else {
        batch.remove(&engine.meta, REBUILDING);
    }
    engine.commit(batch)
}
