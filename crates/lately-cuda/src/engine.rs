//! A model on a device: from a batch to its logits.
//!
//! Per call: the requests' features and tokens, and those of items that are not on the card yet, are made on the host by the
//! model's own code, packed into one copy, and one lane's launches do the rest. In order: the requests' part of the encoder,
//! the encoder a candidate, affinity and features into the top's inputs, the requests' part of the first product, then
//! projection, cross layers, MLP and heads, each a product with what follows it fused. The rate tower does not depend on the
//! candidate and is a few numbers a request: the host computes it and adds it to the logits that come back.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lately_features::FeatureBatch;
use lately_model::Model;
use lately_model::device::{ItemStaging, ServingParts, Staged, Staging, admitted};

use crate::CudaError;
use crate::driver::{Argument, Driver, Kernel, Launch, Shape};
use crate::fragment::{TILE, TILE_WORDS, tiles};
use crate::geometry::{Dense, Geometry};
use crate::items::{Found, ItemTable, Visit};
use crate::kernels::Source;
use crate::layout::{self, Extent, MOST_ROWS};

/// Calls that run side by side; more wait. Each holds some 50 MB of the card at the default sizes.
const LANES: usize = 4;
/// Rows and outputs of a block of the top's kernels.
const BLOCK: usize = 64;
/// Threads of every kernel but the encoder's.
const THREADS: u32 = 128;
/// Items that are kept on the card, some 30 times those of the largest launch, so that what several calls in a row have in
/// common stays though each brings new ones. At 32 numbers of embedding and 200 columns they take 35 MB.
const ITEMS: usize = 1 << 16;
/// Most bytes of them: where an item is large, fewer are kept.
const ITEM_BYTES: usize = 256 << 20;

/// A model's weights and working memory on a device.
pub(crate) struct Engine<D: Driver> {
    // Dropped in this order: recordings before what they play.
    lanes: Lanes<D>,
    weights: D::Memory,
    items: ItemTable,
    table: D::Memory,
    module: Arc<D::Module>,
    geometry: Geometry,
    model: Arc<Model>,
    driver: Arc<D>,
}

/// Working memory of one call.
struct Slot<D: Driver> {
    lane: D::Lane,
    scratch: D::Memory,
    /// Matrices between kernels of the top: the cross layers' first input, and two that take turns.
    matrices: [D::Memory; 3],
    staging: Staging,
    item_staging: ItemStaging,
    found: Found,
}

/// Up to [`LANES`] of them.
struct Lanes<D: Driver> {
    state: Mutex<LanesState<D>>,
    freed: Condvar,
}

struct LanesState<D: Driver> {
    free: Vec<Slot<D>>,
    made: usize,
}

impl<D: Driver> Engine<D> {
    /// Refuses models without kernels, and weights that are not finite.
    pub(crate) fn new(driver: &Arc<D>, model: Arc<Model>) -> Result<Self, CudaError> {
        Self::with_items(driver, model, ITEMS)
    }

    /// The same with so many items on the device, or fewer where they are large.
    pub(crate) fn with_items(driver: &Arc<D>, model: Arc<Model>, items: usize) -> Result<Self, CudaError> {
        let (geometry, words) = Geometry::of(&ServingParts::of(&model))?;
        let shared = [
            (Kernel::RequestPart, geometry.request_bytes()),
            (Kernel::Encode, geometry.encoder_bytes(tiles(geometry.most_tokens()))),
        ];
        let shared = if geometry.encoder.is_some() { &shared[..] } else { &[] };
        let module = driver.load(&Source::of(&geometry), shared)?;
        let weights = driver.upload(&words)?;
        let slot = geometry.item_words();
        let items = items.min(ITEM_BYTES / (slot * size_of::<u32>()));
        let table = driver.allocate((items * slot).max(TILE))?;
        let items = ItemTable::new(items);
        let state = Mutex::new(LanesState { free: Vec::new(), made: 0 });
        let lanes = Lanes { state, freed: Condvar::new() };
        Ok(Self { lanes, weights, items, table, module, geometry, model, driver: Arc::clone(driver) })
    }

    /// The model.
    pub(crate) fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Bytes of the weights on the device.
    pub(crate) fn bytes(&self) -> usize {
        self.geometry.words * size_of::<u32>()
    }

    /// What holds the items.
    #[cfg(test)]
    pub(crate) fn table(&self) -> &D::Memory {
        &self.table
    }

