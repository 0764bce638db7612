//! What working memory holds, for those who must stay below a bound.

use crate::Scratch;
use crate::chunk::Chunk;
use crate::tape::{EncoderTape, GradientTape, LayerTape, TopTape};

fn held<T>(lists: &[&Vec<T>]) -> usize {
    lists.iter().map(|list| list.capacity() * size_of::<T>()).sum()
}

// Every field is named, so that a new one is not forgotten.

impl<R> Scratch<R> {
    /// Bytes that it holds: after a call, what the largest calls so far needed.
    pub fn bytes(&self) -> usize {
        let Self { chunk, encoder, top, gradient } = self;
        of_chunk(chunk) + of_encoder(encoder) + of_top(top) + of_gradient(gradient)
    }
}

fn of_chunk(chunk: &Chunk) -> usize {
    let Chunk { row, request, segment, surface, action, offsets, source, masked, identity, .. } = chunk;
    held(&[row, request, segment, surface, action, offsets, source, identity]) + held(&[masked])
}

fn of_encoder<R>(tape: &EncoderTape<R>) -> usize {
    let EncoderTape {
        token,
        candidate,
        token_qkv,
        candidate_qkv,
        layers,
        stream,
        branch,
        pooled,
        pool_out,
        argmax,
        sequence,
        scratch,
    } = tape;
    held(&[token, candidate, token_qkv, candidate_qkv, stream, branch, pooled, pool_out, sequence, scratch])
        + held(&[argmax])
        + layers.iter().map(of_layer).sum::<usize>()
}

fn of_layer<R>(tape: &LayerTape<R>) -> usize {
    let LayerTape { input, qkv, probabilities, context, normed1, rstd1, middle, hidden, normed2, rstd2 } =
        tape;
    held(&[input, qkv, probabilities, context, normed1, rstd1, middle, hidden, normed2, rstd2])
}

fn of_top<R>(tape: &TopTape<R>) -> usize {
    let TopTape { inputs, cross, inner, hidden, logits } = tape;
    let nested = [cross, inner, hidden].into_iter().flatten();
    held(&[inputs, logits]) + nested.map(|list| held(&[list])).sum::<usize>()
}

fn of_gradient<R>(tape: &GradientTape<R>) -> usize {
    let GradientTape {
        logits,
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
        qkv,
        token_qkv,
        candidate_qkv,
        token,
    } = tape;
    held(&[
        logits,
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
        qkv,
        token_qkv,
        candidate_qkv,
        token,
    ])
}
