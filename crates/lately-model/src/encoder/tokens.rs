//! The tokens that all encoders share: a request's once, and what the candidate adds to them.

use lately_features::Schema;
use lately_features::schema::Polarity;
use lately_kernels::Real;
use lately_kernels::columns::{self, Block};
use lately_kernels::embedding::Shape as EmbeddingShape;
use lately_kernels::expand::Segments;

use super::{EncoderPlan, Pass};
use crate::Gradients;
use crate::backend::Backend;
use crate::chunk::Chunk;
use crate::config::{ModelConfig, SequenceActions};
use crate::plan::{Builder, Start};
use crate::tape::{EncoderTape, sized};

/// Declares the table of action types; an encoder over tokens whose output is as wide as they are. With `appended` the
/// candidate is one of them.
pub(super) fn plan(b: &mut Builder, config: &ModelConfig, schema: &Schema, appended: bool) -> EncoderPlan {
    let typed = config.action_types || config.compatibility;
    let types = if typed { schema.actions.len() } else { 1 };
    // At about the deviation that the normaliser gives to item embeddings.
    let (shape, start) = (vec![types + usize::from(appended), config.action_dim], Start::Normal(0.5));
    let action_table = b.push("transact.action.weight".into(), shape, start, false);
    let token = config.action_dim + schema.item_embedding_dim();
    EncoderPlan {
        per_candidate: appended,
        appended,
        left_out: left_out(config, schema),
        typed,
        token,
        width: token,
        output: token,
        action_table,
        candidate_row: types as u32,
        ..EncoderPlan::default()
    }
}

fn left_out(config: &ModelConfig, schema: &Schema) -> Vec<bool> {
    match config.sequence_actions {
        SequenceActions::Positive if !config.compatibility => {
            schema.actions.iter().map(|a| a.polarity != Polarity::Positive).collect()
        }
        _ => Vec::new(),
    }
}

pub(super) fn segments(chunk: &Chunk) -> Segments<'_> {
    Segments { offsets: &chunk.offsets, source: &chunk.source }
}

/// A linear map of every segment's tokens, T x width, from those of the requests' tokens and of the candidates; `c` is
/// empty where the candidate is no part of a token.
pub(super) fn spread<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    width: usize,
    a: &[R],
    c: &[R],
    out: &mut [R],
) {
    match gathered(pass, width, width) {
        Some(block) => columns::place(block, a, out),
        None => B::expand_add(segments(pass.chunk), width, a, c, out),
    }
}

/// Gradient of [`spread`] and [`expand`] for the requests' tokens: the first `width` of `stride` columns, added to
/// `da`.
pub(super) fn collect<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    (stride, width): (usize, usize),
    d_out: &[R],
    da: &mut [R],
) {
    match gathered(pass, stride, width) {
        Some(block) => columns::collect(block, d_out, da),
        None => B::expand_collect(segments(pass.chunk), stride, width, d_out, da),
    }
}

/// Gradient of [`spread`] for the candidates' part.
pub(super) fn sum<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, width: usize, d_out: &[R], dc: &mut [R]) {
    B::expand_sum(segments(pass.chunk), width, d_out, dc);
}

/// With appended candidates a segment's tokens do not stand side by side.
fn gathered<'a, R>(pass: &Pass<'a, R>, stride: usize, width: usize) -> Option<Block<'a>> {
    let plan = &pass.network.plan.encoder;
    plan.appended.then_some(Block { source: &pass.chunk.gather, width, stride, offset: 0 })
}

fn actions<'a, R>(pass: &Pass<'a, R>) -> EmbeddingShape<'a> {
    let entity = pass.chunk.identity(pass.chunk.token_rows());
    let (dim, stride) = (pass.network.config.action_dim, pass.network.plan.encoder.token);
    EmbeddingShape { dim, slots: 1, index_stride: 1, index_start: 0, entity, stride, offset: 0 }
}

/// `tape.token`: [action embedding ; item embedding] of the requests' tokens, then of appended candidates.
pub(super) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>) {
    let (network, plan, chunk) = (pass.network, pass.plan(), pass.chunk);
    let token = sized(&mut tape.token, chunk.token_rows() * plan.token);
    B::embedding(actions(pass), network.weight(plan.action_table), &chunk.action, token);
    let (width, offset) = (network.plan.item_dim, network.config.action_dim);
    let item = Block { source: &chunk.token, width, stride: plan.token, offset };
    let (token, candidate) = token.split_at_mut(chunk.token.len() * plan.token);
    columns::scaled(item, &pass.batch.token_item, network.embedding_scale(), token);
    let item = Block { source: &chunk.row, ..item };
    columns::scaled(item, &pass.batch.candidate, network.embedding_scale(), candidate);
}

/// From the gradient of `tape.token` to the tables.
pub(super) fn backward<R: Real, B: Backend<R>>(
    pass: &Pass<'_, R>,
    d_token: &[R],
    gradients: &mut Gradients<R>,
) {
    let (table, mut touch) = gradients.table(pass.plan().action_table);
    let padding = pass.network.config.compatibility;
    B::embedding_backward(actions(pass), &pass.chunk.action, d_token, padding, table, &mut touch);
}

/// `tape.candidate`: the candidates' item embeddings, segments x `width`; nothing where that is 0.
pub(super) fn candidates<R: Real>(pass: &Pass<'_, R>, width: usize, tape: &mut EncoderTape<R>) {
    let rows = &pass.chunk.row[..if width > 0 { pass.chunk.row.len() } else { 0 }];
    let candidate = sized(&mut tape.candidate, rows.len() * width);
    if width > 0 {
        let block = Block { source: rows, width, stride: width, offset: 0 };
        columns::scaled(block, &pass.batch.candidate, pass.network.embedding_scale(), candidate);
    }
}

/// `tape.stream`: the tokens of every segment, with the candidate where it is fused.
pub(super) fn expand<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>) {
    let (plan, chunk) = (pass.plan(), pass.chunk);
    candidates(pass, plan.candidate(), tape);
    let stream = sized(&mut tape.stream, chunk.expanded() * plan.width);
    match gathered(pass, plan.token, plan.token) {
        Some(block) => columns::place(block, &tape.token, stream),
        None => {
            let widths = (plan.token, plan.candidate());
            B::expand(segments(chunk), widths, &tape.token, &tape.candidate, stream);
        }
    }
}
