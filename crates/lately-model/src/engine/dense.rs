//! A packed linear map, `y = W x + b`.

use std::ops::Range;

use lately_kernels::buffer::Buffer;
use lately_kernels::lanes::{Format, LANES, Packed, Shape, Start};
use lately_kernels::matrix::View;

use crate::network::Network;

/// Blocks of 16 words of the contracted dimension that pass all groups of lanes before the next ones: with 64 lanes they are
/// 40 KiB of activations, which stay in the first cache while all rows of the weight pass.
const STRETCH: usize = 7;

/// A weight by columns, each part a range of inputs.
#[derive(Debug)]
pub(super) struct Dense<W> {
    parts: Vec<(Range<usize>, Packed<W>)>,
    pub(super) bias: Vec<f32>,
}

/// One group of lanes: its activations, features x lanes, and where the result goes.
pub(super) struct Group<'a> {
    /// Lanes, and the stride of both.
    pub(super) lanes: usize,
    pub(super) x: &'a [f32],
    pub(super) y: &'a mut [f32],
}

impl<W: Copy + Default> Dense<W> {
    /// `weight`: outputs x inputs at `stride`; only the columns of `ranges` are multiplied.
    pub(super) fn new<F: Format<Word = W>>(
        format: F,
        weight: &[f32],
        stride: usize,
        outputs: usize,
        bias: &[f32],
        ranges: impl IntoIterator<Item = Range<usize>>,
    ) -> Self {
        let pack = |range: Range<usize>| {
            let view = View::rows(&weight[range.start.min(weight.len())..], stride);
            (range.clone(), format.pack(outputs, range.len(), view))
        };
        let parts = ranges.into_iter().filter(|r| !r.is_empty()).map(pack).collect();
        Self { parts, bias: bias.to_vec() }
    }

    /// All of the first `inputs` columns.
    pub(super) fn whole<F: Format<Word = W>>(
        format: F,
        weight: &[f32],
        stride: usize,
        (outputs, inputs): (usize, usize),
        bias: &[f32],
    ) -> Self {
        Self::new(format, weight, stride, outputs, bias, std::iter::once(0..inputs))
    }

    /// A linear map of a network, by the number of its weight.
    pub(super) fn of<F: Format<Word = W>>(format: F, network: &Network<f32>, id: usize) -> Self {
        let (w, b) = network.linear(id);
        let inputs = w.len() / b.len().max(1);
        Self::whole(format, w, inputs, (b.len(), inputs), b)
    }

    /// Bytes of its packed weight.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|(_, packed)| packed.bytes()).sum()
    }

    /// Multiply-adds for one lane.
    pub(super) fn multiply_adds(&self) -> usize {
        self.outputs() * self.parts.iter().map(|(range, _)| range.len()).sum::<usize>()
    }

    /// Rows of the output.
    pub(super) fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// The one part of a small map.
    pub(super) fn packed(&self) -> &Packed<W> {
        &self.parts[0].1
    }

    /// All groups. `started`: `y` holds what the sums start from; else that is the bias.
    pub(super) fn forward<F: Format<Word = W>>(
        &self,
        format: F,
        started: bool,
        groups: &mut [Group<'_>],
        memory: &mut Vec<Buffer<W>>,
    ) {
        crate::tape::at_least(memory, groups.len());
        let mut start = if started { Start::Add } else { Start::Bias(&self.bias) };
        for (range, packed) in &self.parts {
            let rights: Vec<&[W]> = groups
                .iter()
                .zip(memory.iter_mut())
                .map(|(Group { lanes, x, .. }, buffer)| {
                    format.right(range.len(), *lanes, &x[range.start * lanes..], buffer)
                })
                .collect();
            for from in (0..packed.blocks()).step_by(STRETCH) {
                let left = packed.part(from, STRETCH);
                for (Group { lanes, y, .. }, right) in groups.iter_mut().zip(&rights) {
                    let shape = Shape { rows: self.outputs(), lanes: *lanes, stride: *lanes, out: *lanes };
                    format.product(shape, left, &right[from * LANES * *lanes..], start, y);
                }
                start = Start::Add;
            }
        }
        if let Start::Bias(bias) = start {
            for group in groups {
                group.y.chunks_exact_mut(group.lanes).zip(bias).for_each(|(y, b)| y.fill(*b));
            }
        }
    }
}
