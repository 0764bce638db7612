//! The kernels' launches by what they do: each function knows one kernel's grid and arguments.

use lately_model::training::Dropout;
use lately_model::training::{EncoderIds, ParameterPlan, TrainingPlan};

use super::pack::{Packed, ScatterAt};
use super::tape::{EncoderTape, Matrix, Tape};
use super::weights::{NONE, Weights};
use crate::driver::{Argument, Driver, Kernel, Launch};
use crate::fragment::{TILE, tiles};

/// Rows and columns that a block of a product makes, and its threads, see product.cu.
const BLOCK: [usize; 2] = [128, 64];
/// Threads of every block but those of `collect`.
const THREADS: usize = 256;
/// Blocks that fill a card twice over: 132 multiprocessors.
const BLOCKS: usize = 264;
/// Fewest rows of a part of a weight's gradient.
const LEAST_SHARE: usize = 256;
/// Threads of a block that adds up rows of a table, of which the popular ones have long lists, and of a matrix.
const LONG: usize = 512;
const SHORT: usize = 128;
/// Bytes of shared memory of a block of a product, for each plane: two slices of both factors.
const SLICES: usize = 2 * 2 * (BLOCK[0] + BLOCK[1]) * 40;
/// Blocks of the sum of squares.
pub(super) const SQUARES: usize = 256;
/// What a block may take without asking.
const PLAIN_SHARED: usize = 48 << 10;

/// Sizes that the kernels were compiled for, and the memory that launches name.
pub(super) struct Memories<D: Driver> {
    pub(super) weights: Weights<D>,
    pub(super) tape: D::Memory,
    /// Parts of gradients.
    pub(super) parts: D::Memory,
    pub(super) squares: D::Memory,
}

/// Launches in order.
pub(super) struct Launches<'a, D: Driver> {
    pub(super) list: Vec<Launch<'a, D::Memory>>,
    pub(super) memory: &'a Memories<D>,
    pub(super) plan: &'a TrainingPlan,
    pub(super) tape: &'a Tape,
    pub(super) packed: &'a Packed,
    /// Tokens of the longest segment.
    pub(super) longest: usize,
    pub(super) split: bool,
}

/// A linear map's weight: all of it, or some columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map {
    pub(super) weight: usize,
    /// First column.
    pub(super) at: usize,
    pub(super) inputs: usize,
}

/// What follows a product.
pub(super) enum Then {
    /// The bias, if there is one.
    Bias(Option<usize>),
    Relu(usize, Dropout),
    /// Of a cross layer: its bias, its first input, its input, and where the product goes.
    Gate(usize, Matrix, Matrix, Matrix),
}

/// What follows the product of an input's gradient.
pub(super) enum Back {
    Store,
    Add,
    /// What a ReLU with dropout of this rate gave.
    Relu(Matrix, f32),
}

/// Parts into which rows are cut for the gradient of outputs x columns, and the rows of each.
fn shares(outputs: usize, columns: usize, rows: usize) -> (usize, usize) {
    let tiles = outputs.div_ceil(BLOCK[0]) * columns.div_ceil(BLOCK[1]);
    let wanted = (2 * BLOCKS).div_ceil(tiles).min(rows.div_ceil(LEAST_SHARE)).max(1);
    let share = rows.div_ceil(wanted).next_multiple_of(32);
    (rows.div_ceil(share), share)
}

/// Numbers of the largest parts: `shares` cuts rows so that parts x tiles are at most [`BLOCKS`] twice, and the tiles once.
pub(super) fn parts(plan: &TrainingPlan) -> usize {
    let tiles = |p: &ParameterPlan| p.rows.div_ceil(BLOCK[0]) * (p.columns + 1).div_ceil(BLOCK[1]);
    let most = plan.parameters.iter().filter(|p| p.matrix && !p.table).map(tiles).max();
    let products = most.map_or(0, |tiles| (2 * BLOCKS + tiles) * BLOCK[0] * BLOCK[1]);
    let norms = plan.encoder.as_ref().map_or(0, |e| BLOCKS * 3 * e.width);
    products.max(norms).max(1)
}

