//! Nearest items: by the graph where there are many, by looking at all where there are few.
//!
//! The graph is made in the background, by a thread of its own, from a catalogue of that moment, and does not change. What
//! changed in the catalogue since then ([`Changed`]) is left out of what the graph finds, and looked at item by item. When
//! that has become much, the graph is copied and the copy brought up to date; when a quarter of it was replaced so, it is
//! made anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::catalogue::Catalogue;
use super::config::RetrieveConfig;
use super::graph::{Graph, GraphError};
use super::scan::{self, Best, Queries, offer};

/// The part of `ann_items` that may have changed before the graph is brought up to date: what changed lies apart, so that a
/// look at 20,000 such items took some 10 ms where 20,000 in a row take 1.5.
const CHANGED: f64 = 0.1;
/// The part of a graph that may have been replaced before it is made anew: links to what a place held before find less.
const REPLACED: f64 = 0.25;
/// Time after a failure before it is tried again: it takes minutes, and memory does not come back sooner.
const RETRY: Duration = Duration::from_secs(600);

/// Positions whose vector is not as the graph has it.
#[derive(Debug, Default)]
struct Changed {
    list: Vec<u32>,
    bits: Vec<u64>,
}

impl Changed {
    fn new(positions: &BTreeSet<u32>) -> Self {
        let words = positions.last().map_or(0, |last| *last as usize / 64 + 1);
        let mut bits = vec![0u64; words];
        positions.iter().for_each(|p| bits[*p as usize / 64] |= 1 << (p % 64));
        Self { list: positions.iter().copied().collect(), bits }
    }

    fn has(&self, position: u32) -> bool {
        self.bits.get(position as usize / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }
}

/// A graph, and what has changed since.
#[derive(Debug, Clone)]
pub(crate) struct Indexed {
    graph: Arc<Graph>,
    changed: Arc<Changed>,
}

impl Indexed {
    /// Items in the graph.
    pub(crate) fn items(&self) -> usize {
        self.graph.items()
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.graph.bytes() + self.changed.bits.len() * 8 + self.changed.list.len() * 4
    }

    fn nearest(
        &self,
        catalogue: &Catalogue,
        queries: &Queries,
        count: usize,
    ) -> Result<Vec<Vec<u32>>, GraphError> {
        let mut best: Vec<Best> = queries.iter().map(|_| Best::new(count)).collect();
        for (best, query) in best.iter_mut().zip(queries.iter()) {
            // The graph's numbers are rounded: the order is by those of the catalogue.
            for position in self.graph.search(query, count, |position| !self.changed.has(position))? {
                if let Some(unit) = catalogue.unit(position) {
                    best.push(scan::dot(query, unit), position);
                }
            }
        }
        for position in &self.changed.list {
            if let Some(unit) = catalogue.unit(*position) {
                offer(&mut best, queries, *position, unit);
            }
        }
        Ok(best.into_iter().map(Best::into_positions).collect())
    }
}

/// For each query about the `count` items with the largest cosine, best first, ties by position: exactly those where there
/// is no graph.
pub(super) fn nearest(
    catalogue: &Catalogue,
    indexed: Option<&Indexed>,
    queries: &Queries,
    count: usize,
) -> Vec<Vec<u32>> {
    if let Some(indexed) = indexed.filter(|_| count > 0) {
        match indexed.nearest(catalogue, queries, count) {
            Ok(found) => return found,
            Err(error) => failed(&error),
        }
    }
    scan::nearest(catalogue, queries, count)
}

fn failed(error: &GraphError) {
    metrics::counter!("lately_retrieve_index_errors_total").increment(1);
    tracing::error!(%error, "nearest items");
}

/// Keeps the graph up with the catalogue. Held by the follower.
#[derive(Debug)]
pub(crate) struct Indexer {
    items: usize,
    view: usize,
    graph: Option<Arc<Graph>>,
    /// Positions that changed since `graph` was made.
    changed: BTreeSet<u32>,
    /// `changed` as readers have it; `None`: it changed since.
    shown: Option<Arc<Changed>>,
    /// How many positions of `graph` were replaced since one was made anew.
    replaced: usize,
    making: Option<Making>,
    failed: Option<Instant>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Making {
    thread: JoinHandle<Result<Graph, GraphError>>,
    /// Positions that changed meanwhile.
    since: BTreeSet<u32>,
    /// What it replaces in the graph before; `None`: it is made anew.
    replaces: Option<usize>,
    start: Instant,
}

impl Indexer {
    pub(crate) fn new(config: &RetrieveConfig) -> Self {
        Self {
            items: config.ann_items,
            view: config.ann_search,
            graph: None,
            changed: BTreeSet::new(),
            shown: None,
            replaced: 0,
            making: None,
            failed: None,
            stop: Arc::default(),
        }
    }

