//! How a layer's tokens attend, in three forms of the same function of the same parameters.
//!
//! `heads` is the plain one, for several heads. With one head the weights fold (see `lately_kernels::fold`): `folded`
//! projects half as much. Of the first layer, where a token is [request's ; candidate's], `shared` computes once a
//! request what its candidates have in common. Per token of d = 96 among 75 that is, in multiply-adds of the forward: 51 k,
//! 33 k and 7 k.

use lately_kernels::Real;

use super::Pass;
use crate::Gradients;
use crate::backend::Backend;
use crate::plan::LayerIds;
use crate::tape::{EncoderTape, Folded, GradientTape};

pub(super) mod fold;
mod folded;
mod heads;
mod shared;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Heads,
    Folded,
    Shared,
}

fn form<R>(pass: &Pass<'_, R>, layer: usize) -> Form {
    match pass.plan().folds {
        false => Form::Heads,
        true if layer == 0 && pass.plan().candidate() > 0 => Form::Shared,
        true => Form::Folded,
    }
}

/// A layer of the encoder: its number, where its tape is, its parameters, the place of its dropout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    pub(super) index: usize,
    pub(super) tape: usize,
    pub(super) ids: LayerIds,
    pub(super) place: u64,
}

/// From the layer's input in `tape.work.stream` to `tape.work.branch`, before the output's bias.
pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>, layer: Layer) {
    match form(pass, layer.index) {
        Form::Heads => heads::forward::<R, B>(pass, tape, layer),
        Form::Folded => folded::forward::<R, B>(pass, tape, layer),
        Form::Shared => shared::forward::<R, B>(pass, tape, layer),
    }
}

/// Whether [`backward`] wants the layer's input in `tape.work.stream`.
pub(super) fn wants_input<R>(pass: &Pass<'_, R>, layer: Layer) -> bool {
    layer.index > 0 || form(pass, 0) == Form::Folded
}

/// From `d.branch` to the parameters and, added to, `d.stream`, the gradient of the layer's input; of the first layer
/// a part goes to `d.token`.
pub(super) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    tape: &mut EncoderTape<R>,
    d: &mut GradientTape<R>,
    layer: Layer,
    gradients: &mut Gradients<R>,
) {
    match form(pass, layer.index) {
        Form::Heads => heads::backward::<R, B>(pass, tape, d, layer, gradients),
        Form::Folded => folded::backward::<R, B>(pass, tape, d, layer),
        Form::Shared => shared::backward::<R, B>(pass, tape, d, layer),
    }
}

/// Gradient of a layer's folded weights.
fn gradient<R>(d: &mut [Folded<R>], layer: Layer) -> (&mut [R], &mut [R]) {
    let Folded { map, bias } = &mut d[layer.index];
    (map, bias)
}
