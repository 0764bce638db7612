//! A stretch of a batch's rows that is computed at once, and the checks that a batch fits the model.

use std::ops::Range;

use lately_features::FeatureBatch;

use crate::ModelError;
use crate::plan::{Plan, Side};

/// Rows computed at once: enough that packing the weights for a product is little beside it, few enough that
/// activations stay in the cache.
const ROWS: usize = 128;
/// Encoder tokens computed at once, unless one row alone has more.
const TOKENS: usize = 128 * 64;

/// Index arrays of a stretch of rows; memory is reused.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// Rows of the batch.
    pub(crate) rows: Range<usize>,
    /// Requests that these rows belong to.
    pub(crate) requests: Range<usize>,
    /// Tokens of these requests.
    pub(crate) tokens: Range<usize>,
    /// For each row its place in the batch.
    pub(crate) row: Vec<u32>,
    /// For each row its request's place in the batch.
    pub(crate) request: Vec<u32>,
    /// For each row its segment.
    pub(crate) segment: Vec<u32>,
    /// Surface of each row's request.
    pub(crate) surface: Vec<u32>,
    /// Action type of each token.
    pub(crate) action: Vec<u32>,
    /// Offsets of the segments' tokens (expanded).
    pub(crate) offsets: Vec<u32>,
    /// First token of each segment, counted from `tokens.start`.
    pub(crate) source: Vec<u32>,
    /// Masked expanded tokens; empty for none.
    pub(crate) masked: Vec<bool>,
    /// 0, 1, 2, ...
    pub(crate) identity: Vec<u32>,
}

impl Chunk {
    /// Fills the arrays for the next rows from `start` on. Segments are rows or, without `per_candidate`, requests.
    /// `lists`: where lists begin and end; none of them is cut. Empty where rows stand for themselves.
    pub(crate) fn fill(
        &mut self,
        batch: &FeatureBatch,
        start: usize,
        lists: &[u32],
        per_candidate: bool,
        compat: bool,
    ) {
        self.clear();
        let mut request = request_of(batch, start);
        let first = request;
        let token = |r: usize| batch.token_offsets[r] as usize;
        let end = end(batch, start, lists, per_candidate);
        for row in start..end {
            while batch.row_offsets[request + 1] as usize <= row {
                request += 1;
            }
            let n = token(request + 1) - token(request);
            self.row.push(row as u32);
            self.request.push(request as u32);
            self.surface.push(batch.surface[request].into());
            if per_candidate {
                self.push_segment(token(request) - token(first), n);
            }
        }
        self.rows = start..end;
        self.requests = first..self.request.last().map_or(first, |r| *r as usize + 1);
        self.tokens = token(first)..token(self.requests.end);
        if !per_candidate {
            for r in self.requests.clone() {
                self.push_segment(token(r) - token(first), token(r + 1) - token(r));
            }
        }
        let segment = |(i, r): (usize, &u32)| if per_candidate { i as u32 } else { *r - first as u32 };
        self.segment.extend(self.request.iter().enumerate().map(segment));
        self.action.extend(batch.token_action[self.tokens.clone()].iter().map(|a| u32::from(*a)));
        if compat {
            self.mask(batch);
        }
        let most = self.tokens.len().max(self.rows.len()).max(self.source.len());
        let known = self.identity.len();
        self.identity.extend(known as u32..most.max(known) as u32);
    }

    fn clear(&mut self) {
        for list in [
            &mut self.row,
            &mut self.request,
            &mut self.segment,
            &mut self.surface,
            &mut self.action,
            &mut self.offsets,
            &mut self.source,
        ] {
            list.clear();
        }
        self.masked.clear();
        self.offsets.push(0);
    }

    fn push_segment(&mut self, source: usize, tokens: usize) {
        self.source.push(source as u32);
        self.offsets.push((self.expanded() + tokens) as u32);
    }

    /// The official module's mask: padding and later-than-request actions, but never position 0.
    fn mask(&mut self, batch: &FeatureBatch) {
        for (s, w) in self.offsets.windows(2).enumerate() {
            for i in 0..(w[1] - w[0]) as usize {
                let at = self.tokens.start + self.source[s] as usize + i;
                self.masked.push(i > 0 && (batch.token_action[at] == 0 || batch.token_age_ms[at] < 0));
            }
        }
    }

    /// Encoder tokens.
    pub(crate) fn expanded(&self) -> usize {
        self.offsets.last().map_or(0, |o| *o as usize)
    }

