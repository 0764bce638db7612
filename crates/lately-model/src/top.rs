//! Cross layers, MLP and heads, forward and backward, on feature-major activations: a matrix of features x rows.
//!
//! Every layer is cut into tiles of its outputs, backward also of its inputs, and threads share the tiles. Each number
//! is made by one tile in one order, so no result depends on the number of threads; each weight's gradient is added to
//! in place, so that none is summed over threads.

use lately_kernels::dense::Shape;
use lately_kernels::parallel::Pool;
use lately_kernels::{Dropout, Real};

use crate::Gradients;
use crate::backend::Backend;
use crate::network::Network;
use crate::tape::{GradientTape, TopTape, at_least, sized, zeroed};

/// Outputs of a tile: a multiple of the products' register tiles (48 x 8 and such), large enough that packing the other
/// factor is little beside the product (a training step took 5 % less than with 192), small enough that 1,456 outputs
/// make four tiles.
const TILE: usize = 384;
/// Places of dropout in the MLP start here.
const MLP_PLACE: u64 = 1 << 20;

/// Cuts a matrix of `width` numbers a feature into tiles.
fn tiles<R>(x: &mut [R], width: usize) -> std::slice::ChunksMut<'_, R> {
    x.chunks_mut((TILE * width).max(1))
}

/// The same part of a matrix whose features are `width` wide.
fn part<R>(x: &[R], tile: usize, width: usize) -> &[R] {
    let start = (tile * TILE * width).min(x.len());
    &x[start..(start + TILE * width).min(x.len())]
}

impl<R: Real> Network<R> {
    /// From the rows' inputs (rows x inputs, row-major, in `rows_major`) to `top.logits` (rows x heads).
    pub(crate) fn top<B: Backend<R>>(
        &self,
        rows: usize,
        top: &mut TopTape<R>,
        dropout: Dropout,
        pool: &Pool,
    ) {
        let (plan, width) = (&self.plan, self.plan.cross_width);
        let TopTape { rows_major, inputs, cross, inner, hidden, outputs, logits, .. } = top;
        at_least(cross, plan.cross.len() + 1);
        at_least(inner, plan.cross.len());
        at_least(hidden, plan.mlp.len());
        let inputs = sized(inputs, rows * plan.inputs);
        B::transpose(rows, plan.inputs, rows_major, inputs);
        match plan.project {
            Some(id) => {
                let out = sized(&mut cross[0], rows * width);
                self.dense::<B>(id, rows, inputs, false, out, pool, |_, _| {});
            }
            None => sized(&mut cross[0], rows * width).copy_from_slice(inputs),
        }
        for (i, id) in plan.cross.iter().enumerate() {
            let (before, after) = cross.split_at_mut(i + 1);
            let inner = sized(&mut inner[i], rows * width);
            self.cross_layer::<B>(
                *id,
                rows,
                &before[0],
                &before[i],
                inner,
                sized(&mut after[0], rows * width),
                pool,
            );
        }
        let mut x = &cross[plan.cross.len()];
        for (i, (id, hidden)) in plan.mlp.iter().zip(hidden).enumerate() {
            let mask = dropout.at(MLP_PLACE + i as u64);
            let out = sized(hidden, rows * self.outputs(*id));
            self.dense::<B>(*id, rows, x, true, out, pool, |tile, y| {
                B::dropout(mask, (tile * TILE * rows) as u32, y);
            });
            x = hidden;
        }
        let outputs = sized(outputs, rows * plan.heads);
        self.dense::<B>(plan.head, rows, x, false, outputs, pool, |_, _| {});
        B::transpose(plan.heads, rows, outputs, sized(logits, rows * plan.heads));
    }

    fn outputs(&self, id: usize) -> usize {
        self.parameters[id + 1].data.len()
    }

    /// One linear map; `after` sees each finished tile.
    fn dense<B: Backend<R>>(
        &self,
        id: usize,
        rows: usize,
        x: &[R],
        relu: bool,
        out: &mut [R],
        pool: &Pool,
        after: impl Fn(usize, &mut [R]) + Sync,
    ) {
        let (w, b) = self.linear(id);
        let inputs = w.len() / b.len().max(1);
        pool.each(tiles(out, rows).enumerate(), |(tile, y)| {
            let (w, b) = (part(w, tile, inputs), part(b, tile, 1));
            B::dense(Shape { rows, inputs, outputs: b.len() }, x, w, b, relu, y);
            after(tile, y);
        });
    }

    fn cross_layer<B: Backend<R>>(
        &self,
        id: usize,
        rows: usize,
        x0: &[R],
        x: &[R],
        inner: &mut [R],
        y: &mut [R],
        pool: &Pool,
    ) {
        let ((w, b), width) = (self.linear(id), self.plan.cross_width);
        pool.each(tiles(inner, rows).zip(tiles(y, rows)).enumerate(), |(tile, (inner, y))| {
            let (w, b) = (part(w, tile, width), part(b, tile, 1));
            B::dense(Shape { rows, inputs: width, outputs: b.len() }, x, w, b, false, inner);
            B::gate(part(x0, tile, rows), inner, part(x, tile, rows), y);
        });
    }

