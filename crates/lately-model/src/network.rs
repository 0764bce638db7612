//! The whole model over a backend, forward and backward: inputs and encoder here, then `top`.
//!
//! Rows are taken in chunks, large because the top's products gain by it. Within a chunk the encoder goes by pieces,
//! small so that a layer's activations stay in the second-level cache; shards of pieces are what threads share.

use std::ops::Range;

use lately_features::FeatureBatch;
use lately_features::batch::Columns;
use lately_kernels::columns::{self, Block};
use lately_kernels::embedding::Shape as EmbeddingShape;
use lately_kernels::loss::{self, list};
use lately_kernels::{Dropout, Real};

use crate::backend::Backend;
use crate::chunk::{Chunk, Limits, check};
use crate::config::{Encoder, ModelConfig};
use crate::encoder::{self, Pass};
use crate::normaliser::{CLIP, Normaliser};
use crate::plan::{Parameter, Plan, Side, Table};
use crate::shard::{Piece, Shard};
use crate::tape::{Folded, Scratch, accumulate, at_least, sized, zeroed};
use crate::{Gradients, ModelError, Objective, affinity, rate};

/// Places of chunks start here.
const CHUNK_PLACE: u64 = 1 << 32;

/// Which of the inputs' columns an output row has: `stride` of them, from column `first` on.
#[derive(Debug, Clone, Copy)]
struct Window {
    stride: usize,
    first: usize,
}

/// The model in numbers of type R.
#[derive(Debug, Clone)]
pub(crate) struct Network<R> {
    pub(crate) config: ModelConfig,
    pub(crate) plan: Plan,
    pub(crate) parameters: Vec<Parameter<R>>,
    pub(crate) normaliser: Normaliser,
}

impl<R: Real> Network<R> {
    pub(crate) fn weight(&self, id: usize) -> &[R] {
        &self.parameters[id].data
    }
    /// A weight and the bias that follows it.
    pub(crate) fn linear(&self, id: usize) -> (&[R], &[R]) {
        (&self.parameters[id].data, &self.parameters[id + 1].data)
    }
    pub(crate) fn embedding_scale(&self) -> f32 {
        if self.config.compatibility { 1.0 } else { self.normaliser.embedding_scale }
    }

