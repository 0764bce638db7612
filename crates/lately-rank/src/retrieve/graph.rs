//! A graph in which the nearest of many items are found without a look at all of them: HNSW (Malkov, Yashunin, TPAMI
//! 2018), by `usearch`.
//!
//! A [`Graph`] never changes once it is made, so that readers need no lock and the same search finds the same items. It is
//! made by one thread, in the order of positions: the same items make the same graph.

use std::sync::atomic::{AtomicBool, Ordering};

use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use super::catalogue::Catalogue;

/// Links an item has on the lowest level, by halves: the usual 16. With 64 numbers an item and 200 items in view it finds
/// .98 of the 100 nearest of 100,000.
const LINKS: usize = 16;
/// Items in view while an item is put in.
const VIEW_WHEN_MADE: usize = 100;
/// Searches at a time; each needs a scratch that `usearch` makes when it is first used. A server ranks for at most
/// `serve.limits.rankings_max` (256) people at a time.
const SEARCHES: usize = 1_024;

/// Why a graph cannot be made or searched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GraphError {
    /// What the library says: out of memory, most likely.
    #[error("the graph of nearest items: {0}; all items are looked at instead")]
    Library(String),
    /// The server stops.
    #[error("the server stops")]
    Stopped,
}

impl GraphError {
    // cxx's exception is no type of this crate's dependencies, and all that it holds is its text.
    fn library(error: impl std::fmt::Display) -> Self {
        Self::Library(error.to_string())
    }
}

/// Items by position, with their vectors of the moment when it was made.
pub(crate) struct Graph {
    index: Index,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("items", &self.index.size()).finish()
    }
}

impl Graph {
    fn empty(dim: usize, view: usize, items: usize) -> Result<Self, GraphError> {
        let index = Index::new(&IndexOptions {
            dimensions: dim,
            // Of unit vectors: 1 - cosine.
            metric: MetricKind::IP,
            quantization: ScalarKind::F32,
            connectivity: LINKS,
            expansion_add: VIEW_WHEN_MADE,
            expansion_search: view,
            multi: false,
        });
        let index = index.map_err(GraphError::library)?;
        index.reserve_capacity_and_threads(items, SEARCHES).map_err(GraphError::library)?;
        Ok(Self { index })
    }

    /// All embedded items of a catalogue; `view`: items that a search keeps in view. Takes minutes for a million.
    pub(crate) fn of(catalogue: &Catalogue, view: usize, stop: &AtomicBool) -> Result<Self, GraphError> {
        let graph = Self::empty(catalogue.dim(), view, catalogue.embedded())?;
        for (position, unit) in catalogue.units() {
            graph.add(position, unit, stop)?;
        }
        Ok(graph)
    }

    /// A copy in which the items at `changed` are as in `catalogue`: with their vectors of now, or not at all.
    pub(crate) fn grown(
        &self,
        catalogue: &Catalogue,
        changed: &[u32],
        view: usize,
        stop: &AtomicBool,
    ) -> Result<Self, GraphError> {
        let mut bytes = vec![0; self.index.serialized_length()];
        self.index.save_to_buffer(&mut bytes).map_err(GraphError::library)?;
        let items = self.index.size() + changed.len();
        let graph = Self::empty(catalogue.dim(), view, items)?;
        graph.index.load_from_buffer(&bytes).map_err(GraphError::library)?;
        drop(bytes);
        // A loaded index has the settings of the saved one, but room for itself alone.
        graph.index.reserve_capacity_and_threads(items, SEARCHES).map_err(GraphError::library)?;
        graph.index.change_expansion_search(view);
        graph.index.change_expansion_add(VIEW_WHEN_MADE);
        for position in changed {
            if graph.index.contains(u64::from(*position)) {
                graph.index.remove(u64::from(*position)).map_err(GraphError::library)?;
            }
            if let Some(unit) = catalogue.unit(*position) {
                graph.add(*position, unit, stop)?;
            }
        }
        Ok(graph)
    }

    fn add(&self, position: u32, unit: &[f32], stop: &AtomicBool) -> Result<(), GraphError> {
        if stop.load(Ordering::Relaxed) {
            return Err(GraphError::Stopped);
        }
        self.index.add(u64::from(position), unit).map_err(GraphError::library)
    }

    /// Items in it.
    pub(crate) fn items(&self) -> usize {
        self.index.size()
    }

    /// Whether it has an item at a position.
    pub(crate) fn has(&self, position: u32) -> bool {
        self.index.contains(u64::from(position))
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.index.memory_usage()
    }

    /// Positions of about the `count` items nearest to a unit vector of which `fit` is true, in any order.
    pub(crate) fn search(
        &self,
        query: &[f32],
        count: usize,
        fit: impl Fn(u32) -> bool,
    ) -> Result<Vec<u32>, GraphError> {
        // Keys are positions, which are 32 bits wide.
        let found = self.index.filtered_search(query, count, |key| fit(key as u32));
        Ok(found.map_err(GraphError::library)?.keys.into_iter().map(|key| key as u32).collect())
    }
}
