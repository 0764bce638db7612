//! Where activations and their gradients lie while a stretch is computed.

use lately_model::training::{EncoderIds, Stretch, TrainingPlan};

/// Sections start at 128 bytes, a line of the cache.
const ALIGNMENT: usize = 32;
/// Rows start at 8 numbers, the widest load.
const STRIDE: usize = 8;

/// A row-major matrix of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Matrix {
    /// First word.
    pub(super) at: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Numbers from row to row.
    pub(super) stride: usize,
}

/// Numbers that a row of so many takes.
pub(super) fn stride(columns: usize) -> usize {
    columns.next_multiple_of(STRIDE)
}

/// One layer of the encoder.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LayerTape {
    /// Queries, keys and values; none of the first layer.
    pub(super) qkv: Matrix,
    /// The attention's row statistics, f32: heads x tokens.
    pub(super) largest: usize,
    pub(super) context: Matrix,
    pub(super) normed1: Matrix,
    pub(super) rstd1: usize,
    /// After the first residual sum.
    pub(super) middle: Matrix,
    /// Of the feed-forward part, after ReLU and dropout.
    pub(super) hidden: Matrix,
    pub(super) normed2: Matrix,
    pub(super) rstd2: usize,
    /// The layer's output.
    pub(super) out: Matrix,
}

/// The encoder's part.
#[derive(Debug, Clone, Default)]
pub(super) struct EncoderTape {
    /// Requests' tokens, then appended candidates.
    pub(super) token: Matrix,
    pub(super) candidate: Matrix,
    /// First layer's projections of the two.
    pub(super) token_projected: Matrix,
    pub(super) own_projected: Matrix,
    /// For each encoder token its segment, and its row of `token`.
    pub(super) segment: usize,
    pub(super) gather: usize,
    /// Encoder tokens.
    pub(super) stream: Matrix,
    pub(super) branch: Matrix,
    pub(super) layers: Vec<LayerTape>,
    pub(super) pooled: Matrix,
    /// Segments x width.
    pub(super) argmax: usize,
    pub(super) sequence: Matrix,
    // Gradients, of the same shapes.
    pub(super) d_sequence: Matrix,
    pub(super) d_pooled: Matrix,
    pub(super) d_stream: Matrix,
    pub(super) d_sum: Matrix,
    pub(super) d_branch: Matrix,
    pub(super) d_context: Matrix,
    pub(super) d_hidden: Matrix,
    pub(super) d_qkv: Matrix,
    pub(super) d_token_projected: Matrix,
    pub(super) d_own_projected: Matrix,
    pub(super) d_token: Matrix,
}

/// The rate tower's part.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RateTape {
    pub(super) inputs: Matrix,
    pub(super) hidden: Matrix,
    pub(super) d_hidden: Matrix,
    pub(super) d_inputs: Matrix,
}

/// All of a stretch.
#[derive(Debug, Clone, Default)]
pub(super) struct Tape {
    pub(super) encoder: Option<EncoderTape>,
    /// Rows x the top's inputs.
    pub(super) inputs: Matrix,
    /// Input of every cross layer, and the last one's output.
    pub(super) cross: Vec<Matrix>,
    pub(super) inner: Vec<Matrix>,
    pub(super) hidden: Vec<Matrix>,
    pub(super) rate: Option<RateTape>,
    /// Rows x heads in f32, without the rate tower's, then the tower's; then their gradients in the same order.
    pub(super) logits: usize,
    pub(super) rate_logits: usize,
    pub(super) numbers: usize,
    pub(super) d_logits: Matrix,
    pub(super) d_rate: Matrix,
    pub(super) d_hidden: Vec<Matrix>,
    /// Of the cross layers' stream and of their first input.
    pub(super) d_cross: Matrix,
    pub(super) d_base: Matrix,
    pub(super) d_inputs: Matrix,
    /// All of it.
    pub(super) words: usize,
}

/// Gives out sections.
struct Sections {
    words: usize,
    /// Words that two numbers take.
    of_two: usize,
}

