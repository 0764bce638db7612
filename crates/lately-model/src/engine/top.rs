//! Cross layers, MLP and heads.

use std::ops::Range;

use lately_features::FeatureBatch;
use lately_kernels::buffer::Buffer;
use lately_kernels::lanes::{self, Format};

use super::dense::{Dense, Group};
use crate::chunk::Chunk;
use crate::network::Network;
use crate::rate::{self, RatePlan};
use crate::tape::{at_least, sized};

/// Most rows of a group, which has a lane for each, rounded up to a multiple of 16: three vectors twice. Three matrices of
/// a cross layer of 1,456 then take 1.7 MB.
const ROWS: usize = 96;

/// Lanes of the group that begins with a row.
fn lanes_at(rows: usize, from: usize) -> usize {
    (rows - from).min(ROWS).next_multiple_of(lanes::LANES)
}

/// Packed weights of everything above the inputs.
#[derive(Debug)]
pub(super) struct TopWeights<W> {
    inputs: usize,
    /// Of the layer that sees the inputs: columns that a request's rows share, and their weights (outputs x their number).
    request: Range<usize>,
    of_request: Vec<f32>,
    project: Option<Dense<W>>,
    cross: Vec<Dense<W>>,
    mlp: Vec<Dense<W>>,
    head: Dense<W>,
    rate: Option<(RatePlan, Dense<W>, Dense<W>)>,
}

/// One matrix a group of rows.
type Matrices = Vec<Buffer<f32>>;

/// Memory of one call.
#[derive(Debug, Default)]
pub(super) struct Memory<W> {
    /// Inputs, the cross layers' first input, their current one, a product.
    inputs: Matrices,
    base: Matrices,
    current: Matrices,
    inner: Matrices,
    rate_rows: Buffer<f32>,
    /// Sums over the request's columns, with the bias, a request each.
    shared: Buffer<f32>,
    words: Vec<Buffer<W>>,
}

impl<W: Copy + Default> Memory<W> {
    pub(super) fn bytes(&self) -> usize {
        let Self { inputs, base, current, inner, rate_rows, shared, words } = self;
        let matrices = [inputs, base, current, inner].into_iter().flatten();
        let numbers = matrices.chain([rate_rows, shared]).map(Buffer::bytes).sum::<usize>();
        numbers + words.iter().map(Buffer::bytes).sum::<usize>()
    }
}

impl<W: Copy + Default> TopWeights<W> {
    pub(super) fn new<F: Format<Word = W>>(format: F, network: &Network<f32>) -> Self {
        let plan = &network.plan;
        let request = plan.request_columns();
        let whole = |id: usize| Dense::of(format, network, id);
        let first = plan.project.or(plan.cross.first().copied()).or(plan.mlp.first().copied());
        let split = |id: usize| {
            if first != Some(id) {
                return whole(id);
            }
            let (w, b) = network.linear(id);
            let ranges = [0..request.start, request.end..plan.inputs];
            Dense::new(format, w, plan.inputs, b.len(), b, ranges)
        };
        let of_request = match first {
            Some(id) => network
                .weight(id)
                .chunks_exact(plan.inputs)
                .flat_map(|w| &w[request.clone()])
                .copied()
                .collect(),
            None => Vec::new(),
        };
        let rate = plan.rate.clone().map(|r| (r.clone(), whole(r.hidden), whole(r.head)));
        Self {
            inputs: plan.inputs,
            request: if first.is_some() { request.clone() } else { 0..0 },
            of_request,
            project: plan.project.map(split),
            cross: plan.cross.iter().map(|id| split(*id)).collect(),
            mlp: plan.mlp.iter().map(|id| split(*id)).collect(),
            head: whole(plan.head),
            rate,
        }
    }

    /// Bytes of its packed weights.
    pub(super) fn bytes(&self) -> usize {
        self.maps().map(Dense::bytes).sum::<usize>() + size_of_val(&self.of_request[..])
    }