    /// Logits N x H, calibrated.
    pub(crate) fn score(&self, batch: &FeatureBatch) -> Result<Vec<f32>, CudaError> {
        let batch = &*admitted(&self.model, batch)?;
        layout::check(&self.geometry, batch)?;
        let heads = self.model.heads();
        let mut logits = vec![0.0; batch.rows() * heads];
        if !logits.is_empty() {
            // Dropped after the lane, which then waits for its queue: what still runs may write what was claimed.
            let mut visit = self.items.visit();
            let mut taken = self.take()?;
            self.stretches(&mut taken, &mut visit, batch, heads, &mut logits)?;
            taken.give_back();
        }
        let count = logits.iter().filter(|x| !x.is_finite()).count();
        if count > 0 {
            return Err(CudaError::NotFinite { count, of: logits.len() });
        }
        if let Some(calibration) = self.model.calibration() {
            calibration.apply(&mut logits);
        }
        Ok(logits)
    }

    fn stretches(
        &self,
        taken: &mut Taken<'_, D>,
        visit: &mut Visit<'_>,
        batch: &FeatureBatch,
        heads: usize,
        logits: &mut [f32],
    ) -> Result<(), CudaError> {
        let mut from = 0;
        while from < batch.rows() {
            let rows = layout::stretch(&self.geometry, batch, from);
            from = rows.end;
            let logits = &mut logits[rows.start * heads..rows.end * heads];
            let Some(slot) = &mut taken.slot else { break };
            let Slot { lane, scratch, matrices, staging, item_staging, found } = slot;
            visit.find(batch, rows.clone(), found);
            let items = item_staging.fill(&self.model, batch, &found.staged);
            let staged = staging.fill(&self.model, batch, rows);
            let input = self.driver.input(lane)?;
            let (extent, words) = layout::fill(&self.geometry, &staged, found, &items, input);
            let shape = shape(&extent);
            let launches = self.launches(shape, scratch, matrices);
            self.driver.run(&self.module, lane, shape, &launches, words, logits)?;
            visit.stored();
            add_rate(&staged, heads, logits);
        }
        Ok(())
    }

    /// All launches of a call.
    fn launches<'a>(
        &'a self,
        shape: Shape,
        scratch: &'a D::Memory,
        matrices: &'a [D::Memory; 3],
    ) -> Vec<Launch<'a, D::Memory>> {
        let mut launches = self.encoder_launches(shape, scratch, &matrices[0]);
        launches.push(Launch {
            kernel: Kernel::PlaceFeatures,
            grid: [shape.rows, 1],
            threads: THREADS,
            shared: 0,
            arguments: vec![Argument::Input, Argument::Memory(&self.table), Argument::Memory(&matrices[0])],
        });
        launches.push(self.request_sums(shape, scratch));
        let g = &self.geometry;
        let mut push = |kernel, dense: &Dense, x: usize, base: usize, out: Option<usize>| {
            let out = out.map_or(Argument::Output, |i| Argument::Memory(&matrices[i]));
            launches.push(self.dense(kernel, dense, shape, scratch, [&matrices[x], &matrices[base]], out));
        };
        let base = usize::from(g.project.is_some());
        if let Some(project) = &g.project {
            push(Kernel::DenseLinear, project, 0, 0, Some(1));
        }
        let [mut next, mut after] = if base == 0 { [1, 2] } else { [0, 2] };
        let mut x = base;
        let layers = g.cross.iter().map(|d| (Kernel::DenseGate, d));
        for (kernel, dense) in layers.chain(g.mlp.iter().map(|d| (Kernel::DenseRelu, d))) {
            push(kernel, dense, x, base, Some(next));
            x = next;
            std::mem::swap(&mut next, &mut after);
        }
        push(Kernel::DenseLogits, &g.head, x, base, None);
        launches
    }

    fn encoder_launches<'a>(
        &'a self,
        shape: Shape,
        scratch: &'a D::Memory,
        inputs: &'a D::Memory,
    ) -> Vec<Launch<'a, D::Memory>> {
        let g = &self.geometry;
        if g.encoder.is_none() {
            return Vec::new();
        }
        let tiles = shape.tiles.max(1); // a block must have a warp to write an empty history's zeros
        let [weights, table] = [&self.weights, &self.table].map(|m| m as &'a D::Memory);
        let mut launches = vec![
            Launch {
                kernel: Kernel::RequestPart,
                grid: [tiles, shape.requests],
                threads: THREADS,
                shared: g.request_bytes() as u32,
                arguments: vec![Argument::Input, Argument::Memory(weights), Argument::Memory(scratch)],
            },
            Launch {
                kernel: Kernel::Encode,
                grid: [shape.rows, 1],
                threads: tiles * 32,
                shared: g.encoder_bytes(tiles as usize) as u32,
                arguments: vec![
                    Argument::Input,
                    Argument::Memory(weights),
                    Argument::Memory(table),
                    Argument::Memory(scratch),
                    Argument::Memory(inputs),
                ],
            },
        ];
        launches.extend(g.columns.affinity.map(|_| Launch {
            kernel: Kernel::Affinity,
            grid: [shape.rows, 1],
            threads: THREADS,
            shared: tiles * (TILE * size_of::<f32>()) as u32,
            arguments: vec![
                Argument::Input,
                Argument::Memory(table),
                Argument::Memory(scratch),
                Argument::Memory(inputs),
            ],
        }));
        launches
    }

    fn request_sums<'a>(&'a self, shape: Shape, scratch: &'a D::Memory) -> Launch<'a, D::Memory> {
        let Dense { bias, outputs, .. } = *self.geometry.first();
        let mut arguments = vec![Argument::Input, Argument::Memory(&self.weights)];
        arguments.extend([self.geometry.of_request, bias, outputs].map(|n| Argument::Number(n as u32)));
        arguments.push(Argument::Memory(scratch));
        let blocks = (tiles(outputs) * TILE).div_ceil(THREADS as usize) as u32;
        let grid = [blocks, shape.requests];
        Launch { kernel: Kernel::RequestSums, grid, threads: THREADS, shared: 0, arguments }
    }

    fn dense<'a>(
        &'a self,
        kernel: Kernel,
        dense: &Dense,
        shape: Shape,
        scratch: &'a D::Memory,
        [x, base]: [&'a D::Memory; 2],
        out: Argument<'a, D::Memory>,
    ) -> Launch<'a, D::Memory> {
        let Dense { weight, bias, inputs, outputs, first } = *dense;
        let mut arguments = vec![Argument::Input, Argument::Memory(&self.weights)];
        let numbers = [weight, bias, inputs, outputs, usize::from(first)];
        arguments.extend(numbers.map(|n| Argument::Number(n as u32)));
        arguments.extend([scratch, x, base].map(Argument::Memory));
        arguments.push(out);
        let grid = [outputs.div_ceil(BLOCK) as u32, shape.rows.div_ceil(BLOCK as u32)];
        Launch { kernel, grid, threads: THREADS, shared: 0, arguments }
    }

    /// A free slot, or a new one, or the first that another call gives back.
    fn take(&self) -> Result<Taken<'_, D>, CudaError> {
        let mut state = self.lanes.lock();
        loop {
            if let Some(slot) = state.free.pop() {
                return Ok(Taken { lanes: &self.lanes, slot: Some(slot) });
            }
            if state.made < LANES {
                state.made += 1;
                break;
            }
            state = self.lanes.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let mut taken = Taken { lanes: &self.lanes, slot: None };
        taken.slot = Some(self.slot()?);
        Ok(taken)
    }

    fn slot(&self) -> Result<Slot<D>, CudaError> {
        let (input, scratch) = layout::most(&self.geometry);
        let matrix = tiles(MOST_ROWS) * tiles(self.geometry.widest()) * TILE_WORDS;
        let room = |words: usize| self.driver.allocate(words);
        Ok(Slot {
            lane: self.driver.lane(input, MOST_ROWS * self.model.heads())?,
            scratch: room(scratch.max(TILE))?,
            matrices: [room(matrix)?, room(matrix)?, room(matrix)?],
            staging: Staging::default(),
            item_staging: ItemStaging::default(),
            found: Found::default(),
        })
    }
}

