//! What working memory holds, for those who must stay below a bound.

use lately_kernels::Real;
use lately_kernels::shared::Parts;

use crate::Scratch;
use crate::chunk::Chunk;
use crate::shard::{Piece, Shard};
use crate::tape::{EncoderTape, Folded, GradientTape, LayerTape, TopTape, Work};
use lately_kernels::buffer::Buffer;

fn held<T>(lists: &[&Vec<T>]) -> usize {
    lists.iter().map(|list| list.capacity() * size_of::<T>()).sum()
}

fn kept<R: Real>(buffers: &[&Buffer<R>]) -> usize {
    buffers.iter().map(|buffer| buffer.bytes()).sum()
}

// Every large field is named.

impl<R: Real> Scratch<R> {
    /// Bytes that it holds: after a call, what the largest calls so far needed.
    pub fn bytes(&self) -> usize {
        let Self { chunk, shards, top, gradient, folded, precision: _, pool: _ } = self;
        of_chunk(chunk)
            + shards.iter().map(of_shard).sum::<usize>()
            + of_top(top)
            + of_gradient(gradient)
            + of_folded(folded)
    }
}

/// Of an encoder that is computed a row at a time.
pub(crate) fn of_forward<R: Real>(chunk: &Chunk, tape: &EncoderTape<R>, piece: &Piece<R>) -> usize {
    of_chunk(chunk) + of_encoder(tape) + of_piece(piece)
}

fn of_piece<R: Real>(Piece { chunk, tape }: &Piece<R>) -> usize {
    of_chunk(chunk) + of_encoder(tape)
}

fn of_shard<R: Real>(shard: &Shard<R>) -> usize {
    let Shard { pieces, used: _, work, d, gradients } = shard;
    pieces.iter().map(of_piece).sum::<usize>() + of_work(work) + of_gradient(d) + gradients.bytes()
}

fn of_chunk(chunk: &Chunk) -> usize {
    let Chunk { rows: _, requests: _, token, starts, row, request, segment, surface, .. } = chunk;
    let Chunk { action, token_surface, token_age, gather, offsets, source, masked, identity, .. } = chunk;
    held(&[token, starts, row, request, segment, surface, action, token_surface, token_age])
        + held(&[gather, offsets, source, identity])
        + held(&[masked])
}

fn of_encoder<R: Real>(tape: &EncoderTape<R>) -> usize {
    let EncoderTape { token, candidate, shared, layers, unit, pooled, argmax, work } = tape;
    kept(&[token, candidate, pooled])
        + argmax.bytes()
        + unit.bytes()
        + of_parts(shared)
        + of_work(work)
        + layers.iter().map(of_layer).sum::<usize>()
}

fn of_work<R: Real>(work: &Work<R>) -> usize {
    let Work {
        added,
        token_projected,
        candidate_projected,
        stream,
        branch,
        middle,
        pool_out,
        sequence,
        scratch,
    } = work;
    kept(&[added, token_projected, candidate_projected, stream, branch, middle, pool_out, sequence])
        + held(&[scratch])
}

fn of_layer<R: Real>(tape: &LayerTape<R>) -> usize {
    let LayerTape { projected, probabilities, context, normed1, rstd1, hidden, normed2, rstd2 } = tape;
    kept(&[projected, probabilities, context, normed1, rstd1, hidden, normed2, rstd2])
}

fn of_parts<R: Real>(parts: &Parts<Buffer<R>>) -> usize {
    let Parts { token_query, token_key, token_value, query, value } = parts;
    kept(&[token_query, token_key, token_value, query, value])
}

pub(crate) fn of_folded<R: Real>(layers: &[Folded<R>]) -> usize {
    layers.iter().map(|Folded { map, bias }| kept(&[map, bias])).sum()
}

fn of_top<R: Real>(tape: &TopTape<R>) -> usize {
    let TopTape { rows_major, inputs, cross, inner, hidden, outputs, logits, order, rate } = tape;
    let nested = [cross, inner, hidden].into_iter().flatten();
    rate.bytes()
        + kept(&[rows_major, inputs, outputs, logits, order])
        + nested.map(Buffer::bytes).sum::<usize>()
}

fn of_gradient<R: Real>(tape: &GradientTape<R>) -> usize {
    let GradientTape {
        logits,
        rate,
        rate_hidden,
        rate_inputs,
        rows_major,
        current,
        next,
        base,
        sequence,
        unit,
        pool,
        pooled,
        stream,
        sum,
        branch,
        middle,
        hidden,
        context,
        projected,
        token_projected,
        candidate_projected,
        shared,
        token,
        folded,
    } = tape;
    let lists = [
        logits,
        rate,
        rate_hidden,
        rate_inputs,
        rows_major,
        current,
        next,
        base,
        sequence,
        pool,
        pooled,
        stream,
        sum,
        branch,
        middle,
        hidden,
        context,
        projected,
        token_projected,
        candidate_projected,
        token,
    ];
    kept(&lists) + unit.bytes() + of_parts(shared) + of_folded(folded)
}