    /// Numbers 0 to n - 1.
    pub(crate) fn identity(&self, n: usize) -> &[u32] {
        &self.identity[..n]
    }

    /// Segments without a token.
    pub(crate) fn empty_segments(&self) -> impl Iterator<Item = usize> {
        self.offsets.windows(2).enumerate().filter(|(_, w)| w[0] == w[1]).map(|(s, _)| s)
    }
}

fn request_of(batch: &FeatureBatch, row: usize) -> usize {
    batch.row_offsets.partition_point(|o| *o as usize <= row) - 1
}

/// Where the chunk from row `start` on ends: as many rows, or whole lists, as the limits allow, at least one.
fn end(batch: &FeatureBatch, start: usize, lists: &[u32], per_candidate: bool) -> usize {
    let (mut request, mut tokens, mut end) = (request_of(batch, start), 0, start);
    for row in start..batch.rows() {
        while batch.row_offsets[request + 1] as usize <= row {
            request += 1;
        }
        if per_candidate {
            tokens += (batch.token_offsets[request + 1] - batch.token_offsets[request]) as usize;
        }
        if end > start && (row - start >= ROWS || tokens > TOKENS) {
            return end;
        }
        if lists.is_empty() || lists.binary_search(&(row as u32 + 1)).is_ok() {
            end = row + 1;
        }
    }
    batch.rows()
}

/// Checks that a batch fits the plan, so that nothing later can go out of bounds.
pub(crate) fn check(plan: &Plan, batch: &FeatureBatch) -> Result<(), ModelError> {
    offsets("row_offsets", &batch.row_offsets)?; // first: without any, the counts below would panic
    offsets("token_offsets", &batch.token_offsets)?;
    let (requests, rows, tokens) = (batch.requests(), batch.rows(), batch.tokens());
    let length = ModelError::length;
    length("token_offsets", requests + 1, batch.token_offsets.len())?;
    length("surface", requests, batch.surface.len())?;
    length("token_action", tokens, batch.token_action.len())?;
    length("token_age_ms", tokens, batch.token_age_ms.len())?;
    length("token_item", tokens * plan.item_dim, batch.token_item.len())?;
    length("candidate", rows * plan.item_dim, batch.candidate.len())?;
    for (side, columns, n) in [(&plan.user, &batch.user, requests), (&plan.item, &batch.item, rows)] {
        let layout = &side.layout;
        length("categorical", n * layout.categorical_width, columns.categorical.len())?;
        length("numeric", n * layout.numeric_width, columns.numeric.len())?;
        length("embedding", n * layout.embedding_width, columns.embedding.len())?;
        buckets(side, &columns.categorical)?;
        finite("embedding", &columns.embedding)?;
    }
    finite("token_item", &batch.token_item)?;
    finite("candidate", &batch.candidate)?;
    limit("token_action", plan.actions - 1, batch.token_action.iter().map(|a| usize::from(*a)))?;
    limit("surface", plan.surfaces, batch.surface.iter().map(|s| usize::from(*s)))
}

pub(crate) fn offsets(what: &'static str, list: &[u32]) -> Result<(), ModelError> {
    ModelError::length(what, 0, list.first().map_or(1, |o| *o as usize))?;
    match list.windows(2).find(|w| w[0] > w[1]) {
        Some(w) => Err(ModelError::Index { what, got: w[0].into(), limit: w[1].into() }),
        None => Ok(()),
    }
}

fn buckets(side: &Side, categorical: &[u32]) -> Result<(), ModelError> {
    for table in &side.tables {
        let s = &table.slots;
        for row in categorical.chunks_exact(side.layout.categorical_width) {
            limit("categorical", s.buckets - 1, row[s.start..s.start + s.slots].iter().map(|b| *b as usize))?;
        }
    }
    Ok(())
}

fn limit(what: &'static str, limit: usize, values: impl Iterator<Item = usize>) -> Result<(), ModelError> {
    match values.max() {
        Some(got) if got > limit => Err(ModelError::Index { what, got: got as u64, limit: limit as u64 }),
        _ => Ok(()),
    }
}

fn finite(what: &'static str, values: &[f32]) -> Result<(), ModelError> {
    // Counting all of them vectorises; stopping at the first does not.
    match values.iter().filter(|x| !x.is_finite()).count() {
        0 => Ok(()),
        _ => Err(ModelError::NotFinite(what)),
    }
}