    /// Whether a graph is done and waits to be taken.
    pub(crate) fn is_done(&self) -> bool {
        self.making.as_ref().is_some_and(|m| m.thread.is_finished())
    }

    /// Whether one is being made.
    #[cfg(test)]
    pub(crate) fn is_making(&self) -> bool {
        self.making.is_some()
    }

    /// Takes over what has `moved` in the catalogue and a graph that is done, starts one where one is due, and returns what
    /// goes with `catalogue`.
    pub(crate) fn keep_up(&mut self, catalogue: &Arc<Catalogue>, moved: &[u32]) -> Option<Indexed> {
        if !moved.is_empty() {
            if self.graph.is_some() {
                self.shown = None;
                self.changed.extend(moved);
            }
            if let Some(making) = &mut self.making {
                making.since.extend(moved);
            }
        }
        if self.is_done() {
            self.take();
        }
        if self.making.is_none() && self.failed.is_none_or(|at| at.elapsed() >= RETRY) {
            self.start_where_due(catalogue);
        }
        let graph = self.graph.clone()?;
        let changed = self.shown.get_or_insert_with(|| Arc::new(Changed::new(&self.changed)));
        metrics::gauge!("lately_retrieve_items", "kind" => "indexed").set(graph.items() as f64);
        metrics::gauge!("lately_retrieve_items", "kind" => "changed").set(changed.list.len() as f64);
        Some(Indexed { graph, changed: Arc::clone(changed) })
    }

    fn start_where_due(&mut self, catalogue: &Arc<Catalogue>) {
        let embedded = catalogue.embedded();
        // Half as many are sooner looked at one by one; between the two it stays as it is.
        if self.graph.is_some() && embedded < self.items / 2 {
            (self.graph, self.shown, self.replaced) = (None, None, 0);
            self.changed.clear();
        }
        let due = match &self.graph {
            None => embedded >= self.items,
            Some(_) => self.changed.len() as f64 > self.items as f64 * CHANGED,
        };
        if due && let Err(error) = self.start(catalogue) {
            self.failed = Some(Instant::now());
            failed(&GraphError::Library(error.to_string()));
        }
    }

    fn start(&mut self, catalogue: &Arc<Catalogue>) -> std::io::Result<()> {
        let (its, stop, view) = (Arc::clone(catalogue), Arc::clone(&self.stop), self.view);
        let name = std::thread::Builder::new().name("index-items".into());
        let former = self.graph.clone().map(|graph| {
            let replaces = self.changed.iter().filter(|position| graph.has(**position)).count();
            (graph, replaces)
        });
        let worn = |graph: &Graph, more| (self.replaced + more) as f64 > graph.items() as f64 * REPLACED;
        let (thread, replaces) = match former.filter(|(graph, replaces)| !worn(graph, *replaces)) {
            None => (name.spawn(move || Graph::of(&its, view, &stop))?, None),
            Some((graph, replaces)) => {
                let changed: Vec<u32> = self.changed.iter().copied().collect();
                (name.spawn(move || graph.grown(&its, &changed, view, &stop))?, Some(replaces))
            }
        };
        self.making = Some(Making { thread, since: BTreeSet::new(), replaces, start: Instant::now() });
        Ok(())
    }

    fn take(&mut self) {
        let Some(making) = self.making.take() else { return };
        let made = making.thread.join();
        let kind = if making.replaces.is_some() { "grown" } else { "full" };
        match made.unwrap_or_else(|_| Err(GraphError::Library("its thread panicked".into()))) {
            Ok(graph) => {
                let took = making.start.elapsed();
                metrics::histogram!("lately_retrieve_index_seconds", "kind" => kind).record(took);
                tracing::info!(items = graph.items(), kind, ?took, "the graph of nearest items is made");
                self.replaced = making.replaces.map_or(0, |more| self.replaced + more);
                (self.graph, self.changed, self.shown) = (Some(Arc::new(graph)), making.since, None);
                self.failed = None;
            }
            Err(GraphError::Stopped) => {}
            Err(error) => {
                self.failed = Some(Instant::now());
                failed(&error);
            }
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(making) = self.making.take()
            && making.thread.join().is_err()
        {
            tracing::error!("the thread that makes the graph of nearest items panicked");
        }
    }
}
