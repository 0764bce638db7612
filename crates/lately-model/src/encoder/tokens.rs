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
use crate::tape::{EncoderTape, accumulate, sized};

/// Declares the table of action types; an encoder over tokens whose output is as wide as they are. With `appended` the
/// candidate is one of them.
pub(super) fn plan(b: &mut Builder, config: &ModelConfig, schema: &Schema, appended: bool) -> EncoderPlan {
    let typed = config.action_types || config.compatibility;
    let types = if typed { schema.actions.len() } else { 1 };
    let wanted = config.multi_action && config.action_types && !config.compatibility;
    let multi = wanted && types > 1;
    let rows = types + usize::from(appended || multi);
    // At about the deviation that the normaliser gives to item embeddings.
    let (shape, start) = (vec![rows, config.action_dim], Start::Normal(0.5));
    let action_table = b.push("transact.action.weight".into(), shape, start, false);
    let mut added = |name: &str, rows: usize| {
        let shape = vec![rows, config.action_dim];
        b.push(format!("transact.{name}.weight"), shape, Start::Normal(0.05), false)
    };
    let on = !config.compatibility;
    let surface_table = (config.token_surface && on).then(|| added("surface", schema.surfaces.len() + 1));
    let age_table =
        (config.age_buckets > 0 && on).then(|| (added("age", config.age_buckets), config.age_buckets));
    let token = config.action_dim + schema.item_embedding_dim();
    EncoderPlan {
        per_candidate: appended,
        appended,
        left_out: left_out(config, schema),
        typed,
        slots: if multi { types } else { 1 },
        token,
        width: token,
        output: token,
        action_table,
        candidate_row: if multi { 0 } else { types as u32 },
        surface_table,
        age_table,
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

/// Rows of a table of width `action_dim` for all of `tape.token`, each of the indices in `slots`.
fn rows<'a, R>(pass: &Pass<'a, R>, slots: usize, stride: usize) -> EmbeddingShape<'a> {
    let entity = pass.chunk.identity(pass.chunk.token_rows());
    let dim = pass.network.config.action_dim;
    EmbeddingShape { dim, slots, index_stride: slots, index_start: 0, entity, stride, offset: 0 }
}

/// The tables that are added to the action part, with their indices.
fn added<'a, R>(pass: &Pass<'a, R>) -> impl Iterator<Item = (usize, &'a [u32])> + use<'a, R> {
    let (plan, chunk) = (&pass.network.plan.encoder, pass.chunk);
    let surface = plan.surface_table.map(|id| (id, &chunk.token_surface[..]));
    surface.into_iter().chain(plan.age_table.map(|(id, _)| (id, &chunk.token_age[..])))
}

/// `tape.token`: [action part ; item embedding] of the requests' tokens, then of appended candidates.
pub(crate) fn forward<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>) {
    let (network, plan, chunk) = (pass.network, pass.plan(), pass.chunk);
    let token = sized(&mut tape.token, chunk.token_rows() * plan.token);
    let shape = rows(pass, plan.slots, plan.token);
    B::embedding(shape, network.weight(plan.action_table), &chunk.action, token);
    let (width, offset) = (network.plan.item_dim, network.config.action_dim);
    for (table, indices) in added(pass) {
        let part = sized(&mut tape.work.added, chunk.token_rows() * offset);
        B::embedding(rows(pass, 1, offset), network.weight(table), indices, part);
        for (token, part) in token.chunks_exact_mut(plan.token).zip(part.chunks_exact(offset)) {
            accumulate(&mut token[..offset], part);
        }
    }
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
    let (plan, padding) = (pass.plan(), pass.network.config.compatibility);
    let mut scatter = |id, slots, indices: &[u32]| {
        let (table, mut touch) = gradients.table(id);
        B::embedding_backward(rows(pass, slots, plan.token), indices, d_token, padding, table, &mut touch);
    };
    scatter(plan.action_table, plan.slots, &pass.chunk.action);
    added(pass).for_each(|(id, indices)| scatter(id, 1, indices));
}

/// `tape.candidate`: the candidates' item embeddings, segments x `width`; nothing where that is 0.
pub(crate) fn candidates<R: Real>(pass: &Pass<'_, R>, width: usize, tape: &mut EncoderTape<R>) {
    let rows = &pass.chunk.row[..if width > 0 { pass.chunk.row.len() } else { 0 }];
    let candidate = sized(&mut tape.candidate, rows.len() * width);
    if width > 0 {
        let block = Block { source: rows, width, stride: width, offset: 0 };
        columns::scaled(block, &pass.batch.candidate, pass.network.embedding_scale(), candidate);
    }
}

/// `tape.work.stream`: the tokens of every segment, with the candidate where it is fused.
pub(super) fn expand<R: Real, B: Backend<R>>(pass: &Pass<'_, R>, tape: &mut EncoderTape<R>) {
    let (plan, chunk) = (pass.plan(), pass.chunk);
    candidates(pass, plan.candidate(), tape);
    let stream = sized(&mut tape.work.stream, chunk.expanded() * plan.width);
    match gathered(pass, plan.token, plan.token) {
        Some(block) => columns::place(block, &tape.token, stream),
        None => {
            let widths = (plan.token, plan.candidate());
            B::expand(segments(chunk), widths, &tape.token, &tape.candidate, stream);
        }
    }
}
