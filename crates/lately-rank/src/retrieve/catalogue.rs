//! The active items, laid out for retrieval.
//!
//! An item keeps its position for as long as it is active; a position that is free is given to the next new item. The
//! follower changes its [`Ledger`] item by item, and readers get a [`Catalogue`], which never changes. The two share
//! chunks of [`ROWS`] positions; a chunk that changes is copied first. So a change costs one chunk and the list of chunks
//! (4,000 of them at a million items), not the catalogue.

use std::collections::HashMap;
use std::sync::Arc;

use lately_features::{Assembler, Features, ItemId};

use super::topics::Topics;

/// Positions a chunk. At 64 numbers an item a copied chunk is 64 KiB, about as much as the list of a million items' chunks.
const ROWS: usize = 256;

/// Positions of one topic, in order.
type OfTopic = Arc<Vec<u32>>;

#[derive(Debug, Clone)]
struct Slot {
    id: ItemId,
    features: Arc<Features>,
    /// Whether it has an embedding.
    embedded: bool,
}

/// [`ROWS`] positions.
#[derive(Debug, Clone)]
struct Chunk {
    slots: Vec<Option<Slot>>,
    /// ROWS x d, each of length 1, or all zero where there is no item or it has no embedding.
    unit: Vec<f32>,
}

/// Active items by position. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    chunks: Vec<Arc<Chunk>>,
    by_topic: HashMap<u32, OfTopic>,
    /// Positions given so far, free ones included.
    slots: usize,
    active: usize,
    embedded: usize,
    dim: usize,
}

impl Catalogue {
    /// Positions, free ones included.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Items.
    pub(crate) fn active(&self) -> usize {
        self.active
    }

    /// Items with an embedding.
    pub(crate) fn embedded(&self) -> usize {
        self.embedded
    }

    /// Numbers of an embedding.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    fn slot(&self, position: u32) -> Option<&Slot> {
        let chunk = self.chunks.get(position as usize / ROWS)?;
        chunk.slots[position as usize % ROWS].as_ref()
    }

    /// The item at a position; `None` where it is free.
    pub(crate) fn id(&self, position: u32) -> Option<&ItemId> {
        self.slot(position).map(|slot| &slot.id)
    }

    /// Positions of the active items of a topic, in order.
    pub(crate) fn of_topic(&self, topic: u32) -> &[u32] {
        self.by_topic.get(&topic).map_or(&[], |list| list.as_slice())
    }

    /// The unit vector (d) at a position; `None` where there is no item or it has no embedding.
    pub(crate) fn unit(&self, position: u32) -> Option<&[f32]> {
        self.slot(position).filter(|slot| slot.embedded)?;
        let (chunk, row) = (&self.chunks[position as usize / ROWS], position as usize % ROWS);
        Some(&chunk.unit[row * self.dim..(row + 1) * self.dim])
    }

    /// All embedded items: positions and unit vectors (d).
    pub(crate) fn units(&self) -> impl Iterator<Item = (u32, &[f32])> {
        self.chunks.iter().enumerate().flat_map(move |(at, chunk)| {
            let rows = chunk.slots.iter().zip(chunk.unit.chunks_exact(self.dim.max(1))).enumerate();
            let embedded = rows.filter(|(_, (slot, _))| slot.as_ref().is_some_and(|s| s.embedded));
            embedded.map(move |(row, (_, unit))| ((at * ROWS + row) as u32, unit))
        })
    }

    /// Bytes of vectors, slots and topic lists; ids and features, which the store holds too, are not counted.
    pub(crate) fn bytes(&self) -> usize {
        let chunk = ROWS * (size_of::<Option<Slot>>() + self.dim * size_of::<f32>());
        let topics: usize = self.by_topic.values().map(|list| list.capacity() * size_of::<u32>()).sum();
        self.chunks.len() * chunk + topics
    }
}

/// The catalogue in the making: changed by one thread.
#[derive(Debug)]
pub(crate) struct Ledger {
    catalogue: Catalogue,
    by_id: HashMap<ItemId, u32>,
    free: Vec<u32>,
    /// Positions whose vector is another one than at the last [`Ledger::take_moved`].
    moved: Vec<u32>,
    assembler: Assembler,
    topics: Topics,
}

impl Ledger {
    /// No items yet; their embeddings have `dim` numbers.
    pub(crate) fn new(assembler: Assembler, topics: Topics, dim: usize) -> Self {
        let catalogue = Catalogue { dim, ..Catalogue::default() };
        Self { catalogue, by_id: HashMap::new(), free: Vec::new(), moved: Vec::new(), assembler, topics }
    }