    /// Inputs of the top of some rows, piece after piece.
    pub(crate) fn rows<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        rows: Range<usize>,
        piece: &mut Piece<R>,
        inputs: &mut [R],
        with: (Dropout, &[Folded<R>]),
    ) {
        let mut at = rows.start;
        while at < rows.end {
            self.chunk(&mut piece.chunk, batch, at..rows.end, Limits::PIECE, &[]);
            let (start, end) = (at - rows.start, piece.chunk.rows.end - rows.start);
            let inputs = &mut inputs[start * self.plan.inputs..end * self.plan.inputs];
            self.piece::<B>(batch, piece, inputs, false, with);
            at = piece.chunk.rows.end;
        }
    }

    /// Appends the logits, N x H, to `out`; with `sequence` also the encoder's output, N x its width.
    pub(crate) fn score<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        scratch: &mut Scratch<R>,
        out: &mut Vec<R>,
        mut sequence: Option<&mut Vec<R>>,
    ) -> Result<(), ModelError> {
        check(&self.plan, batch)?;
        encoder::fold::<R, B>(self, &mut scratch.folded);
        let mut row = 0;
        while row < batch.rows() {
            let Scratch { chunk, shards, top, pool, folded, .. } = scratch;
            self.chunk(chunk, batch, row..batch.rows(), Limits::SCORE, &[]);
            let rows = chunk.rows.clone();
            let inputs = sized(&mut top.rows_major, rows.len() * self.plan.inputs);
            at_least(shards, 1);
            at_least(&mut shards[0].pieces, 1);
            self.rows::<B>(
                batch,
                rows.clone(),
                &mut shards[0].pieces[0],
                inputs,
                (Dropout::default(), folded),
            );
            self.top::<B>(rows.len(), top, Dropout::default(), pool);
            rate::forward::<R, B>(self, batch, chunk, top);
            out.extend_from_slice(&top.logits);
            if let Some(sequence) = sequence.as_deref_mut() {
                for inputs in top.rows_major.chunks_exact(self.plan.inputs) {
                    sequence.extend_from_slice(&inputs[..self.plan.encoder.output]);
                }
            }
            row = rows.end;
        }
        Ok(())
    }

    /// [`Self::objective_and_gradient`] of rows that stand for themselves.
    pub(crate) fn loss_and_gradient<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        weight: &[f32],
        dropout_seed: Option<u64>,
        scratch: &mut Scratch<R>,
        gradients: &mut Gradients<R>,
    ) -> Result<f64, ModelError> {
        self.objective_and_gradient::<B>(batch, &Objective::rows(weight), dropout_seed, scratch, gradients)
    }

    /// Adds the gradient of the weighted loss to `gradients` and returns the loss.
    pub(crate) fn objective_and_gradient<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        objective: &Objective<'_>,
        dropout_seed: Option<u64>,
        scratch: &mut Scratch<R>,
        gradients: &mut Gradients<R>,
    ) -> Result<f64, ModelError> {
        check(&self.plan, batch)?;
        let heads = self.plan.heads;
        objective.check(batch, heads)?;
        let dropout = match dropout_seed {
            Some(seed) => Dropout { seed, rate: self.config.dropout },
            None => Dropout::default(),
        };
        encoder::fold::<R, B>(self, &mut scratch.folded);
        let (mut total, mut row) = (0.0, 0);
        while row < batch.rows() {
            self.forward::<B>(batch, row, objective.offsets(), scratch, dropout);
            let rows = scratch.chunk.rows.clone();
            let top_dropout = dropout.at(CHUNK_PLACE + row as u64);
            self.top::<B>(rows.len(), &mut scratch.top, top_dropout, &scratch.pool);
            let Scratch { chunk, top, gradient, pool, .. } = scratch;
            rate::forward::<R, B>(self, batch, chunk, top);
            let at = rows.start * heads..rows.end * heads;
            let (label, weight) = (&batch.label[at.clone()], &objective.weight[at]);
            let d_logits = sized(&mut gradient.logits, rows.len() * heads);
            total += loss::cross_entropy(&top.logits, label, weight, d_logits);
            sized(&mut gradient.rate, d_logits.len()).copy_from_slice(d_logits);
            if let Some(lists) = objective.lists_within(&rows) {
                let logits = if self.plan.rate.is_some() { &top.order } else { &top.logits };
                total += list::cross_entropy(lists, logits, label, weight, d_logits);
            }
            self.top_backward::<B>(rows.len(), top, gradient, top_dropout, gradients, pool);
            rate::backward::<R, B>(self, rows.len(), top, gradient, gradients);
            self.backward::<B>(batch, scratch, dropout, gradients);
            row = rows.end;
        }
        Ok(total)
    }

    fn chunk(
        &self,
        chunk: &mut Chunk,
        batch: &FeatureBatch,
        rows: std::ops::Range<usize>,
        limits: Limits,
        lists: &[u32],
    ) {
        chunk.fill(&self.plan, batch, rows, limits, lists);
    }

    /// One chunk from `row` on, up to the inputs of the top, with everything that the backward needs.
    fn forward<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        row: usize,
        lists: &[u32],
        scratch: &mut Scratch<R>,
        dropout: Dropout,
    ) {
        let Scratch { chunk, shards, top, pool, folded, .. } = scratch;
        self.chunk(chunk, batch, row..batch.rows(), Limits::CHUNK, lists);
        let mut left = sized(&mut top.rows_major, chunk.rows.len() * self.plan.inputs);
        let ranges = chunk.shards(batch, self.plan.encoder.per_candidate);
        if shards.len() < ranges.len() {
            shards.resize_with(ranges.len(), Shard::default);
        }
        shards[ranges.len()..].iter_mut().for_each(|shard| shard.used = 0);
        let mut work = Vec::with_capacity(ranges.len());
        for (shard, range) in shards.iter_mut().zip(ranges) {
            let (inputs, rest) = left.split_at_mut(range.len() * self.plan.inputs);
            left = rest;
            work.push((shard, range, inputs));
        }
        pool.each(work.into_iter(), |(shard, range, inputs)| {
            self.shard::<B>(batch, shard, range, inputs, (dropout, folded));
        });
    }

    /// The pieces of a shard, one after another.
    fn shard<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        shard: &mut Shard<R>,
        rows: std::ops::Range<usize>,
        inputs: &mut [R],
        (dropout, folded): (Dropout, &[Folded<R>]),
    ) {
        shard.used = 0;
        let mut row = rows.start;
        while row < rows.end {
            at_least(&mut shard.pieces, shard.used + 1);
            let piece = &mut shard.pieces[shard.used];
            self.chunk(&mut piece.chunk, batch, row..rows.end, Limits::PIECE, &[]);
            let end = piece.chunk.rows.end;
            let inputs =
                &mut inputs[(row - rows.start) * self.plan.inputs..(end - rows.start) * self.plan.inputs];
            std::mem::swap(&mut piece.tape.work, &mut shard.work);
            self.piece::<B>(batch, piece, inputs, true, (dropout.at(CHUNK_PLACE + row as u64), folded));
            std::mem::swap(&mut piece.tape.work, &mut shard.work);
            shard.used += 1;
            row = end;
        }
    }

    /// Encoder and inputs of a piece's rows.
    fn piece<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        piece: &mut Piece<R>,
        inputs: &mut [R],
        keep: bool,
        (dropout, folded): (Dropout, &[Folded<R>]),
    ) {
        let Piece { chunk, tape } = piece;
        encoder::forward::<R, B>(&Pass { network: self, batch, chunk, dropout, folded }, tape, keep);
        self.inputs::<B>(batch, chunk, &tape.work.sequence, inputs);
    }

    /// [sequence ; affinity ; user categorical ; user numeric ; user embeddings ; surface ; the same of the item].
    pub(crate) fn inputs<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        chunk: &Chunk,
        sequence: &[R],
        out: &mut [R],
    ) {
        let plan = &self.plan;
        if self.config.encoder != Encoder::None {
            let block =
                Block { source: &chunk.segment, width: plan.encoder.output, stride: plan.inputs, offset: 0 };
            columns::place(block, sequence, out);
        }
        self.features::<B>(batch, chunk, out);
    }

    /// The same without the sequence, whose columns stay as they are.
    pub(crate) fn features<B: Backend<R>>(&self, batch: &FeatureBatch, chunk: &Chunk, out: &mut [R]) {
        let (plan, window) = (&self.plan, self.window());
        self.constants(batch, chunk, out);
        self.tables::<B>(&plan.user, &batch.user, &chunk.request, window, out);
        if let Some((id, offset)) = plan.surface {
            let surface: &[u32] = &chunk.surface;
            let shape = surface_shape(plan, chunk, self.parameters[id].shape[1], offset);
            B::embedding(shape, self.weight(id), surface, out);
        }
        self.tables::<B>(&plan.item, &batch.item, &chunk.row, window, out);
    }

    /// [`Plan::request_columns`] of some of the batch's requests, requests x their number.
    pub(crate) fn request_columns<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        requests: &[u32],
        out: &mut [R],
    ) {
        let (plan, n, columns) = (&self.plan, &self.normaliser, self.plan.request_columns());
        if columns.is_empty() {
            return;
        }
        let window = Window { stride: columns.len(), first: columns.start };
        self.numbers(&plan.user, &batch.user, requests, (&n.user_mean, &n.user_std), window, out);
        self.tables::<B>(&plan.user, &batch.user, requests, window, out);
        if let Some((id, offset)) = plan.surface {
            let surfaces: Vec<u32> = batch.surface.iter().map(|s| (*s).into()).collect();
            let shape = EmbeddingShape {
                dim: self.parameters[id].shape[1],
                slots: 1,
                index_stride: 1,
                index_start: 0,
                entity: requests,
                stride: window.stride,
                offset: offset - window.first,
            };
            B::embedding(shape, self.weight(id), &surfaces, out);
        }
    }

    /// [`Plan::item_columns`] of some of the batch's rows, rows x their number.
    pub(crate) fn item_columns<B: Backend<R>>(&self, batch: &FeatureBatch, rows: &[u32], out: &mut [R]) {
        let (plan, n, columns) = (&self.plan, &self.normaliser, self.plan.item_columns());
        if columns.is_empty() {
            return;
        }
        let window = Window { stride: columns.len(), first: columns.start };
        self.numbers(&plan.item, &batch.item, rows, (&n.item_mean, &n.item_std), window, out);
        self.tables::<B>(&plan.item, &batch.item, rows, window, out);
    }

    /// All columns.
    fn window(&self) -> Window {
        Window { stride: self.plan.inputs, first: 0 }
    }

    /// What of it does not depend on a weight; other columns stay as they are.
    pub(crate) fn constants(&self, batch: &FeatureBatch, chunk: &Chunk, out: &mut [R]) {
        let (plan, n) = (&self.plan, &self.normaliser);
        if plan.affinity {
            affinity::forward(plan, batch, chunk, plan.encoder.output, out);
        }
        let window = self.window();
        self.numbers(&plan.user, &batch.user, &chunk.request, (&n.user_mean, &n.user_std), window, out);
        self.numbers(&plan.item, &batch.item, &chunk.row, (&n.item_mean, &n.item_std), window, out);
    }

    fn tables<B: Backend<R>>(
        &self,
        side: &Side,
        columns: &Columns,
        entity: &[u32],
        window: Window,
        out: &mut [R],
    ) {
        for table in &side.tables {
            let shape = table_shape(side, table, entity, window);
            B::embedding(shape, self.weight(table.id), &columns.categorical, out);
        }
    }

    fn numbers(
        &self,
        side: &Side,
        columns: &Columns,
        entity: &[u32],
        (mean, std): (&[f32], &[f32]),
        window: Window,
        out: &mut [R],
    ) {
        let block = |width, column| Block {
            source: entity,
            width,
            stride: window.stride,
            offset: column - window.first,
        };
        let width = side.layout.numeric_width;
        let clip = if self.config.compatibility { f32::INFINITY } else { CLIP };
        columns::normalised(block(width, side.numeric), &columns.numeric, mean, std, clip, out);
        if !self.config.compatibility {
            let width = side.layout.embedding_width;
            let scale = self.embedding_scale();
            columns::scaled(block(width, side.embedding), &columns.embedding, scale, out);
        }
    }

    /// From `gradient.rows_major` to the parameters below the top.
    fn backward<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        scratch: &mut Scratch<R>,
        dropout: Dropout,
        gradients: &mut Gradients<R>,
    ) {
        let Scratch { chunk, shards, gradient, pool, folded, .. } = scratch;
        let plan = &self.plan;
        let d_inputs = &gradient.rows_major;
        self.side_backward::<B>(&plan.user, &batch.user, &chunk.request, d_inputs, gradients);
        self.side_backward::<B>(&plan.item, &batch.item, &chunk.row, d_inputs, gradients);
        if let Some((id, offset)) = plan.surface {
            let shape = surface_shape(plan, chunk, self.parameters[id].shape[1], offset);
            let (table, mut touch) = gradients.table(id);
            B::embedding_backward(shape, &chunk.surface, d_inputs, false, table, &mut touch);
        }
        if self.config.encoder == Encoder::None {
            return;
        }
        let first = chunk.rows.start;
        pool.each(shards.iter_mut(), |shard| {
            shard.clear_gradients(&self.parameters, plan.encoder_parameters.clone());
            encoder::room(self, &mut shard.d.folded);
            for Piece { chunk, tape } in &mut shard.pieces[..shard.used] {
                let rows = chunk.rows.start - first..chunk.rows.end - first;
                let d_inputs = &d_inputs[rows.start * plan.inputs..rows.end * plan.inputs];
                let d_sequence = zeroed(&mut shard.d.sequence, chunk.source.len() * plan.encoder.output);
                let block = Block {
                    source: &chunk.segment,
                    width: plan.encoder.output,
                    stride: plan.inputs,
                    offset: 0,
                };
                columns::collect(block, d_inputs, d_sequence);
                let dropout = dropout.at(CHUNK_PLACE + chunk.rows.start as u64);
                let pass = Pass { network: self, batch, chunk, dropout, folded };
                std::mem::swap(&mut tape.work, &mut shard.work);
                encoder::backward::<R, B>(&pass, tape, &mut shard.d, &mut shard.gradients);
                std::mem::swap(&mut tape.work, &mut shard.work);
            }
        });
        // In fixed order, whoever computed them.
        encoder::room(self, &mut gradient.folded);
        gradient.folded.iter_mut().for_each(Folded::clear);
        for shard in shards.iter().filter(|shard| shard.used > 0) {
            gradients.add(&shard.gradients);
            for (sum, of_shard) in gradient.folded.iter_mut().zip(&shard.d.folded) {
                accumulate(&mut sum.map, &of_shard.map);
                accumulate(&mut sum.bias, &of_shard.bias);
            }
        }
        encoder::unfold::<R, B>(self, &gradient.folded, gradients);
    }

    fn side_backward<B: Backend<R>>(
        &self,
        side: &Side,
        columns: &Columns,
        entity: &[u32],
        d_inputs: &[R],
        gradients: &mut Gradients<R>,
    ) {
        for table in &side.tables {
            let shape = table_shape(side, table, entity, self.window());
            let (data, mut touch) = gradients.table(table.id);
            B::embedding_backward(shape, &columns.categorical, d_inputs, false, data, &mut touch);
        }
    }
}

fn table_shape<'a>(side: &Side, table: &Table, entity: &'a [u32], window: Window) -> EmbeddingShape<'a> {
    EmbeddingShape {
        dim: table.slots.dim,
        slots: table.slots.slots,
        index_stride: side.layout.categorical_width,
        index_start: table.slots.start,
        entity,
        stride: window.stride,
        offset: table.offset - window.first,
    }
}

/// `chunk.surface` holds one index a row.
fn surface_shape<'a>(plan: &Plan, chunk: &'a Chunk, dim: usize, offset: usize) -> EmbeddingShape<'a> {
    let entity = chunk.identity(chunk.rows.len());
    EmbeddingShape { dim, slots: 1, index_stride: 1, index_start: 0, entity, stride: plan.inputs, offset }
}