impl Sections {
    fn words(&mut self, words: usize) -> usize {
        let at = self.words;
        self.words += words.next_multiple_of(ALIGNMENT);
        at
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Matrix {
        let stride = stride(columns);
        Matrix { at: self.words(rows * stride / 2 * self.of_two), rows, columns, stride }
    }
}

impl Tape {
    /// Of a stretch. `split`: numbers are f32.
    pub(super) fn of(plan: &TrainingPlan, stretch: &Stretch, split: bool) -> Self {
        let mut s = Sections { words: 0, of_two: if split { 2 } else { 1 } };
        let (rows, heads) = (stretch.rows.len(), plan.heads);
        let columns = |id: usize| plan.parameters[id].columns;
        let outputs = |id: usize| plan.parameters[id].rows;
        let mut tape = Self {
            encoder: plan.encoder.as_ref().map(|e| EncoderTape::of(e, stretch, &mut s)),
            inputs: s.matrix(rows, plan.inputs),
            ..Self::default()
        };
        let first = match plan.project {
            Some(id) => s.matrix(rows, outputs(id)),
            None => tape.inputs,
        };
        tape.cross.push(first);
        for id in &plan.cross {
            tape.inner.push(s.matrix(rows, outputs(*id)));
            tape.cross.push(s.matrix(rows, outputs(*id)));
        }
        tape.hidden = plan.mlp.iter().map(|id| s.matrix(rows, outputs(*id))).collect();
        tape.d_hidden = plan.mlp.iter().map(|id| s.matrix(rows, outputs(*id))).collect();
        tape.rate = plan.rate.as_ref().map(|r| RateTape {
            inputs: s.matrix(rows, columns(r.hidden)),
            hidden: s.matrix(rows, outputs(r.hidden)),
            d_hidden: s.matrix(rows, outputs(r.hidden)),
            d_inputs: s.matrix(rows, columns(r.hidden)),
        });
        tape.logits = s.words(rows * heads);
        tape.rate_logits = s.words(rows * heads);
        tape.numbers = s.words(2 * rows * heads);
        tape.d_logits = s.matrix(rows, heads);
        tape.d_rate = s.matrix(rows, heads);
        tape.d_cross = s.matrix(rows, first.columns);
        tape.d_base = s.matrix(rows, first.columns);
        tape.d_inputs = if plan.project.is_some() { s.matrix(rows, plan.inputs) } else { tape.d_cross };
        tape.words = s.words;
        tape
    }
}

impl EncoderTape {
    fn of(e: &EncoderIds, stretch: &Stretch, s: &mut Sections) -> Self {
        let (token_rows, segments, tokens) = (stretch.token_rows, stretch.segments(), stretch.tokens());
        let (d, candidate) = (e.width, e.width - e.token);
        let own = if candidate > 0 { segments } else { 0 };
        let mut layer = |first: bool| LayerTape {
            qkv: s.matrix(if first { 0 } else { tokens }, 3 * d),
            largest: s.words(e.heads * tokens),
            context: s.matrix(tokens, d),
            normed1: s.matrix(tokens, d),
            rstd1: s.words(tokens),
            middle: s.matrix(tokens, d),
            hidden: s.matrix(tokens, e.ffn),
            normed2: s.matrix(tokens, d),
            rstd2: s.words(tokens),
            out: s.matrix(tokens, d),
        };
        let layers = (0..e.layers.len()).map(|i| layer(i == 0)).collect();
        Self {
            layers,
            token: s.matrix(token_rows, e.token),
            candidate: s.matrix(own, candidate),
            token_projected: s.matrix(token_rows, 3 * d),
            own_projected: s.matrix(own, 3 * d),
            segment: s.words(tokens),
            gather: s.words(tokens),
            stream: s.matrix(tokens, d),
            branch: s.matrix(tokens, d),
            pooled: s.matrix(segments, d),
            argmax: s.words(segments * d),
            sequence: s.matrix(segments, e.output),
            d_sequence: s.matrix(segments, e.output),
            d_pooled: s.matrix(segments, d),
            d_stream: s.matrix(tokens, d),
            d_sum: s.matrix(tokens, d),
            d_branch: s.matrix(tokens, d),
            d_context: s.matrix(tokens, d),
            d_hidden: s.matrix(tokens, e.ffn),
            d_qkv: s.matrix(tokens, 3 * d),
            d_token_projected: s.matrix(token_rows, 3 * d),
            d_own_projected: s.matrix(own, 3 * d),
            d_token: s.matrix(token_rows, e.token),
        }
    }
}
