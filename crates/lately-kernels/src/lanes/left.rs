//! The left factor of a product: a packed weight, or a view of activations.

use super::{BLOCK, SIDE};
use crate::buffer::Buffer;

/// A weight in blocks of 16 rows x 16 words, block after block along the contracted dimension, then group of rows after
/// group; edges are 0. A block is read from one end to the other.
#[derive(Debug, Default)]
pub struct Packed<W> {
    pub(super) words: Buffer<W>,
    pub(super) rows: usize,
    /// Words along the contracted dimension.
    pub(super) depth: usize,
    order: Order,
    /// Of whole numbers: what one of them is worth, a row each, and their sum in each block, rows x blocks.
    pub(super) scale: Vec<f32>,
    pub(super) sums: Vec<i32>,
}

/// Order of the words in a block.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Row after row: a tile.
    #[default]
    Rows,
    /// Word after word of all rows: sums of 8 rows then find what they multiply by in one line. (Row after row a layer's
    /// products took 15 to 25 % longer.)
    Words,
}

/// Rows of words: word k of row r of group g (of 16 rows) is `data[g * group + r * row + k / run * jump + k % run * step]`.
#[derive(Debug, Clone, Copy)]
pub struct Left<'a, W> {
    pub(super) data: &'a [W],
    pub(super) row: usize,
    pub(super) step: usize,
    pub(super) run: usize,
    pub(super) jump: usize,
    pub(super) group: usize,
    pub(super) depth: usize,
    /// See [`Packed`]; the blocks are those from `first` on.
    pub(super) scale: &'a [f32],
    pub(super) sums: &'a [i32],
    pub(super) first: usize,
}

impl<W: Copy + Default> Packed<W> {
    /// Puts `word(row, k)` into place.
    pub(super) fn new(order: Order, rows: usize, depth: usize, word: impl Fn(usize, usize) -> W) -> Self {
        let (groups, blocks) = (rows.div_ceil(SIDE), depth.div_ceil(SIDE));
        let mut words = Buffer::default();
        let out = words.sized(groups * blocks * BLOCK);
        for (at, out) in out.iter_mut().enumerate() {
            let (block, first, second) = (at / BLOCK, at % BLOCK / SIDE, at % SIDE);
            let (row, k) = if order == Order::Rows { (first, second) } else { (second, first) };
            let (row, k) = (block / blocks * SIDE + row, block % blocks * SIDE + k);
            *out = if row < rows && k < depth { word(row, k) } else { W::default() };
        }
        Self { words, rows, depth, order, scale: Vec::new(), sums: Vec::new() }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Blocks along the contracted dimension.
    pub fn blocks(&self) -> usize {
        self.depth.div_ceil(SIDE)
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.words.bytes()
    }

    /// All of it.
    pub fn all(&self) -> Left<'_, W> {
        self.part(0, self.blocks())
    }

    /// `count` blocks of the contracted dimension from block `from` on.
    pub fn part(&self, from: usize, count: usize) -> Left<'_, W> {
        let depth = ((from + count) * SIDE).min(self.depth) - (from * SIDE).min(self.depth);
        let (row, step, run) = match self.order {
            Order::Rows => (SIDE, 1, SIDE),
            Order::Words => (1, SIDE, depth.max(1)), // blocks follow one another without a break
        };
        let data = &self.words[(from * BLOCK).min(self.words.len())..];
        let (group, scale, sums) = (self.blocks() * BLOCK, &self.scale[..], &self.sums[..]);
        Left { data, row, step, run, jump: BLOCK, group, depth, scale, sums, first: from }
    }
}

impl<'a, W> Left<'a, W> {
    /// Rows of activations.
    pub(super) fn view(data: &'a [W], row: usize, step: usize, group: usize, depth: usize) -> Self {
        Self { data, row, step, run: depth.max(1), jump: 0, group, depth, scale: &[], sums: &[], first: 0 }
    }

    /// Rows of activations, each in runs of [`SIDE`] words: tiles.
    pub(super) fn tiles(data: &'a [W], row: usize, depth: usize) -> Self {
        Self { run: SIDE, jump: SIDE, ..Self::view(data, row, 1, SIDE * row, depth) }
    }

    /// The same words as others.
    pub(super) fn with<V>(self, data: &'a [V]) -> Left<'a, V> {
        let Left { row, step, run, jump, group, depth, scale, sums, first, .. } = self;
        Left { data, row, step, run, jump, group, depth, scale, sums, first }
    }

    /// Index of the first word of a row.
    pub(super) fn start(&self, row: usize) -> usize {
        row / SIDE * self.group + row % SIDE * self.row
    }

    /// Whether so many rows lie within the data.
    pub(super) fn covers(&self, rows: usize) -> bool {
        if rows == 0 || self.depth == 0 {
            return true;
        }
        let (whole, rest) = ((self.depth - 1) / self.run, (self.depth - 1) % self.run);
        // A packed group's first row may lie nearer to the end than the last row of the group before.
        let last = |row: usize| self.start(row) + whole * self.jump + rest * self.step;
        last(rows - 1).max(last((rows / SIDE * SIDE).saturating_sub(1))) < self.data.len()
    }
}