/// Bytes of shared memory of a product's block.
fn product_bytes(split: bool) -> usize {
    SLICES * if split { 2 } else { 1 }
}

/// Bytes of shared memory of an attention's block, with so many matrices of a segment's tokens.
fn attention_bytes(e: &EncoderIds, matrices: usize, tokens: usize, split: bool) -> usize {
    let padded = tiles(tokens) * TILE;
    let pitch = tiles(e.width / e.heads) * TILE + 8;
    let numbers = if matrices > 3 { 2 * padded * size_of::<f32>() } else { 0 };
    matrices * if split { 2 } else { 1 } * padded * pitch * size_of::<u16>() + numbers
}

/// Kernels whose blocks may take more than the plain limit, and their most bytes.
pub(super) fn shared(plan: &TrainingPlan, split: bool) -> Vec<(Kernel, usize)> {
    let products = [
        Kernel::LinearPlain,
        Kernel::LinearRelu,
        Kernel::LinearGate,
        Kernel::LinearLogits,
        Kernel::InputGradient,
        Kernel::InputGradientAdd,
        Kernel::InputGradientRelu,
        Kernel::WeightGradient,
    ];
    let mut list = products.map(|kernel| (kernel, product_bytes(split))).to_vec();
    if let Some(e) = &plan.encoder {
        list.push((Kernel::Attention, attention_bytes(e, 3, e.length, split)));
        list.push((Kernel::AttentionBackward, attention_bytes(e, 4, e.length, split)));
    }
    list.retain(|(_, bytes)| *bytes > PLAIN_SHARED);
    list
}

impl<'a, D: Driver> Launches<'a, D> {
    pub(super) fn push(
        &mut self,
        kernel: Kernel,
        grid: [usize; 2],
        threads: usize,
        shared: usize,
        arguments: Vec<Argument<'a, D::Memory>>,
    ) {
        if grid.contains(&0) {
            return; // nothing to do
        }
        let grid = grid.map(|n| n as u32);
        self.list.push(Launch { kernel, grid, threads: threads as u32, shared: shared as u32, arguments });
    }

    /// A thread a number.
    fn each(&mut self, kernel: Kernel, numbers: usize, arguments: Vec<Argument<'a, D::Memory>>) {
        self.push(kernel, [numbers.div_ceil(THREADS), 1], THREADS, 0, arguments);
    }

