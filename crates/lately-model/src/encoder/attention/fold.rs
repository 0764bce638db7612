//! Folded weights: made before a call, and their gradients taken apart after it.

use lately_kernels::Real;

use crate::Gradients;
use crate::backend::Backend;
use crate::network::Network;
use crate::tape::{Folded, at_least, sized, zeroed};

impl<R: Real> Folded<R> {
    /// All 0, of the same length.
    pub(crate) fn clear(&mut self) {
        self.map.fill(R::ZERO);
        self.bias.fill(R::ZERO);
    }
}

/// The folded weights of every layer; nothing where the encoder has several heads.
pub(crate) fn fold<R: Real, B: Backend<R>>(network: &Network<R>, folded: &mut Vec<Folded<R>>) {
    let (plan, d) = (&network.plan.encoder, network.plan.encoder.width);
    for (i, ids) in plan.layers.iter().enumerate().filter(|_| plan.folds) {
        at_least(folded, i + 1);
        let Folded { map, bias } = &mut folded[i];
        let (w, b) = network.linear(ids.in_proj);
        let out = network.weight(ids.out_proj);
        B::fold(d, w, b, out, sized(map, 2 * d * d), sized(bias, 2 * d));
    }
}

/// Room for gradients of them, all 0 where it is new.
pub(crate) fn room<R: Real>(network: &Network<R>, folded: &mut Vec<Folded<R>>) {
    let (plan, d) = (&network.plan.encoder, network.plan.encoder.width);
    let layers = if plan.folds { plan.layers.len() } else { 0 };
    folded.truncate(layers);
    at_least(folded, layers);
    for Folded { map, bias } in folded.iter_mut().filter(|f| f.bias.len() != 2 * d) {
        zeroed(map, 2 * d * d);
        zeroed(bias, 2 * d);
    }
}

/// Adds gradients of folded weights to those of the parameters.
pub(crate) fn unfold<R: Real, B: Backend<R>>(
    network: &Network<R>,
    folded: &[Folded<R>],
    gradients: &mut Gradients<R>,
) {
    let (plan, d) = (&network.plan.encoder, network.plan.encoder.width);
    for (ids, Folded { map, bias }) in plan.layers.iter().zip(folded) {
        let (w, b) = network.linear(ids.in_proj);
        let weights = (w, b, network.weight(ids.out_proj));
        let [dw, db, d_out] = gradients.three([ids.in_proj, ids.in_proj + 1, ids.out_proj]);
        B::fold_backward(d, weights, (map, bias), dw, db, d_out);
    }
}