    fn maps(&self) -> impl Iterator<Item = &Dense<W>> {
        let rate = self.rate.iter().flat_map(|(_, hidden, head)| [hidden, head]);
        self.project.iter().chain(&self.cross).chain(&self.mlp).chain([&self.head]).chain(rate)
    }

    /// Multiply-adds of the products for one row.
    pub(super) fn multiply_adds(&self) -> usize {
        self.maps().map(Dense::multiply_adds).sum()
    }

    /// From the chunk's inputs (rows x inputs) to its logits, appended to `logits`.
    pub(super) fn forward<F: Format<Word = W>>(
        &self,
        format: F,
        network: &Network<f32>,
        batch: &FeatureBatch,
        chunk: &Chunk,
        rows_major: &[f32],
        memory: &mut Memory<W>,
        logits: &mut Vec<f32>,
    ) {
        let rows = chunk.rows.len();
        let groups = rows.div_ceil(ROWS);
        let Memory { inputs, base, current, inner, rate_rows, shared, words } = memory;
        for list in [&mut *inputs, base, current, inner] {
            at_least(list, groups);
        }
        lanes_of(self.inputs, rows_major, inputs);
        self.shared(chunk, rows_major, shared);
        let mut started = !self.request.is_empty();
        let mut run = |dense: &Dense<W>, from: &Matrices, to: &mut Matrices| {
            let starts = std::mem::take(&mut started).then_some((chunk, &**shared));
            map(format, dense, rows, from, to, starts, words);
        };
        if let Some(project) = &self.project {
            run(project, inputs, base);
        } else {
            for (x, y) in inputs.iter().zip(base.iter_mut()).take(groups) {
                sized(y, x.len()).copy_from_slice(x);
            }
        }
        for (x, y) in base.iter().zip(current.iter_mut()).take(groups) {
            sized(y, x.len()).copy_from_slice(x);
        }
        for cross in &self.cross {
            run(cross, current, inner);
            for ((x0, inner), x) in base.iter().zip(inner.iter()).zip(current.iter_mut()).take(groups) {
                let next = x0.len();
                gate_in_place(x0, &inner[..next], x);
            }
        }
        for layer in &self.mlp {
            run(layer, current, inner);
            for y in inner.iter_mut().take(groups) {
                lanes::relu(y);
            }
            std::mem::swap(current, inner);
        }
        run(&self.head, current, inner);
        let heads = self.head.outputs();
        let at = logits.len();
        logits.resize(at + rows * heads, 0.0);
        for (out, y) in logits[at..].chunks_mut(ROWS * heads).zip(inner.iter()) {
            let rows = out.len() / heads;
            lanes::to_rows(rows, heads, lanes_at(rows, 0), y, heads, out);
        }
        if let Some(weights) = &self.rate {
            let matrices = (rate_rows, current, inner);
            self.rate(format, weights, network, batch, chunk, rows_major, matrices, words, &mut logits[at..]);
        }
    }

    /// What the request's columns add to the first layer, with its bias: requests x outputs.
    fn shared(&self, chunk: &Chunk, rows_major: &[f32], shared: &mut Buffer<f32>) {
        let width = self.request.len();
        if width == 0 {
            return;
        }
        let first = self.project.as_ref().or(self.cross.first()).or(self.mlp.first());
        let Some(bias) = first.map(|dense| &dense.bias) else { return };
        let out = sized(shared, chunk.requests.len() * bias.len());
        let mut last = None;
        for (row, request) in rows_major.chunks_exact(self.inputs).zip(&chunk.request) {
            if last == Some(request) {
                continue;
            }
            last = Some(request);
            let at = (*request as usize - chunk.requests.start) * bias.len();
            let x = &row[self.request.clone()];
            let weights = self.of_request.chunks_exact(width).zip(bias);
            for ((w, b), out) in weights.zip(&mut out[at..at + bias.len()]) {
                *out = *b + dot(w, x);
            }
        }
    }