    pub(super) fn at(&self, word: usize) -> Argument<'a, D::Memory> {
        Argument::MemoryAt(&self.memory.tape, word)
    }

    fn of(&self, m: Matrix) -> Argument<'a, D::Memory> {
        self.at(m.at)
    }

    /// A parameter's f32 numbers.
    pub(super) fn weight(&self, id: usize) -> Argument<'a, D::Memory> {
        let weights = &self.memory.weights;
        Argument::MemoryAt(&weights.weight, weights.places[id].start)
    }

    fn gradient(&self, id: usize) -> Argument<'a, D::Memory> {
        let weights = &self.memory.weights;
        Argument::MemoryAt(&weights.gradient, weights.places[id].start)
    }

    /// A weight's copy for products: where it is, and the stride of its rows.
    fn copy(&self, id: usize) -> [Argument<'a, D::Memory>; 2] {
        let weights = &self.memory.weights;
        let (at, stride) = weights.places[id].copy.unwrap_or_default();
        [Argument::MemoryAt(&weights.copies, at), number(stride)]
    }

    /// The whole weight.
    pub(super) fn map(&self, weight: usize) -> Map {
        Map { weight, at: 0, inputs: self.memory.weights.places[weight].columns }
    }

    fn outputs_of(&self, map: Map) -> usize {
        self.memory.weights.places[map.weight].rows
    }

    /// `y = x W^T`, and what follows.
    pub(super) fn linear(&mut self, x: Matrix, map: Map, y: Matrix, then: &Then) {
        let none = Dropout::default();
        let (kernel, bias, gate, dropout) = match then {
            Then::Bias(bias) => (Kernel::LinearPlain, *bias, None, none),
            Then::Relu(bias, dropout) => (Kernel::LinearRelu, Some(*bias), None, *dropout),
            Then::Gate(bias, first, second, inner) => {
                (Kernel::LinearGate, Some(*bias), Some([*first, *second, *inner]), none)
            }
        };
        let gate = gate.map_or([const { Argument::Null }; 3], |g| g.map(|m| self.of(m)));
        let y = [self.of(y), number(y.stride)];
        self.product(kernel, x, map, bias, y, gate, dropout);
    }

    /// Logits in f32, rows x heads.
    pub(super) fn logits(&mut self, x: Matrix, map: Map, bias: usize, at: usize) {
        let heads = self.outputs_of(map);
        let out = [self.at(at), number(heads)];
        let none = [const { Argument::Null }; 3];
        self.product(Kernel::LinearLogits, x, map, Some(bias), out, none, Dropout::default());
    }

    fn product(
        &mut self,
        kernel: Kernel,
        x: Matrix,
        map: Map,
        bias: Option<usize>,
        [y, y_stride]: [Argument<'a, D::Memory>; 2],
        [first, second, inner]: [Argument<'a, D::Memory>; 3],
        dropout: Dropout,
    ) {
        let outputs = self.outputs_of(map);
        let [w, w_stride] = self.copy(map.weight);
        let mut arguments = vec![self.of(x), number(x.stride), w, w_stride];
        arguments.extend([map.at, x.rows, map.inputs, outputs].map(number));
        arguments.push(bias.map_or(Argument::Null, |id| self.weight(id)));
        arguments.extend([y, y_stride, first, second, inner]);
        arguments.extend(mask(dropout));
        let grid = [outputs.div_ceil(BLOCK[1]), x.rows.div_ceil(BLOCK[0])];
        self.push(kernel, grid, THREADS, product_bytes(self.split), arguments);
    }

    /// `dx = dy W`.
    pub(super) fn input_gradient(&mut self, dy: Matrix, map: Map, dx: Matrix, back: &Back) {
        let (kernel, first, rate) = match back {
            Back::Store => (Kernel::InputGradient, Argument::Null, 0.0),
            Back::Add => (Kernel::InputGradientAdd, Argument::Null, 0.0),
            Back::Relu(y, rate) => (Kernel::InputGradientRelu, self.of(*y), *rate),
        };
        let [w, w_stride] = self.copy(map.weight);
        let mut arguments = vec![self.of(dy), number(dy.stride), w, w_stride];
        arguments.extend([map.at, dy.rows, map.inputs, self.outputs_of(map)].map(number));
        arguments.extend([self.of(dx), number(dx.stride), first, Argument::Real(rate)]);
        let grid = [map.inputs.div_ceil(BLOCK[1]), dy.rows.div_ceil(BLOCK[0])];
        self.push(kernel, grid, THREADS, product_bytes(self.split), arguments);
    }

    /// `dW += dy^T x`, and with a bias its gradient.
    pub(super) fn weight_gradient(&mut self, dy: Matrix, x: Matrix, map: Map, bias: Option<usize>) {
        if dy.rows == 0 {
            return;
        }
        let (outputs, ones) = (self.outputs_of(map), usize::from(bias.is_some()));
        let columns = map.inputs + ones;
        let (count, share) = shares(outputs, columns, dy.rows);
        let mut arguments = vec![self.of(dy), number(dy.stride), self.of(x), number(x.stride)];
        arguments.extend([dy.rows, map.inputs, outputs, share, ones].map(number));
        arguments.push(Argument::Memory(&self.memory.parts));
        let tiles = outputs.div_ceil(BLOCK[0]) * columns.div_ceil(BLOCK[1]);
        let bytes = product_bytes(self.split);
        self.push(Kernel::WeightGradient, [tiles, count], THREADS, bytes, arguments);
        let length = outputs * columns;
        let stride = self.memory.weights.places[map.weight].columns;
        self.reduce((count, length), 0, [outputs, map.inputs], columns, (map.weight, map.at), stride);
        if let Some(bias) = bias {
            self.reduce((count, length), map.inputs, [outputs, 1], columns, (bias, 0), 1);
        }
    }

    /// Adds up parts into a parameter's gradient, from one of its numbers on.
    fn reduce(
        &mut self,
        (count, length): (usize, usize),
        at: usize,
        [rows, columns]: [usize; 2],
        part_stride: usize,
        (id, first): (usize, usize),
        stride: usize,
    ) {
        let weights = &self.memory.weights;
        let mut arguments = vec![Argument::Memory(&self.memory.parts)];
        arguments.extend([count, length, at, part_stride, rows, columns].map(number));
        arguments.push(Argument::MemoryAt(&weights.gradient, weights.places[id].start + first));
        arguments.push(number(stride));
        self.each(Kernel::Reduce, rows * columns, arguments);
    }

    pub(super) fn place(&mut self, from: usize, columns: usize, out: Matrix, offset: usize) {
        let mut arguments = vec![Argument::InputAt(from), number(columns), number(out.rows), self.of(out)];
        arguments.extend([out.stride, offset].map(number));
        self.each(Kernel::Place, out.rows * columns, arguments);
    }

    /// The same of numbers on the tape.
    pub(super) fn place_own(&mut self, from: usize, out: Matrix) {
        let arguments = vec![
            self.at(from),
            number(out.columns),
            number(out.rows),
            self.of(out),
            number(out.stride),
            number(0),
        ];
        self.each(Kernel::Place, out.rows * out.columns, arguments);
    }

    pub(super) fn embed(
        &mut self,
        table: usize,
        indices: usize,
        slots: usize,
        out: Matrix,
        offset: usize,
        add: bool,
    ) {
        let columns = self.plan.parameters[table].columns;
        let mut arguments = vec![self.weight(table), number(columns), Argument::InputAt(indices)];
        arguments.extend([slots, out.rows].map(number));
        arguments.push(self.of(out));
        arguments.extend([out.stride, offset, usize::from(add)].map(number));
        self.each(Kernel::Embed, out.rows * columns, arguments);
    }

    /// Adds a block of columns of `d` to the rows of a table's gradient.
    pub(super) fn collect_table(&mut self, table: usize, back: ScatterAt, d: Matrix, offset: usize) {
        let columns = self.plan.parameters[table].columns;
        let weights = &self.memory.weights;
        let touched = weights.places[table].touched;
        let arguments = vec![
            Argument::InputAt(back.rows),
            Argument::InputAt(back.starts),
            Argument::InputAt(back.from),
            back.share.map_or(Argument::Null, Argument::InputAt),
            self.of(d),
            number(d.stride),
            number(offset),
            number(columns),
            self.gradient(table),
            touched.map_or(Argument::Null, |at| Argument::MemoryAt(&weights.gradient, weights.numbers + at)),
        ];
        let grid = [back.count, columns.div_ceil(32)];
        self.push(Kernel::CollectTable, grid, LONG, LONG * size_of::<f32>(), arguments);
    }

    /// Sums of the rows' first columns over each segment, and of its tokens'.
    pub(super) fn collect_rows(&mut self, d: Matrix, out: Matrix) {
        self.collect(Kernel::CollectRows, vec![Argument::InputAt(self.packed.row_starts)], d, out);
    }
    pub(super) fn collect_segments(&mut self, d: Matrix, out: Matrix) {
        self.collect(Kernel::CollectRows, vec![Argument::InputAt(self.packed.offsets)], d, out);
    }

    /// Sums of encoder tokens' first columns over those that are one row of the tokens' matrix.
    pub(super) fn collect_tokens(&mut self, d: Matrix, out: Matrix) {
        let [first, count, place] = self.packed.uses;
        let lists = [self.packed.offsets, first, count, place].map(Argument::InputAt);
        self.collect(Kernel::CollectTokens, lists.into(), d, out);
    }

    fn collect(
        &mut self,
        kernel: Kernel,
        mut arguments: Vec<Argument<'a, D::Memory>>,
        d: Matrix,
        out: Matrix,
    ) {
        arguments.extend([self.of(d), number(d.stride), number(out.columns)]);
        arguments.extend([self.of(out), number(out.stride)]);
        let grid = [out.rows, out.columns.div_ceil(32)];
        self.push(kernel, grid, SHORT, SHORT * size_of::<f32>(), arguments);
    }

    /// A block of columns into another matrix, or added to it.
    pub(super) fn copy_columns(
        &mut self,
        (from, first): (Matrix, usize),
        columns: usize,
        (out, offset): (Matrix, usize),
        add: bool,
    ) {
        let mut arguments = vec![self.of(from)];
        arguments.extend([from.stride, first, columns, from.rows].map(number));
        arguments.push(self.of(out));
        arguments.extend([out.stride, offset, usize::from(add)].map(number));
        self.each(Kernel::CopyColumns, from.rows * columns, arguments);
    }

    /// A segment's row into each of its rows' first columns.
    pub(super) fn spread(&mut self, from: Matrix, out: Matrix) {
        let mut arguments =
            vec![self.of(from), number(from.stride), Argument::InputAt(self.packed.row_segment)];
        arguments.extend([from.columns, out.rows].map(number));
        arguments.extend([self.of(out), number(out.stride)]);
        self.each(Kernel::Spread, out.rows * from.columns, arguments);
    }

    /// Each encoder token's segment and row of the tokens' matrix.
    pub(super) fn number_tokens(&mut self, t: &EncoderTape) {
        let packed = self.packed;
        let candidates = packed.appended.map_or(NONE, |row| row as u32);
        let arguments = vec![
            Argument::InputAt(packed.offsets),
            Argument::InputAt(packed.source),
            Argument::Number(candidates),
            self.at(t.segment),
            self.at(t.gather),
        ];
        self.push(Kernel::NumberTokens, [t.sequence.rows, 1], SHORT, 0, arguments);
    }

    pub(super) fn expand(&mut self, t: &EncoderTape) {
        let (token, candidate, out) = (t.token, t.candidate, t.stream);
        let mut arguments = vec![self.of(token)];
        arguments.extend([token.stride, token.columns].map(number));
        arguments.push(self.of(candidate));
        arguments.extend([candidate.stride, candidate.columns].map(number));
        arguments.extend([self.at(t.gather), self.at(t.segment)]);
        arguments.extend([number(out.rows), self.of(out), number(out.stride)]);
        self.each(Kernel::Expand, out.rows * out.columns, arguments);
    }

    /// Queries, keys and values as the attention kernels take them: of the first layer by parts.
    fn qkv(&self, first: Option<&EncoderTape>, qkv: Matrix) -> Vec<Argument<'a, D::Memory>> {
        let (rows, own, gather) = match first {
            Some(t) => {
                let own = t.own_projected;
                let own = if own.rows > 0 { self.of(own) } else { Argument::Null };
                (t.token_projected, own, self.at(t.gather))
            }
            None => (qkv, Argument::Null, Argument::Null),
        };
        vec![self.of(rows), own, gather, number(rows.stride), Argument::InputAt(self.packed.offsets)]
    }

    fn attention_grid(&self, e: &EncoderIds) -> ([usize; 2], usize) {
        let threads = tiles(self.longest).clamp(1, THREADS / 32) * 32;
        ([self.tape.encoder.as_ref().map_or(0, |t| t.sequence.rows), e.heads], threads)
    }

    /// From queries, keys and values to `context`. `first`: of the first layer, whose queries, keys and values are sums of two projections.
    pub(super) fn attention(
        &mut self,
        e: &EncoderIds,
        first: Option<&EncoderTape>,
        (qkv, context, largest): (Matrix, Matrix, usize),
        dropout: Dropout,
    ) {
        let mut arguments = self.qkv(first, qkv);
        arguments.extend([number(context.rows), self.of(context), number(context.stride), self.at(largest)]);
        arguments.extend(mask(dropout));
        let (grid, threads) = self.attention_grid(e);
        let bytes = attention_bytes(e, 3, self.longest, self.split);
        self.push(Kernel::Attention, grid, threads, bytes, arguments);
    }

    /// From `d_context` to `d_qkv`.
    pub(super) fn attention_backward(
        &mut self,
        e: &EncoderIds,
        first: Option<&EncoderTape>,
        (qkv, context, largest): (Matrix, Matrix, usize),
        (d_context, d_qkv): (Matrix, Matrix),
        dropout: Dropout,
    ) {
        let mut arguments = self.qkv(first, qkv);
        arguments.extend([number(context.rows), self.of(context), self.of(d_context)]);
        arguments.extend([number(context.stride), self.at(largest), self.of(d_qkv), number(d_qkv.stride)]);
        arguments.extend(mask(dropout));
        let (grid, threads) = self.attention_grid(e);
        let bytes = attention_bytes(e, 4, self.longest, self.split);
        self.push(Kernel::AttentionBackward, grid, threads, bytes, arguments);
    }

    /// `y = norm(x + dropout(branch + bias))`.
    pub(super) fn add_norm(
        &mut self,
        (x, branch, bias): (Matrix, Matrix, usize),
        norm: usize,
        (normed, rstd, y): (Matrix, usize, Matrix),
        dropout: Dropout,
    ) {
        let mut arguments = vec![self.of(x), self.of(branch)];
        arguments.extend([bias, norm, norm + 1].map(|id| self.weight(id)));
        arguments.extend([number(x.rows), number(x.stride), self.of(normed), self.at(rstd), self.of(y)]);
        arguments.extend(mask(dropout));
        let rows = x.rows.div_ceil(THREADS / 32);
        self.push(Kernel::AddNorm, [rows, 1], THREADS, 0, arguments);
    }

    /// From `dy` to the residual's and the branch's gradients, and those of gamma, beta and bias.
    pub(super) fn add_norm_backward(
        &mut self,
        (dy, normed, rstd): (Matrix, Matrix, usize),
        (norm, bias): (usize, usize),
        (dx, d_branch): (Matrix, Matrix),
        dropout: Dropout,
    ) {
        let width = dy.columns;
        let blocks = dy.rows.div_ceil(THREADS / 32).min(BLOCKS);
        let mut arguments = vec![self.of(dy), self.of(normed), self.at(rstd), self.weight(norm)];
        arguments.extend([number(dy.rows), number(dy.stride), self.of(dx), self.of(d_branch)]);
        arguments.push(Argument::Memory(&self.memory.parts));
        arguments.extend(mask(dropout));
        let bytes = THREADS / 32 * 3 * width * size_of::<f32>();
        self.push(Kernel::AddNormBackward, [blocks, 1], THREADS, bytes, arguments);
        for (i, id) in [norm, norm + 1, bias].into_iter().enumerate().filter(|_| blocks > 0) {
            self.reduce((blocks, 3 * width), i * width, [width, 1], 1, (id, 0), 1);
        }
    }

    /// The maximum over tokens, and the first ones.
    pub(super) fn outputs(&mut self, stream: Matrix, pooled: Matrix, argmax: usize, sequence: Matrix) {
        let arguments = vec![
            self.of(stream),
            number(stream.stride),
            Argument::InputAt(self.packed.offsets),
            self.of(pooled),
            self.at(argmax),
            self.of(sequence),
            number(sequence.stride),
        ];
        self.push(Kernel::Outputs, [sequence.rows, 1], SHORT, 0, arguments);
    }

    /// Zeros where a segment without tokens has the map of its maximum.
    pub(super) fn clear_empty(&mut self, sequence: Matrix) {
        let offsets = Argument::InputAt(self.packed.offsets);
        let arguments = vec![offsets, self.of(sequence), number(sequence.stride)];
        self.push(Kernel::ClearEmpty, [sequence.rows, 1], SHORT, 0, arguments);
    }

    pub(super) fn outputs_backward(&mut self, t: &EncoderTape) {
        let d_stream = t.d_stream;
        let arguments = vec![
            self.of(t.d_sequence),
            number(t.d_sequence.stride),
            self.of(t.d_pooled),
            self.at(t.argmax),
            Argument::InputAt(self.packed.offsets),
            self.at(t.segment),
            number(d_stream.rows),
            self.of(d_stream),
            number(d_stream.stride),
        ];
        self.each(Kernel::OutputsBackward, d_stream.rows * d_stream.columns, arguments);
    }

    /// From a cross layer's gradient to its product's, in place of that, and to its first input's.
    pub(super) fn gate_backward(&mut self, x0: Matrix, inner: Matrix, dy: Matrix, dx0: Matrix, first: bool) {
        let mut arguments = vec![self.of(x0), self.of(inner), self.of(dy), self.of(dx0)];
        arguments.extend([inner.columns, inner.rows, inner.stride, usize::from(first)].map(number));
        self.each(Kernel::GateBackward, inner.rows * inner.columns, arguments);
    }
}