    /// What it is now, for readers.
    pub(crate) fn catalogue(&self) -> Catalogue {
        self.catalogue.clone()
    }

    /// Where an active item is.
    pub(crate) fn position(&self, item: &ItemId) -> Option<u32> {
        self.by_id.get(item).copied()
    }

    /// Positions whose vector came, went or changed since the last call.
    pub(crate) fn take_moved(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.moved)
    }

    /// Sets what an item is now: its features, or `None` where it is not active.
    pub(crate) fn set(&mut self, item: &ItemId, features: Option<Arc<Features>>) {
        let known = self.position(item);
        let former = known.and_then(|p| self.catalogue.slot(p)).map(|slot| Arc::clone(&slot.features));
        match (known, features) {
            (None, None) => {}
            (Some(position), None) => self.remove(position),
            (Some(_), Some(features)) if former.as_ref().is_some_and(|f| Arc::ptr_eq(f, &features)) => {}
            (Some(position), Some(features)) => self.put(position, item, features),
            (None, Some(features)) => {
                let position = self.free.pop().unwrap_or_else(|| self.grow());
                self.by_id.insert(item.clone(), position);
                self.catalogue.active += 1;
                self.put(position, item, features);
            }
        }
    }

    fn grow(&mut self) -> u32 {
        let position = self.catalogue.slots;
        if position.is_multiple_of(ROWS) {
            let unit = vec![0.0; ROWS * self.catalogue.dim];
            self.catalogue.chunks.push(Arc::new(Chunk { slots: vec![None; ROWS], unit }));
        }
        self.catalogue.slots += 1;
        // An item takes hundreds of bytes: memory ends long before 2^32 of them.
        position as u32
    }

    fn put(&mut self, position: u32, item: &ItemId, features: Arc<Features>) {
        let dim = self.catalogue.dim;
        let unit: Vec<f32> = unit(self.assembler.item_embedding(&features)).collect();
        let embedded = unit.iter().any(|x| *x != 0.0);
        let topics: Vec<u32> = self.topics.of_item(&features).collect();
        let former = self.write(position, Some(Slot { id: item.clone(), features, embedded }), &unit, dim);
        let former_topics: Vec<u32> =
            former.iter().flat_map(|slot| self.topics.of_item(&slot.features)).collect();
        if former_topics != topics {
            former_topics.iter().for_each(|topic| self.leave(*topic, position));
            topics.iter().for_each(|topic| self.enter(*topic, position));
        }
    }

    fn remove(&mut self, position: u32) {
        let dim = self.catalogue.dim;
        let Some(former) = self.write(position, None, &vec![0.0; dim], dim) else { return };
        self.by_id.remove(&former.id);
        self.topics.of_item(&former.features).for_each(|topic| self.leave(topic, position));
        self.catalogue.active -= 1;
        self.free.push(position);
    }

    /// Puts what is at a position; returns what was.
    fn write(&mut self, position: u32, slot: Option<Slot>, unit: &[f32], dim: usize) -> Option<Slot> {
        let (at, row) = (position as usize / ROWS, position as usize % ROWS);
        let chunk = Arc::make_mut(&mut self.catalogue.chunks[at]);
        let place = &mut chunk.unit[row * dim..(row + 1) * dim];
        if place != unit {
            self.moved.push(position);
            place.copy_from_slice(unit);
        }
        let embedded = |slot: &Option<Slot>| usize::from(slot.as_ref().is_some_and(|s| s.embedded));
        self.catalogue.embedded += embedded(&slot);
        let former = std::mem::replace(&mut chunk.slots[row], slot);
        self.catalogue.embedded -= embedded(&former);
        former
    }

    fn enter(&mut self, topic: u32, position: u32) {
        let list = Arc::make_mut(self.catalogue.by_topic.entry(topic).or_default());
        if let Err(at) = list.binary_search(&position) {
            list.insert(at, position);
        }
    }

    fn leave(&mut self, topic: u32, position: u32) {
        let Some(list) = self.catalogue.by_topic.get_mut(&topic) else { return };
        if let Ok(at) = list.binary_search(&position) {
            Arc::make_mut(list).remove(at);
        }
        if list.is_empty() {
            self.catalogue.by_topic.remove(&topic);
        }
    }
}

/// A vector of length 1, or zeros.
pub(crate) fn unit(vector: &[f32]) -> impl Iterator<Item = f32> + use<'_> {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    vector.iter().map(move |x| x * scale)
}
