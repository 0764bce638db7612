//! What the join knows at a place in the log: features by version, ids by number.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use lately_features::Features;

/// Kept versions of one user's or item's features; older ones matter only to a request that was ranked this many
/// changes ago.
const VERSIONS: usize = 8;

/// The latest features of one user or item, oldest first, each with the offset of its record.
#[derive(Default)]
pub(crate) struct Versions(Vec<(u64, Arc<Features>)>);

impl Versions {
    pub(crate) fn push(&mut self, offset: u64, features: Arc<Features>) {
        if self.0.len() == VERSIONS {
            self.0.remove(0);
        }
        self.0.push((offset, features));
    }

    /// What was known at a watermark.
    pub(crate) fn before(&self, watermark: u64) -> Option<Arc<Features>> {
        self.0.iter().rev().find(|(offset, _)| *offset < watermark).map(|(_, f)| f.clone())
    }
}

/// Numbers for ids, in order of first appearance.
pub(crate) struct Interner<Id> {
    numbers: HashMap<Id, u32>,
    pub(crate) list: Vec<Id>,
}

impl<Id> Default for Interner<Id> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), list: Vec::new() }
    }
}

impl<Id: Clone + Eq + Hash> Interner<Id> {
    pub(crate) fn find(&self, id: &Id) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    pub(crate) fn number(&mut self, id: &Id) -> u32 {
        if let Some(number) = self.find(id) {
            return number;
        }
        let number = self.list.len() as u32;
        self.numbers.insert(id.clone(), number);
        self.list.push(id.clone());
        number
    }
}