pub(super) fn number<'a, M>(n: usize) -> Argument<'a, M> {
    Argument::Number(n as u32)
}

/// A mask's seeds and rate.
fn mask<'a, M>(dropout: Dropout) -> [Argument<'a, M>; 3] {
    let (first, second) = (dropout.seed as u32, (dropout.seed >> 32) as u32);
    [Argument::Number(first), Argument::Number(second), Argument::Real(dropout.rate)]
}

/// The launch of one step over all parameters, or, without one, of the products' copies alone.
pub(super) fn adam<D: Driver>(
    weights: &Weights<D>,
    step: Option<lately_model::AdamStep>,
) -> Launch<'_, D::Memory> {
    let [m, v] = &weights.moments;
    let mut arguments = vec![Argument::Memory(&weights.records)];
    arguments.extend([&weights.weight, &weights.gradient, m, v, &weights.copies].map(Argument::Memory));
    arguments.push(Argument::MemoryAt(&weights.gradient, weights.numbers));
    arguments.push(number(usize::from(step.is_some())));
    let s = step.map_or([0.0; 6], |s| [s.scale, s.first, s.second, s.rate, s.epsilon, s.keep]);
    arguments.extend(s.map(Argument::Real));
    // Blocks of a small parameter end at once; no more of them than the largest one needs.
    let largest = weights.places.iter().map(|p| p.rows * p.columns).max().unwrap_or(0);
    let grid = [largest.div_ceil(THREADS).clamp(1, BLOCKS) as u32, weights.places.len() as u32];
    Launch { kernel: Kernel::Adam, grid, threads: THREADS as u32, shared: 0, arguments }
}

/// The launch that unmarks all rows of tables.
pub(super) fn unmark<D: Driver>(weights: &Weights<D>) -> Launch<'_, D::Memory> {
    let arguments = vec![Argument::MemoryAt(&weights.gradient, weights.numbers), number(weights.marks)];
    let grid = [weights.marks.div_ceil(THREADS).clamp(1, BLOCKS) as u32, 1];
    Launch { kernel: Kernel::ClearWords, grid, threads: THREADS as u32, shared: 0, arguments }
}

/// The launch that adds up the squares of all gradients, a f64 a block.
pub(super) fn squares<D: Driver>(memory: &Memories<D>) -> Launch<'_, D::Memory> {
    let weights = &memory.weights;
    let arguments =
        vec![Argument::Memory(&weights.gradient), number(weights.numbers), Argument::Memory(&memory.squares)];
    let shared = (THREADS * size_of::<f64>()) as u32;
    Launch { kernel: Kernel::Squares, grid: [SQUARES as u32, 1], threads: THREADS as u32, shared, arguments }
}
