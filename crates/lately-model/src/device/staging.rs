//! The numbers of a batch before anything is multiplied: a request's once, an item's when it is asked for.

use std::ops::Range;

use lately_features::FeatureBatch;
use lately_kernels::Dropout;
use lately_kernels::buffer::Buffer;
use lately_kernels::columns::{self, Block};
use lately_kernels::linear::Shape;

use crate::backend::{Backend, Cpu};
use crate::chunk::{Chunk, Limits};
use crate::config::Encoder;
use crate::encoder::{Pass, tokens};
use crate::network::Network;
use crate::rate::{self, RatePlan};
use crate::tape::{EncoderTape, sized};
use crate::{Model, affinity};

/// Memory of [`Staging::fill`]; it grows to what the largest call needs and is then reused.
#[derive(Debug, Default)]
pub struct Staging {
    chunk: Chunk,
    tape: EncoderTape<f32>,
    kinds: Vec<TokenKind>,
    columns: Buffer<f32>,
    rate: [Buffer<f32>; 3],
    requests: Vec<StagedRequest>,
    /// The requests' places in the batch.
    places: Vec<u32>,
}

/// A request of a [`Staged`] stretch of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedRequest {
    /// Its rows, from the first one of the stretch.
    pub rows: Range<usize>,
    /// Its tokens among `Staged::tokens`.
    pub tokens: Range<usize>,
    /// Its tokens among `Staged::masked`; empty where none is masked.
    pub masked: Range<usize>,
}

/// What a token counts as in the affinity block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenKind {
    /// Type of its action.
    pub action: u8,
    /// Whether it is of this sitting.
    pub recent: bool,
}

/// The requests of some rows of a batch, and what an engine multiplies for them.
#[derive(Debug)]
pub struct Staged<'a> {
    /// Those that have rows, in order.
    pub requests: &'a [StagedRequest],
    /// Tokens x token width: [action ; item]. None where there is no transformer.
    pub tokens: &'a [f32],
    /// One a token; none where there is no affinity block.
    pub kinds: &'a [TokenKind],
    /// Whether a token may not be looked at.
    pub masked: &'a [bool],
    /// Requests x the request's columns of the top's inputs.
    pub columns: &'a [f32],
    /// Requests x heads, to be added to the logits of their rows; empty where there is no rate tower.
    pub rate: &'a [f32],
}

impl Staging {
    /// Stages the requests of a range of rows of an [`admitted`](super::admitted) batch, not empty.
    pub fn fill(&mut self, model: &Model, batch: &FeatureBatch, rows: Range<usize>) -> Staged<'_> {
        let network = &model.network;
        let plan = &network.plan;
        let Self { chunk, tape, kinds, columns, rate, requests, places } = self;
        chunk.fill(plan, batch, rows, Limits::NONE, &[]);
        fill_requests(chunk, requests, places);
        let encoded = network.config.encoder != Encoder::None;
        if encoded {
            let pass = Pass { network, batch, chunk, dropout: Dropout::default(), folded: &[] };
            tokens::forward::<f32, Cpu>(&pass, tape);
        } else {
            requests.iter_mut().for_each(|r| r.tokens = 0..0);
        }
        kinds.clear();
        if plan.affinity {
            kinds.extend(chunk.token.iter().map(|token| TokenKind {
                action: batch.token_action[*token as usize],
                recent: affinity::recent(batch.token_age_ms[*token as usize]),
            }));
        }
        let columns = sized(columns, places.len() * plan.request_columns().len());
        network.request_columns::<Cpu>(batch, places, columns);
        let rate = match &plan.rate {
            Some(plan) => rate_logits(network, plan, batch, chunk, places, columns, rate),
            None => &[],
        };
        let tokens: &[f32] = if encoded { &tape.token } else { &[] };
        Staged { requests, tokens, kinds, masked: &chunk.masked, columns, rate }
    }
}

/// The chunk's requests that have rows, and their places in the batch.
fn fill_requests(chunk: &Chunk, requests: &mut Vec<StagedRequest>, places: &mut Vec<u32>) {
    requests.clear();
    places.clear();
    let mut row = 0;
    for rows in chunk.request.chunk_by(|a, b| a == b) {
        let at = rows[0] as usize - chunk.requests.start;
        let tokens = chunk.starts[at] as usize..chunk.starts[at + 1] as usize;
        let first = chunk.offsets[chunk.segment[row] as usize] as usize;
        let masked = if chunk.masked.is_empty() { 0..0 } else { first..first + tokens.len() };
        requests.push(StagedRequest { rows: row..row + rows.len(), tokens, masked });
        places.push(rows[0]);
        row += rows.len();
    }
}

/// The rate tower's logits, a row a request: nothing of them depends on the candidate.
fn rate_logits<'a>(
    network: &Network<f32>,
    plan: &RatePlan,
    batch: &FeatureBatch,
    chunk: &Chunk,
    requests: &[u32],
    columns: &[f32],
    [inputs, hidden, logits]: &'a mut [Buffer<f32>; 3],
) -> &'a [f32] {
    let (width, shared) = (rate::width(network, plan), network.plan.request_columns());
    let user = plan.user.start - shared.start..plan.user.end - shared.start;
    let inputs = sized(inputs, requests.len() * width);
    for (i, (request, out)) in requests.iter().zip(inputs.chunks_exact_mut(width)).enumerate() {
        let columns = &columns[i * shared.len()..(i + 1) * shared.len()];
        rate::input(network, batch, chunk, *request, &columns[user.clone()], out);
    }
    let ((w, b), (v, c)) = (network.linear(plan.hidden), network.linear(plan.head));
    let hidden = sized(hidden, requests.len() * b.len());
    Cpu::linear(Shape::new(requests.len(), width, b.len()), inputs, w, b, true, hidden);
    let logits = sized(logits, requests.len() * c.len());
    Cpu::linear(Shape::new(requests.len(), b.len(), c.len()), hidden, v, c, false, logits);
    logits
}

/// Memory of [`ItemStaging::fill`].
#[derive(Debug, Default)]
pub struct ItemStaging {
    candidates: Buffer<f32>,
    columns: Buffer<f32>,
}

/// What an engine keeps of items.
#[derive(Debug)]
pub struct StagedItems<'a> {
    /// Items x candidate width; none where there is no transformer.
    pub candidates: &'a [f32],
    /// Items x the item's columns of the top's inputs.
    pub columns: &'a [f32],
}

impl ItemStaging {
    /// Stages the items of some rows of an [`admitted`](super::admitted) batch.
    pub fn fill(&mut self, model: &Model, batch: &FeatureBatch, rows: &[u32]) -> StagedItems<'_> {
        let network = &model.network;
        let plan = &network.plan;
        let width = if network.config.encoder == Encoder::None { 0 } else { plan.encoder.candidate() };
        let candidates = sized(&mut self.candidates, rows.len() * width);
        if width > 0 {
            let block = Block { source: rows, width, stride: width, offset: 0 };
            columns::scaled(block, &batch.candidate, network.embedding_scale(), candidates);
        }
        let columns = sized(&mut self.columns, rows.len() * plan.item_columns().len());
        network.item_columns::<Cpu>(batch, rows, columns);
        StagedItems { candidates, columns }
    }
}
