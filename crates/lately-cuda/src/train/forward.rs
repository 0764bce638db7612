//! From a packed stretch to its logits.

use lately_model::training::Dropout;
use lately_model::training::EncoderIds;

use super::launches::{Launches, Map, Then};
use super::tape::{EncoderTape, Matrix};
use crate::driver::Driver;

/// Places of dropout in a layer, and where those of the MLP start: each place has its own mask.
pub(super) const PLACES: u64 = 4;
pub(super) const MLP_PLACE: u64 = 1 << 20;

impl<D: Driver> Launches<'_, D> {
    pub(super) fn forward(&mut self, dropout: Dropout) {
        let (plan, tape) = (self.plan, self.tape);
        if let (Some(e), Some(t)) = (&plan.encoder, &tape.encoder) {
            self.tokens(e, t);
            self.layers(e, t, dropout);
            self.pooled(e, t);
            self.spread(t.sequence, tape.inputs);
        }
        self.inputs();
        self.top(dropout);
        self.rate();
    }

    /// Requests' tokens and candidates, and the encoder's tokens of them.
    fn tokens(&mut self, e: &EncoderIds, t: &EncoderTape) {
        let packed = self.packed;
        for (i, (table, at)) in e.tables.iter().zip(&packed.token_tables).enumerate() {
            self.embed(table.table, at.indices, table.slots, t.token, 0, i > 0);
        }
        self.place(packed.token_items, e.item, t.token, e.action);
        if t.candidate.rows > 0 {
            self.place(packed.candidates, t.candidate.columns, t.candidate, 0);
        }
        self.number_tokens(t);
        self.expand(t);
    }

    fn layers(&mut self, e: &EncoderIds, t: &EncoderTape, dropout: Dropout) {
        let mut x = t.stream;
        for (i, (ids, layer)) in e.layers.iter().zip(&t.layers).enumerate() {
            let at = |place: u64| dropout.at(i as u64 * PLACES + place);
            let first = (i == 0).then_some(t);
            match first {
                Some(_) => {
                    let (token, own) = (t.token_projected, t.own_projected);
                    let of_token = Map { weight: ids.in_proj, at: 0, inputs: e.token };
                    self.linear(t.token, of_token, token, &Then::Bias(Some(ids.in_proj + 1)));
                    if own.rows > 0 {
                        let of_candidate =
                            Map { weight: ids.in_proj, at: e.token, inputs: t.candidate.columns };
                        self.linear(t.candidate, of_candidate, own, &Then::Bias(None));
                    }
                }
                None => self.linear(x, self.map(ids.in_proj), layer.qkv, &Then::Bias(Some(ids.in_proj + 1))),
            }
            self.attention(e, first, (layer.qkv, layer.context, layer.largest), at(0));
            self.linear(layer.context, self.map(ids.out_proj), t.branch, &Then::Bias(None));
            let out = (layer.normed1, layer.rstd1, layer.middle);
            self.add_norm((x, t.branch, ids.out_proj + 1), ids.norm1, out, at(1));
            self.linear(
                layer.middle,
                self.map(ids.linear1),
                layer.hidden,
                &Then::Relu(ids.linear1 + 1, at(2)),
            );
            self.linear(layer.hidden, self.map(ids.linear2), t.branch, &Then::Bias(None));
            let out = (layer.normed2, layer.rstd2, layer.out);
            self.add_norm((layer.middle, t.branch, ids.linear2 + 1), ids.norm2, out, at(3));
            x = layer.out;
        }
    }

    /// From encoded tokens to a row a segment.
    fn pooled(&mut self, e: &EncoderIds, t: &EncoderTape) {
        let encoded = t.layers.last().map_or(t.stream, |layer| layer.out);
        self.outputs(encoded, t.pooled, t.argmax, t.sequence);
        if let Some(pool) = e.pool {
            self.linear(t.pooled, self.map(pool), t.sequence, &Then::Bias(Some(pool + 1)));
            self.clear_empty(t.sequence);
        }
    }

    /// All columns of the top's inputs but the encoder's.
    fn inputs(&mut self) {
        let (plan, tape, packed) = (self.plan, self.tape, self.packed);
        let output = plan.output();
        self.place(packed.features, plan.inputs - output, tape.inputs, output);
        for (table, at) in plan.tables.iter().zip(&packed.tables) {
            self.embed(table.table, at.indices, table.slots, tape.inputs, table.offset, false);
        }
    }

    fn top(&mut self, dropout: Dropout) {
        let (plan, tape) = (self.plan, self.tape);
        if let Some(id) = plan.project {
            self.linear(tape.inputs, self.map(id), tape.cross[0], &Then::Bias(Some(id + 1)));
        }
        for (i, id) in plan.cross.iter().enumerate() {
            let (x0, x) = (tape.cross[0], tape.cross[i]);
            let then = Then::Gate(id + 1, x0, x, tape.inner[i]);
            self.linear(x, self.map(*id), tape.cross[i + 1], &then);
        }
        let mut x = self.crossed();
        for (i, (id, hidden)) in plan.mlp.iter().zip(&tape.hidden).enumerate() {
            let mask = dropout.at(MLP_PLACE + i as u64);
            self.linear(x, self.map(*id), *hidden, &Then::Relu(id + 1, mask));
            x = *hidden;
        }
        self.logits(x, self.map(plan.head), plan.head + 1, tape.logits);
    }

    /// The cross layers' output.
    pub(super) fn crossed(&self) -> Matrix {
        self.tape.cross[self.plan.cross.len()]
    }

    fn rate(&mut self) {
        let (Some(ids), Some(t)) = (&self.plan.rate, &self.tape.rate) else { return };
        self.place(self.packed.summary, ids.summary, t.inputs, 0);
        let columns = (self.tape.inputs, ids.user.start);
        self.copy_columns(columns, ids.user.len(), (t.inputs, ids.summary), false);
        let then = Then::Relu(ids.hidden + 1, Dropout::default());
        self.linear(t.inputs, self.map(ids.hidden), t.hidden, &then);
        self.logits(t.hidden, self.map(ids.head), ids.head + 1, self.tape.rate_logits);
    }
}
