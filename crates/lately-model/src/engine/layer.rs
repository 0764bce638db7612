//! One layer of some candidates: attention by folded weights, feed-forward part, both norms.

use lately_kernels::lanes::{self, Activations, LANES, Shape, Start};

use super::dense::Dense;
use super::encoder::Memory;
use crate::network::Network;
use crate::plan::LayerIds;
use crate::tape::{Folded, sized};

/// Packed weights of a layer.
#[derive(Debug)]
pub(super) struct LayerWeights<W> {
    /// Queries over values; none in the first layer.
    projection: Option<Dense<W>>,
    pub(super) out_bias: Vec<f32>,
    norm1: [Vec<f32>; 2],
    pub(super) linear1: Dense<W>,
    linear2: Dense<W>,
    norm2: [Vec<f32>; 2],
}

/// Candidates that go through the layers together.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub(super) count: usize,
    pub(super) tokens: usize,
    /// Of one of them.
    pub(super) lanes: usize,
    /// Of all.
    pub(super) all: usize,
}

impl<W: Copy + Default> LayerWeights<W> {
    pub(super) fn new<F: Activations<Word = W>>(
        format: F,
        network: &Network<f32>,
        ids: LayerIds,
        folded: Option<&Folded<f32>>,
    ) -> Self {
        let d = network.plan.encoder.width;
        let both = |id: usize| [network.weight(id).to_vec(), network.weight(id + 1).to_vec()];
        let project = |f: &Folded<f32>| Dense::whole(format, &f.map, d, (2 * d, d), &f.bias);
        Self {
            projection: folded.map(project),
            out_bias: network.weight(ids.out_proj + 1).to_vec(),
            norm1: both(ids.norm1),
            linear1: Dense::of(format, network, ids.linear1),
            linear2: Dense::of(format, network, ids.linear2),
            norm2: both(ids.norm2),
        }
    }

    /// Bytes of its packed weights.
    pub(super) fn bytes(&self) -> usize {
        self.projection.iter().chain([&self.linear1, &self.linear2]).map(Dense::bytes).sum()
    }

    /// Attention over `memory.stream`, with its residual, to `memory.next`.
    pub(super) fn attend<F: Activations<Word = W>>(
        &self,
        format: F,
        d: usize,
        group: Group,
        masked: &[bool],
        memory: &mut Memory<W>,
    ) {
        let Group { tokens: n, lanes, all, .. } = group;
        let Some(projection) = &self.projection else { return };
        let Memory { stream, next, projected, probabilities, words, .. } = memory;
        let padded = |rows: usize, lanes: usize| rows.next_multiple_of(LANES) * lanes;
        let projected = sized(projected, padded(2 * d, all));
        let right = format.right(d, all, &stream[..d * all], &mut words.stream);
        let shape = Shape { rows: 2 * d, lanes: all, stride: all, out: all };
        format.product(shape, projection.packed().all(), right, Start::Bias(&projection.bias), projected);
        let query = format.right(d, all, &projected[..d * all], &mut words.more);
        let (logits, y) = (sized(probabilities, padded(n, lanes)), sized(next, padded(d, all)));
        for at in (0..all).step_by(lanes) {
            let left = format.keys(n, d, all, &right[at..], &mut words.keys);
            let shape = Shape { rows: n, lanes, stride: all, out: lanes };
            format.product(shape, left, &query[at..], Start::Zero, logits);
            lanes::softmax(n, lanes, lanes, masked, logits);
            let left = format.values(d, n, all, &projected[d * all + at..], &mut words.values);
            let shape = Shape { rows: d, lanes, stride: lanes, out: all };
            let right = format.right(n, lanes, logits, &mut words.probabilities);
            format.product(shape, left, right, Start::Residual(&stream[at..], &self.out_bias), &mut y[at..]);
        }
    }

    /// From the attention's sums in `memory.next` through both norms to `memory.stream`.
    pub(super) fn rest<F: Activations<Word = W>>(
        &self,
        format: F,
        d: usize,
        group: Group,
        memory: &mut Memory<W>,
    ) {
        let all = group.all;
        let Memory { stream, next, hidden, words, .. } = memory;
        let shape = |rows: usize| Shape { rows, lanes: all, stride: all, out: all };
        let padded = |rows: usize| rows.next_multiple_of(LANES) * all;
        lanes::norm(all, all, &self.norm1[0], &self.norm1[1], next);
        let ffn = self.linear1.outputs();
        let hidden = sized(hidden, padded(ffn));
        let right = format.right(d, all, &next[..d * all], &mut words.stream);
        format.product(
            shape(ffn),
            self.linear1.packed().all(),
            right,
            Start::Bias(&self.linear1.bias),
            hidden,
        );
        lanes::relu(hidden);
        let right = format.right(ffn, all, &hidden[..ffn * all], &mut words.more);
        let y = sized(stream, padded(d));
        let start = Start::Residual(next, &self.linear2.bias);
        format.product(shape(d), self.linear2.packed().all(), right, start, y);
        lanes::norm(all, all, &self.norm2[0], &self.norm2[1], y);
    }
}
