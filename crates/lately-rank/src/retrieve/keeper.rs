//! What retrieval draws on, kept up with the log record by record.

use std::collections::HashSet;
use std::sync::Arc;

use lately_features::{Assembler, Event, ItemId, Schema};
use lately_store::Store;

use super::catalogue::Ledger;
use super::config::RetrieveConfig;
use super::fresh::FreshItems;
use super::near::Indexer;
use super::popularity::Popularity;
use super::topics::Topics;
use super::trending::trending;
use super::{Catalogue, Snapshot};

/// Items of a ranked list in a snapshot, as many times what a feed takes: the rest is there for what is excluded.
const SPARE: usize = 4;

/// Held by the follower alone; makes snapshots for the others.
#[derive(Debug)]
pub(crate) struct Keeper {
    ledger: Ledger,
    /// Whether the store's items were taken over; from then on changes are.
    filled: bool,
    /// Items that the log names since the last snapshot.
    changed: HashSet<ItemId>,
    recent: Popularity,
    fresh: FreshItems,
    indexer: Indexer,
    /// The newest time in the log, ms: in a log that is read again it stands for now.
    log_ms: i64,
    prior: f64,
    listed: usize,
    catalogue: Arc<Catalogue>,
}

impl Keeper {
    /// Nothing yet; the first snapshot takes over the store's items.
    pub(crate) fn new(schema: &Schema, topics: Topics, config: &RetrieveConfig) -> Self {
        let ledger = Ledger::new(Assembler::new(schema), topics, schema.item_embedding_dim());
        Self {
            catalogue: Arc::new(ledger.catalogue()),
            ledger,
            filled: false,
            changed: HashSet::new(),
            recent: Popularity::new(schema, config.trending_half_life_hours, config.popularity_items),
            fresh: FreshItems::new(config.fresh_hours),
            indexer: Indexer::new(config),
            log_ms: i64::MIN,
            prior: config.trending_actions,
            listed: config.total() * SPARE,
        }
    }

    /// Takes note of a record, in the order of the log.
    pub(crate) fn observe(&mut self, event: &Event) {
        self.recent.observe(event);
        self.log_ms = self.log_ms.max(event.time_ms());
        match event {
            Event::Item(item) => {
                if item.active && self.ledger.position(&item.item).is_none() {
                    self.fresh.arrived(item);
                }
                self.changed.insert(item.item.clone());
            }
            Event::Impression(impression) => self.fresh.shown(impression),
            Event::Action(_) | Event::User(_) | Event::Forget(_) => {}
        }
    }

    /// Whether the next snapshot has a newer graph.
    pub(crate) fn has_news(&self) -> bool {
        self.indexer.is_done()
    }

    /// Whether a graph is being made in the background.
    #[cfg(test)]
    pub(crate) fn is_indexing(&self) -> bool {
        self.indexer.is_making()
    }

    /// What the sources draw on now. `popularity`: with the long half-life.
    pub(crate) fn snapshot(&mut self, store: &Store, popularity: &Popularity) -> Snapshot {
        if !self.changed.is_empty() || !self.filled {
            self.take_over(store);
            self.catalogue = Arc::new(self.ledger.catalogue());
        }
        let catalogue = Arc::clone(&self.catalogue);
        let indexed = self.indexer.keep_up(&catalogue, &self.ledger.take_moved());
        let (ledger, now) = (&self.ledger, self.log_ms);
        let trending = trending(ledger, &self.recent, popularity, self.prior, now, self.listed);
        let fresh = self.fresh.at(now, ledger);
        let gauge = |kind, n: usize| metrics::gauge!("lately_retrieve_items", "kind" => kind).set(n as f64);
        gauge("active", catalogue.active());
        gauge("embedded", catalogue.embedded());
        gauge("fresh", fresh.len());
        gauge("trending", trending.len());
        Snapshot { popular: popularity.popular(ledger, self.listed), catalogue, indexed, trending, fresh }
    }

    /// All items of the store at first, then those that the log names. The store shows an item before the log does, so what it
    /// shows is what is named or newer; a newer one is named again.
    fn take_over(&mut self, store: &Store) {
        if !self.filled {
            store
                .active_items()
                .iter()
                .for_each(|(id, features)| self.ledger.set(id, Some(Arc::clone(features))));
            self.filled = true;
        }
        for id in std::mem::take(&mut self.changed) {
            let features = store.active_item(&id);
            self.ledger.set(&id, features);
        }
    }
}