/// A slot in use. One that is not given back, as its call failed, is not used again: its queue may hold a fault.
struct Taken<'a, D: Driver> {
    lanes: &'a Lanes<D>,
    slot: Option<Slot<D>>,
}

impl<D: Driver> Taken<'_, D> {
    fn give_back(mut self) {
        if let Some(slot) = self.slot.take() {
            let mut state = self.lanes.lock();
            state.free.push(slot);
            state.made += 1; // dropping takes it off
        }
    }
}

impl<D: Driver> Drop for Taken<'_, D> {
    fn drop(&mut self) {
        self.slot = None;
        self.lanes.lock().made -= 1;
        self.lanes.freed.notify_one();
    }
}

impl<D: Driver> Lanes<D> {
    /// A thread that panicked held no slot half taken: the state is whole.
    fn lock(&self) -> MutexGuard<'_, LanesState<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rounded up, so that calls of like sizes share a recording: at most 6 x 4 x 17 of them. Blocks without work end at once.
fn shape(extent: &Extent) -> Shape {
    let requests = [1, 16, 256].into_iter().find(|n| extent.requests <= *n).unwrap_or(MOST_ROWS);
    Shape {
        rows: extent.rows.max(BLOCK).next_power_of_two() as u32,
        requests: requests as u32,
        tiles: extent.longest as u32,
    }
}

/// Adds a request's rate logits to those of its rows.
fn add_rate(staged: &Staged<'_>, heads: usize, logits: &mut [f32]) {
    for (request, rate) in staged.requests.iter().zip(staged.rate.chunks_exact(heads)) {
        for row in logits[request.rows.start * heads..request.rows.end * heads].chunks_exact_mut(heads) {
            row.iter_mut().zip(rate).for_each(|(logit, rate)| *logit += *rate);
        }
    }
}
