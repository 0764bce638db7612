//! From the logits' gradients, in f32 on the tape, to those of all parameters.

use lately_model::training::Dropout;
use lately_model::training::EncoderIds;

use super::forward::PLACES;
use super::launches::{Back, Launches, Map};
use super::tape::{EncoderTape, LayerTape};
use crate::driver::Driver;

impl<D: Driver> Launches<'_, D> {
    pub(super) fn backward(&mut self, dropout: Dropout) {
        let (plan, tape) = (self.plan, self.tape);
        let numbers = tape.d_logits.rows * plan.heads;
        self.place_own(tape.numbers, tape.d_logits);
        self.place_own(tape.numbers + numbers, tape.d_rate);
        self.top_backward(dropout.rate);
        self.rate_backward();
        for (table, at) in plan.tables.iter().zip(&self.packed.tables) {
            self.collect_table(table.table, at.back, tape.d_inputs, table.offset);
        }
        if let (Some(e), Some(t)) = (&plan.encoder, &tape.encoder) {
            self.collect_rows(tape.d_inputs, t.d_sequence);
            self.pooled_backward(e, t);
            self.layers_backward(e, t, dropout);
        }
    }

    fn top_backward(&mut self, rate: f32) {
        let (plan, tape) = (self.plan, self.tape);
        // From the last map down: each takes the gradient of its output and gives that of its input.
        let mut dy = tape.d_logits;
        let maps: Vec<usize> = plan.mlp.iter().copied().chain([plan.head]).collect();
        for (i, id) in maps.into_iter().enumerate().rev() {
            let map = self.map(id);
            let x = if i == 0 { self.crossed() } else { tape.hidden[i - 1] };
            self.weight_gradient(dy, x, map, Some(id + 1));
            if i == 0 {
                self.input_gradient(dy, map, tape.d_cross, &Back::Store);
            } else {
                self.input_gradient(dy, map, tape.d_hidden[i - 1], &Back::Relu(x, rate));
                dy = tape.d_hidden[i - 1];
            }
        }
        for (i, id) in plan.cross.iter().enumerate().rev() {
            let last = i + 1 == plan.cross.len();
            self.gate_backward(tape.cross[0], tape.inner[i], tape.d_cross, tape.d_base, last);
            self.weight_gradient(tape.inner[i], tape.cross[i], self.map(*id), Some(id + 1));
            self.input_gradient(tape.inner[i], self.map(*id), tape.d_cross, &Back::Add);
        }
        if !plan.cross.is_empty() {
            self.copy_columns((tape.d_base, 0), tape.d_base.columns, (tape.d_cross, 0), true);
        }
        if let Some(id) = plan.project {
            self.weight_gradient(tape.d_cross, tape.inputs, self.map(id), Some(id + 1));
            self.input_gradient(tape.d_cross, self.map(id), tape.d_inputs, &Back::Store);
        }
    }

    fn rate_backward(&mut self) {
        let (Some(ids), Some(t)) = (&self.plan.rate, &self.tape.rate) else { return };
        let d_rate = self.tape.d_rate;
        self.weight_gradient(d_rate, t.hidden, self.map(ids.head), Some(ids.head + 1));
        self.input_gradient(d_rate, self.map(ids.head), t.d_hidden, &Back::Relu(t.hidden, 0.0));
        self.weight_gradient(t.d_hidden, t.inputs, self.map(ids.hidden), Some(ids.hidden + 1));
        self.input_gradient(t.d_hidden, self.map(ids.hidden), t.d_inputs, &Back::Store);
        let user = (self.tape.d_inputs, ids.user.start);
        self.copy_columns((t.d_inputs, ids.summary), ids.user.len(), user, true);
    }

    fn pooled_backward(&mut self, e: &EncoderIds, t: &EncoderTape) {
        if let Some(pool) = e.pool {
            self.clear_empty(t.d_sequence);
            let map = self.map(pool);
            self.weight_gradient(t.d_sequence, t.pooled, map, Some(pool + 1));
            self.input_gradient(t.d_sequence, map, t.d_pooled, &Back::Store);
        }
        self.outputs_backward(t);
    }

    fn layers_backward(&mut self, e: &EncoderIds, t: &EncoderTape, dropout: Dropout) {
        for (i, layer) in t.layers.iter().enumerate().rev() {
            let at = |place: u64| dropout.at(i as u64 * PLACES + place);
            self.layer_backward(e, t, i, layer, at);
        }
        // Of the tokens: the first layer's residual, and what its projection added to `d_token`.
        for (table, at) in e.tables.iter().zip(&self.packed.token_tables) {
            self.collect_table(table.table, at.back, t.d_token, 0);
        }
    }

    /// From `d_stream` of a layer's output to that of its input; of the first one to `d_token`.
    fn layer_backward(
        &mut self,
        e: &EncoderIds,
        t: &EncoderTape,
        index: usize,
        layer: &LayerTape,
        at: impl Fn(u64) -> Dropout,
    ) {
        let ids = &e.layers[index];
        let residual = (t.d_sum, t.d_branch);
        let norm = (t.d_stream, layer.normed2, layer.rstd2);
        self.add_norm_backward(norm, (ids.norm2, ids.linear2 + 1), residual, at(3));
        self.weight_gradient(t.d_branch, layer.hidden, self.map(ids.linear2), None);
        self.input_gradient(
            t.d_branch,
            self.map(ids.linear2),
            t.d_hidden,
            &Back::Relu(layer.hidden, at(2).rate),
        );
        self.weight_gradient(t.d_hidden, layer.middle, self.map(ids.linear1), Some(ids.linear1 + 1));
        self.input_gradient(t.d_hidden, self.map(ids.linear1), t.d_sum, &Back::Add);
        let residual = (t.d_stream, t.d_branch);
        let norm = (t.d_sum, layer.normed1, layer.rstd1);
        self.add_norm_backward(norm, (ids.norm1, ids.out_proj + 1), residual, at(1));
        self.weight_gradient(t.d_branch, layer.context, self.map(ids.out_proj), None);
        self.input_gradient(t.d_branch, self.map(ids.out_proj), t.d_context, &Back::Store);
        let first = (index == 0).then_some(t);
        let forward = (layer.qkv, layer.context, layer.largest);
        self.attention_backward(e, first, forward, (t.d_context, t.d_qkv), at(0));
        if let Some(before) = index.checked_sub(1) {
            let map = self.map(ids.in_proj);
            self.weight_gradient(t.d_qkv, t.layers[before].out, map, Some(ids.in_proj + 1));
            self.input_gradient(t.d_qkv, map, t.d_stream, &Back::Add);
            return;
        }
        // Sums over the candidates come before the products, as in the forward.
        self.collect_tokens(t.d_qkv, t.d_token_projected);
        let map = Map { weight: ids.in_proj, at: 0, inputs: e.token };
        self.weight_gradient(t.d_token_projected, t.token, map, Some(ids.in_proj + 1));
        self.collect_tokens(t.d_stream, t.d_token);
        self.input_gradient(t.d_token_projected, map, t.d_token, &Back::Add);
        if t.d_own_projected.rows > 0 {
            self.collect_segments(t.d_qkv, t.d_own_projected);
            let map = Map { weight: ids.in_proj, at: e.token, inputs: t.candidate.columns };
            self.weight_gradient(t.d_own_projected, t.candidate, map, None);
        }
    }
}