    /// From `d.logits` to the parameters, and to `d.rows_major`, the gradient of the rows' inputs (rows x inputs).
    pub(crate) fn top_backward<B: Backend<R>>(
        &self,
        rows: usize,
        top: &mut TopTape<R>,
        d: &mut GradientTape<R>,
        dropout: Dropout,
        gradients: &mut Gradients<R>,
        pool: &Pool,
    ) {
        let (plan, width) = (&self.plan, self.plan.cross_width);
        let TopTape { inputs, cross, inner, hidden, .. } = top;
        let x_of = |i: usize| if i == 0 { &cross[plan.cross.len()] } else { &hidden[i - 1] };
        B::transpose(rows, plan.heads, &d.logits, sized(&mut d.current, rows * plan.heads));
        let last = plan.mlp.len();
        self.dense_backward::<B>(plan.head, rows, x_of(last), d, gradients, pool);
        for (i, id) in plan.mlp.iter().enumerate().rev() {
            let mask = dropout.at(MLP_PLACE + i as u64);
            pool.each(tiles(&mut d.current, rows).enumerate(), |(tile, dy)| {
                B::dropout(mask, (tile * TILE * rows) as u32, dy);
                B::relu_backward(part(&hidden[i], tile, rows), dy);
            });
            self.dense_backward::<B>(*id, rows, x_of(i), d, gradients, pool);
        }
        zeroed(&mut d.base, rows * width);
        for (i, id) in plan.cross.iter().enumerate().rev() {
            self.cross_backward::<B>(*id, rows, &cross[0], &cross[i], &mut inner[i], d, gradients, pool);
        }
        crate::tape::accumulate(&mut d.current, &d.base);
        if let Some(id) = plan.project {
            self.dense_backward::<B>(id, rows, inputs, d, gradients, pool);
        }
        B::transpose(plan.inputs, rows, &d.current, sized(&mut d.rows_major, rows * plan.inputs));
    }

    /// Gradients of [`Network::dense`] from `d.current`, which becomes that of `x`.
    fn dense_backward<B: Backend<R>>(
        &self,
        id: usize,
        rows: usize,
        x: &[R],
        d: &mut GradientTape<R>,
        gradients: &mut Gradients<R>,
        pool: &Pool,
    ) {
        let dx = sized(&mut d.next, x.len());
        self.products_backward::<B>(id, rows, x, &d.current, dx, gradients, pool, |_, _| {});
        std::mem::swap(&mut d.current, &mut d.next);
    }

    /// Both products of a linear map's backward; `after` sees each finished tile of `dx`.
    fn products_backward<B: Backend<R>>(
        &self,
        id: usize,
        rows: usize,
        x: &[R],
        dy: &[R],
        dx: &mut [R],
        gradients: &mut Gradients<R>,
        pool: &Pool,
        after: impl Fn(usize, &mut [R]) + Sync,
    ) {
        let (w, b) = self.linear(id);
        let (inputs, outputs) = (w.len() / b.len().max(1), b.len());
        let (dw, db) = gradients.pair(id);
        // One list of both kinds of tiles: threads do not wait between them.
        let weights =
            tiles(dw, inputs).zip(tiles(db, 1)).enumerate().map(|(tile, dw)| (tile, Some(dw), None));
        let inputs_tiles = tiles(dx, rows).enumerate().map(|(tile, dx)| (tile, None, Some(dx)));
        let all: Vec<_> = weights.chain(inputs_tiles).collect();
        pool.each(all.into_iter(), |(tile, weight, input)| {
            if let Some((dw, db)) = weight {
                B::dense_weight(Shape { rows, inputs, outputs: db.len() }, x, part(dy, tile, rows), dw, db);
            }
            if let Some(dx) = input {
                let start = tile * TILE;
                let range = start..(start + TILE).min(inputs);
                B::dense_input(Shape { rows, inputs, outputs }, range, w, dy, dx);
                after(tile, dx);
            }
        });
    }

    fn cross_backward<B: Backend<R>>(
        &self,
        id: usize,
        rows: usize,
        x0: &[R],
        x: &[R],
        inner: &mut [R],
        d: &mut GradientTape<R>,
        gradients: &mut Gradients<R>,
        pool: &Pool,
    ) {
        let both = tiles(inner, rows).zip(tiles(&mut d.base, rows)).enumerate();
        pool.each(both, |(tile, (inner, dx0))| {
            B::gate_backward(part(x0, tile, rows), inner, part(&d.current, tile, rows), dx0);
        });
        let (dx, current) = (sized(&mut d.next, x.len()), &d.current);
        self.products_backward::<B>(id, rows, x, inner, dx, gradients, pool, |tile, dx| {
            crate::tape::accumulate(dx, part(current, tile, rows));
        });
        std::mem::swap(&mut d.current, &mut d.next);
    }
}
