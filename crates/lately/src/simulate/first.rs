//! The models of a first day, kept: towns of one seed and as many people have one past, so what a learner makes of it is the
//! same in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use lately_model::{Manifest, Model};

/// A town's seed, its number of people, and the learner as JSON.
pub(super) type Key = (u64, usize, String);

type Kept = Arc<Mutex<Option<(Model, Manifest)>>>;

/// Models by what they learnt from.
#[derive(Debug, Default)]
pub(super) struct FirstModels {
    kept: Mutex<HashMap<Key, Kept>>,
}

impl FirstModels {
    /// The model of a key; `learn` makes it where it is asked for first, and others wait for that.
    pub(super) fn get(
        &self,
        key: Key,
        learn: impl FnOnce() -> Result<(Model, Manifest)>,
    ) -> Result<(Model, Manifest)> {
        let place = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(kept.entry(key).or_default())
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*place {
            return Ok(known.clone());
        }
        let made = learn()?;
        *place = Some(made.clone());
        Ok(made)
    }
}