    /// Adds the rate tower's logits.
    fn rate<F: Format<Word = W>>(
        &self,
        format: F,
        (plan, hidden, head): &(RatePlan, Dense<W>, Dense<W>),
        network: &Network<f32>,
        batch: &FeatureBatch,
        chunk: &Chunk,
        rows_major: &[f32],
        (all, inputs, outputs): (&mut Buffer<f32>, &mut Matrices, &mut Matrices),
        words: &mut Vec<Buffer<W>>,
        logits: &mut [f32],
    ) {
        let (rows, width, heads) = (chunk.rows.len(), rate::width(network, plan), head.outputs());
        let groups = rows.div_ceil(ROWS);
        let all = sized(all, rows * width);
        rate::inputs(network, plan, batch, chunk, rows_major, all);
        lanes_of(width, all, inputs);
        map(format, hidden, rows, inputs, outputs, None, words);
        outputs.iter_mut().take(groups).for_each(|y| lanes::relu(y));
        map(format, head, rows, outputs, inputs, None, words);
        let mut more = vec![0.0; ROWS * heads];
        for (logits, y) in logits.chunks_mut(ROWS * heads).zip(inputs.iter()) {
            let more = &mut more[..logits.len()];
            let rows = logits.len() / heads;
            lanes::to_rows(rows, heads, lanes_at(rows, 0), y, heads, more);
            logits.iter_mut().zip(more).for_each(|(z, r)| *z += *r);
        }
    }
}

/// Rows x width as one matrix a group; lanes beyond the rows are 0.
fn lanes_of(width: usize, rows: &[f32], out: &mut Matrices) {
    for (rows, x) in rows.chunks(ROWS * width).zip(out) {
        let count = rows.len() / width;
        let lanes = lanes_at(count, 0);
        lanes::from_rows(count, width, width, rows, lanes, sized(x, width * lanes));
    }
}

/// One linear map of all groups.
fn map<F: Format>(
    format: F,
    dense: &Dense<F::Word>,
    rows: usize,
    from: &Matrices,
    to: &mut Matrices,
    starts: Option<(&Chunk, &[f32])>,
    words: &mut Vec<Buffer<F::Word>>,
) {
    let outputs = dense.outputs();
    let mut work: Vec<Group<'_>> = Vec::with_capacity(rows.div_ceil(ROWS));
    for ((x, y), from) in from.iter().zip(to.iter_mut()).zip((0..rows).step_by(ROWS)) {
        let lanes = lanes_at(rows, from);
        let y = sized(y, outputs.next_multiple_of(lanes::LANES) * lanes);
        if let Some((chunk, shared)) = starts {
            start(chunk, from, lanes, outputs, shared, y);
        }
        work.push(Group { lanes, x, y });
    }
    dense.forward(format, starts.is_some(), &mut work, words);
}

/// Each lane's start from its request's sums.
fn start(chunk: &Chunk, from: usize, lanes: usize, outputs: usize, shared: &[f32], y: &mut [f32]) {
    let requests = &chunk.request[from..chunk.request.len().min(from + lanes)];
    let of = |r: u32| (r as usize - chunk.requests.start) * outputs;
    let (first, one) = (of(requests[0]), requests.iter().all(|r| *r == requests[0]));
    for (m, y) in y.chunks_exact_mut(lanes).enumerate().take(outputs) {
        if one {
            y.fill(shared[first + m]);
        } else {
            y.fill(0.0);
            y.iter_mut().zip(requests).for_each(|(y, r)| *y = shared[of(*r) + m]);
        }
    }
}

/// `x = x0 * inner + x`.
fn gate_in_place(x0: &[f32], inner: &[f32], x: &mut [f32]) {
    lately_kernels::simd::wide(
        #[inline(always)]
        || {
            for ((x, x0), inner) in x.iter_mut().zip(x0).zip(inner) {
                *x += *x0 * *inner;
            }
        },
    );
}

/// In one order for every row.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const SIDE: usize = 16;
    let (a16, b16) = (a.chunks_exact(SIDE), b.chunks_exact(SIDE));
    let tail: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0f32; SIDE];
    for (x, y) in a16.zip(b16) {
        (0..SIDE).for_each(|i| sums[i] += x[i] * y[i]);
    }
    sums.iter().sum::<f32>() + tail
}
