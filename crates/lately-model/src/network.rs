//! The whole model over a backend: inputs, cross layers, MLP, heads, loss; forward and backward.

use lately_features::FeatureBatch;
use lately_features::batch::Columns;
use lately_kernels::columns::{self, Block};
use lately_kernels::embedding::Shape as EmbeddingShape;
use lately_kernels::linear::Shape;
use lately_kernels::loss::{self, list};
use lately_kernels::{Dropout, Real};

use crate::backend::Backend;
use crate::chunk::{Chunk, check};
use crate::config::{Encoder, ModelConfig};
use crate::normaliser::{CLIP, Normaliser};
use crate::plan::{Parameter, Plan, Side, Table, per_candidate};
use crate::tape::{Scratch, TopTape, accumulate, at_least, sized, zeroed};
use crate::{Gradients, ModelError, Objective, affinity, encoder};

/// Places of dropout in the MLP start here.
const MLP_PLACE: u64 = 1 << 20;
/// Places of chunks start here.
const CHUNK_PLACE: u64 = 1 << 32;

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

    /// Appends the logits, N x H, to `out`; with `sequence` also the encoder's output, N x its width.
    pub(crate) fn score<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        scratch: &mut Scratch<R>,
        out: &mut Vec<R>,
        mut sequence: Option<&mut Vec<R>>,
    ) -> Result<(), ModelError> {
        check(&self.plan, batch)?;
        let mut row = 0;
        while row < batch.rows() {
            self.forward::<B>(batch, row, &[], scratch, false, Dropout::default());
            out.extend_from_slice(&scratch.top.logits);
            if let Some(sequence) = sequence.as_deref_mut() {
                for inputs in scratch.top.inputs.chunks_exact(self.plan.inputs) {
                    sequence.extend_from_slice(&inputs[..self.plan.sequence]);
                }
            }
            row = scratch.chunk.rows.end;
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
        let (mut total, mut row) = (0.0, 0);
        while row < batch.rows() {
            let dropout = dropout.at(CHUNK_PLACE + row as u64);
            self.forward::<B>(batch, row, objective.offsets(), scratch, true, dropout);
            let rows = scratch.chunk.rows.clone();
            let at = rows.start * heads..rows.end * heads;
            let gradient = sized(&mut scratch.gradient.logits, rows.len() * heads);
            let (logits, label) = (&scratch.top.logits, &batch.label[at.clone()]);
            let weight = &objective.weight[at];
            total += loss::cross_entropy(logits, label, weight, gradient);
            if let Some(lists) = objective.lists_within(&rows) {
                total += list::cross_entropy(lists, logits, label, weight, gradient);
            }
            self.backward::<B>(batch, scratch, dropout, gradients);
            row = rows.end;
        }
        Ok(total)
    }

    /// One chunk from `row` on, up to `scratch.top.logits`.
    fn forward<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        row: usize,
        lists: &[u32],
        scratch: &mut Scratch<R>,
        keep: bool,
        dropout: Dropout,
    ) {
        let Scratch { chunk, encoder, top, .. } = scratch;
        chunk.fill(batch, row, lists, per_candidate(&self.config), self.config.compatibility);
        encoder::forward::<R, B>(self, batch, chunk, encoder, keep, dropout);
        self.inputs::<B>(batch, chunk, &encoder.sequence, &mut top.inputs);
        self.top::<B>(chunk.rows.len(), top, dropout);
    }

    /// [sequence ; affinity ; user categorical ; user numeric ; user embeddings ; surface ; the same of the item].
    fn inputs<B: Backend<R>>(&self, batch: &FeatureBatch, chunk: &Chunk, sequence: &[R], out: &mut Vec<R>) {
        let plan = &self.plan;
        let out = sized(out, chunk.rows.len() * plan.inputs);
        if self.config.encoder != Encoder::None {
            let block =
                Block { source: &chunk.segment, width: plan.sequence, stride: plan.inputs, offset: 0 };
            columns::place(block, sequence, out);
        }
        if plan.affinity {
            affinity::forward(plan, batch, chunk, plan.sequence, out);
        }
        let n = &self.normaliser;
        self.side::<B>(&plan.user, &batch.user, &chunk.request, (&n.user_mean, &n.user_std), out);
        if let Some((id, offset)) = plan.surface {
            let surface: &[u32] = &chunk.surface;
            let shape = surface_shape(plan, chunk, self.parameters[id].shape[1], offset);
            B::embedding(shape, self.weight(id), surface, out);
        }
        self.side::<B>(&plan.item, &batch.item, &chunk.row, (&n.item_mean, &n.item_std), out);
    }

    fn side<B: Backend<R>>(
        &self,
        side: &Side,
        columns: &Columns,
        entity: &[u32],
        (mean, std): (&[f32], &[f32]),
        out: &mut [R],
    ) {
        for table in &side.tables {
            let shape = table_shape(side, table, entity, self.plan.inputs);
            B::embedding(shape, self.weight(table.id), &columns.categorical, out);
        }
        let block = |width, offset| Block { source: entity, width, stride: self.plan.inputs, offset };
        let width = side.layout.numeric_width;
        let clip = if self.config.compatibility { f32::INFINITY } else { CLIP };
        columns::normalised(block(width, side.numeric), &columns.numeric, mean, std, clip, out);
        if !self.config.compatibility {
            let width = side.layout.embedding_width;
            let scale = self.embedding_scale();
            columns::scaled(block(width, side.embedding), &columns.embedding, scale, out);
        }
    }

    /// Cross layers, MLP and heads.
    fn top<B: Backend<R>>(&self, rows: usize, top: &mut TopTape<R>, dropout: Dropout) {
        let (plan, width) = (&self.plan, self.plan.cross_width);
        let TopTape { inputs, cross, inner, hidden, logits } = top;
        at_least(cross, plan.cross.len() + 1);
        at_least(inner, plan.cross.len());
        at_least(hidden, plan.mlp.len());
        match plan.project {
            Some(id) => {
                let ((w, b), shape) = (self.linear(id), Shape::new(rows, plan.inputs, width));
                B::linear(shape, inputs, w, b, false, sized(&mut cross[0], rows * width));
            }
            None => sized(&mut cross[0], rows * width).copy_from_slice(inputs),
        }
        for (i, id) in plan.cross.iter().enumerate() {
            let (before, after) = cross.split_at_mut(i + 1);
            let (w, b) = self.linear(*id);
            let inner = sized(&mut inner[i], rows * width);
            B::cross(width, &before[0], &before[i], w, b, inner, sized(&mut after[0], rows * width));
        }
        let mut x = &cross[plan.cross.len()];
        let mut inputs = width;
        for (i, (id, hidden)) in plan.mlp.iter().zip(hidden).enumerate() {
            let (w, b) = self.linear(*id);
            B::linear(Shape::new(rows, inputs, b.len()), x, w, b, true, sized(hidden, rows * b.len()));
            B::dropout(dropout.at(MLP_PLACE + i as u64), 0, hidden);
            (x, inputs) = (hidden, b.len());
        }
        let (w, b) = self.linear(plan.head);
        B::linear(Shape::new(rows, inputs, plan.heads), x, w, b, false, sized(logits, rows * plan.heads));
    }

    /// From `scratch.gradient.logits` to every parameter.
    fn backward<B: Backend<R>>(
        &self,
        batch: &FeatureBatch,
        scratch: &mut Scratch<R>,
        dropout: Dropout,
        gradients: &mut Gradients<R>,
    ) {
        self.top_backward::<B>(scratch, dropout, gradients);
        let Scratch { chunk, encoder, gradient, .. } = scratch;
        let plan = &self.plan;
        let d_inputs = &gradient.current;
        self.side_backward::<B>(&plan.user, &batch.user, &chunk.request, d_inputs, gradients);
        self.side_backward::<B>(&plan.item, &batch.item, &chunk.row, d_inputs, gradients);
        if let Some((id, offset)) = plan.surface {
            let shape = surface_shape(plan, chunk, self.parameters[id].shape[1], offset);
            let (table, mut touch) = gradients.table(id);
            B::embedding_backward(shape, &chunk.surface, d_inputs, false, table, &mut touch);
        }
        if self.config.encoder != Encoder::None {
            let d_sequence = zeroed(&mut gradient.sequence, chunk.source.len() * plan.sequence);
            let block =
                Block { source: &chunk.segment, width: plan.sequence, stride: plan.inputs, offset: 0 };
            columns::collect(block, d_inputs, d_sequence);
            encoder::backward::<R, B>(self, chunk, encoder, gradient, dropout, gradients);
        }
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
            let shape = table_shape(side, table, entity, self.plan.inputs);
            let (data, mut touch) = gradients.table(table.id);
            B::embedding_backward(shape, &columns.categorical, d_inputs, false, data, &mut touch);
        }
    }

    /// Leaves the gradient of the inputs in `scratch.gradient.current`.
    fn top_backward<B: Backend<R>>(
        &self,
        scratch: &mut Scratch<R>,
        dropout: Dropout,
        gradients: &mut Gradients<R>,
    ) {
        let (plan, width) = (&self.plan, self.plan.cross_width);
        let TopTape { inputs, cross, inner, hidden, .. } = &mut scratch.top;
        let d = &mut scratch.gradient;
        let rows = inputs.len() / plan.inputs;
        let layers: Vec<&[R]> = std::iter::once(cross[plan.cross.len()].as_slice())
            .chain(hidden[..plan.mlp.len()].iter().map(Vec::as_slice))
            .collect();
        let size = |i: usize| layers[i].len() / rows;
        let last = plan.mlp.len();
        let (dw, db) = gradients.pair(plan.head);
        let shape = Shape::new(rows, size(last), plan.heads);
        let current = sized(&mut d.current, rows * size(last));
        B::linear_backward(shape, layers[last], self.weight(plan.head), &[], &mut d.logits, current, dw, db);
        for (i, id) in plan.mlp.iter().enumerate().rev() {
            B::dropout(dropout.at(MLP_PLACE + i as u64), 0, &mut d.current);
            let (dw, db) = gradients.pair(*id);
            let shape = Shape::new(rows, size(i), size(i + 1));
            let next = sized(&mut d.next, rows * size(i));
            let w = self.weight(*id);
            B::linear_backward(shape, layers[i], w, layers[i + 1], &mut d.current, next, dw, db);
            std::mem::swap(&mut d.current, &mut d.next);
        }
        let base = zeroed(&mut d.base, rows * width);
        for (i, id) in plan.cross.iter().enumerate().rev() {
            let (dw, db) = gradients.pair(*id);
            let next = sized(&mut d.next, rows * width);
            let (w, inner) = (self.weight(*id), &mut inner[i]);
            B::cross_backward(width, &cross[0], &cross[i], w, inner, &d.current, base, next, dw, db);
            std::mem::swap(&mut d.current, &mut d.next);
        }
        accumulate(&mut d.current, base);
        if let Some(id) = plan.project {
            let (dw, db) = gradients.pair(id);
            let shape = Shape::new(rows, plan.inputs, width);
            let next = sized(&mut d.next, rows * plan.inputs);
            B::linear_backward(shape, inputs, self.weight(id), &[], &mut d.current, next, dw, db);
            std::mem::swap(&mut d.current, &mut d.next);
        }
    }
}

fn table_shape<'a>(side: &Side, table: &Table, entity: &'a [u32], stride: usize) -> EmbeddingShape<'a> {
    EmbeddingShape {
        dim: table.slots.dim,
        slots: table.slots.slots,
        index_stride: side.layout.categorical_width,
        index_start: table.slots.start,
        entity,
        stride,
        offset: table.offset,
    }
}

/// `chunk.surface` holds one index a row.
fn surface_shape<'a>(plan: &Plan, chunk: &'a Chunk, dim: usize, offset: usize) -> EmbeddingShape<'a> {
    let entity = chunk.identity(chunk.rows.len());
    EmbeddingShape { dim, slots: 1, index_stride: 1, index_start: 0, entity, stride: plan.inputs, offset }
}
