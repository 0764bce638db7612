//! A stretch of a batch's rows that is computed at once, and the checks that a batch fits the model.

use std::ops::Range;

use lately_features::FeatureBatch;

use crate::ModelError;
use crate::encoder::{self, EncoderPlan};
use crate::plan::{Plan, Side};

/// How far a stretch goes; one row it always has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    rows: usize,
    /// Encoder tokens.
    tokens: usize,
}

impl Limits {
    /// Of what the top computes at once. Products of 1,456 x 1,456 with 256, 128 and 64 rows ran at 162, 142 and 116
    /// GFLOP/s on a core of 200; more rows only cost memory.
    pub(crate) const CHUNK: Self = Self { rows: 256, tokens: 256 * 100 };
    /// The same in scoring, which keeps nothing of the encoder.
    pub(crate) const SCORE: Self = Self { rows: 512, tokens: 512 * 100 };
    /// None: the range is the stretch.
    pub(crate) const NONE: Self = Self { rows: usize::MAX, tokens: usize::MAX };
    /// Of what the encoder computes at once: forward and backward of 75 tokens a row took 508 us a row in stretches of
    /// 8,192 tokens, 388, 400 and 390 in those of 600, 300 and 150 (2 MiB of second-level cache).
    pub(crate) const PIECE: Self = Self { rows: 256, tokens: 512 };

    /// At most so many encoder tokens.
    pub(crate) fn tokens(tokens: usize) -> Self {
        Self { rows: usize::MAX, tokens }
    }
}

/// Parts of a chunk that threads share. Few, as each has its own gradients of the encoder; enough to even out two to
/// four threads.
const SHARDS: usize = 8;

/// Index arrays of a stretch of rows; memory is reused.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// Rows of the batch.
    pub(crate) rows: Range<usize>,
    /// Requests that these rows belong to.
    pub(crate) requests: Range<usize>,
    /// Place in the batch of each token of these requests.
    pub(crate) token: Vec<u32>,
    /// For each request, and at the end, its first entry in `token`.
    pub(crate) starts: Vec<u32>,
    /// For each row its place in the batch.
    pub(crate) row: Vec<u32>,
    /// For each row its request's place in the batch.
    pub(crate) request: Vec<u32>,
    /// For each row its segment.
    pub(crate) segment: Vec<u32>,
    /// Surface of each row's request.
    pub(crate) surface: Vec<u32>,
    /// Rows of the table of action types, `slots` for each row of `tape.token`: tokens, then appended candidates.
    pub(crate) action: Vec<u32>,
    /// Surface of each row of `tape.token`, where the model takes it.
    pub(crate) token_surface: Vec<u32>,
    /// Bucket of its age, where the model takes it.
    pub(crate) token_age: Vec<u32>,
    /// With appended candidates, for each expanded token its row there.
    pub(crate) gather: Vec<u32>,
    /// Offsets of the segments' tokens (expanded).
    pub(crate) offsets: Vec<u32>,
    /// First token of each segment in `token`.
    pub(crate) source: Vec<u32>,
    /// Masked expanded tokens; empty for none.
    pub(crate) masked: Vec<bool>,
    /// 0, 1, 2, ...
    pub(crate) identity: Vec<u32>,
}

impl Chunk {
    /// Fills the arrays for rows from the start of `range` on, up to its end or a limit. `lists`: where lists begin and
    /// end; none of them is cut. Empty where rows stand for themselves.
    pub(crate) fn fill(
        &mut self,
        plan: &Plan,
        batch: &FeatureBatch,
        range: Range<usize>,
        limits: Limits,
        lists: &[u32],
    ) {
        self.clear();
        let start = range.start;
        let mut request = request_of(batch, start);
        let first = request;
        let per_candidate = plan.encoder.per_candidate;
        let end = end(plan, batch, range, limits, lists);
        for row in start..end {
            while batch.row_offsets[request + 1] as usize <= row {
                request += 1;
            }
            while self.starts.len() < request - first + 2 {
                self.push_request(plan, batch, first);
            }
            self.row.push(row as u32);
            self.request.push(request as u32);
            self.surface.push(batch.surface[request].into());
            if per_candidate {
                self.push_segment(request - first, usize::from(plan.encoder.appended));
            }
        }
        self.rows = start..end;
        self.requests = first..self.request.last().map_or(first, |r| *r as usize + 1);
        if !per_candidate {
            (0..self.requests.len()).for_each(|r| self.push_segment(r, 0));
        }
        let segment = |(i, r): (usize, &u32)| if per_candidate { i as u32 } else { *r - first as u32 };
        self.segment.extend(self.request.iter().enumerate().map(segment));
        if plan.encoder.appended {
            self.append(&plan.encoder);
        }
        if plan.compatibility {
            self.mask(batch);
        }
        let most = self.token_rows().max(self.rows.len()).max(self.source.len());
        let known = self.identity.len();
        self.identity.extend(known as u32..most.max(known) as u32);
    }

    /// Cuts the rows into at most [`SHARDS`] parts of about as many tokens each. Without `per_candidate` a request is
    /// not cut, as its tokens would be encoded twice.
    pub(crate) fn shards(&self, batch: &FeatureBatch, per_candidate: bool) -> Vec<Range<usize>> {
        let cost = |i: usize| {
            let r = self.request[i] as usize;
            (batch.token_offsets[r + 1] - batch.token_offsets[r]) as usize + 1 // rows without tokens cost, too
        };
        let total: usize = (0..self.rows.len()).map(cost).sum();
        let (mut parts, mut start, mut done) = (Vec::with_capacity(SHARDS), 0, 0);
        for i in 0..self.rows.len() {
            done += cost(i);
            let whole = per_candidate || self.request.get(i + 1) != self.request.get(i);
            let last = i + 1 == self.rows.len();
            if last || (whole && done * SHARDS >= total * (parts.len() + 1)) {
                parts.push(self.rows.start + start..self.rows.start + i + 1);
                start = i + 1;
            }
        }
        parts
    }

    fn clear(&mut self) {
        for list in [
            &mut self.token,
            &mut self.starts,
            &mut self.row,
            &mut self.request,
            &mut self.segment,
            &mut self.surface,
            &mut self.action,
            &mut self.token_surface,
            &mut self.token_age,
            &mut self.gather,
            &mut self.offsets,
            &mut self.source,
        ] {
            list.clear();
        }
        self.masked.clear();
        self.offsets.push(0);
        self.starts.push(0);
    }

    /// The tokens of the next request; `first` is the chunk's first one.
    fn push_request(&mut self, plan: &Plan, batch: &FeatureBatch, first: usize) {
        for token in tokens(plan, batch, first + self.starts.len() - 1) {
            self.token.push(token as u32);
            self.push_token(&plan.encoder, batch, token);
        }
        self.starts.push(self.token.len() as u32);
    }

    /// Indices of a token.
    fn push_token(&mut self, plan: &EncoderPlan, batch: &FeatureBatch, token: usize) {
        if plan.slots > 1 {
            let set = batch.token_actions[token];
            let end = self.action.len() + plan.slots;
            self.action.extend((0..plan.slots as u32).filter(|a| set >> a & 1 == 1).map(|a| a + 1));
            self.action.resize(end, 0);
        } else {
            self.action.push(if plan.typed { batch.token_action[token].into() } else { 0 });
        }
        if plan.surface_table.is_some() {
            self.token_surface.push(batch.token_surface[token].into());
        }
        if let Some((_, buckets)) = plan.age_table {
            self.token_age.push(encoder::bucket(batch.token_age_ms[token], buckets));
        }
    }

    /// A segment of the tokens of the chunk's request `r` and `more`.
    fn push_segment(&mut self, r: usize, more: usize) {
        self.source.push(self.starts[r]);
        self.offsets.push((self.expanded() + more) as u32 + self.starts[r + 1] - self.starts[r]);
    }

    /// The candidates as tokens, each the first of its segment: now, on the request's surface.
    fn append(&mut self, plan: &EncoderPlan) {
        for (s, w) in self.offsets.windows(2).enumerate() {
            self.gather.push((self.token.len() + s) as u32);
            self.gather.extend((1..w[1] - w[0]).map(|i| self.source[s] + i - 1));
            self.action.resize(self.action.len() + plan.slots, plan.candidate_row);
        }
        if plan.surface_table.is_some() {
            self.token_surface.extend_from_slice(&self.surface);
        }
        if plan.age_table.is_some() {
            self.token_age.resize(self.token_age.len() + self.row.len(), 0);
        }
    }

    /// The official module's mask: padding and later-than-request actions, but never position 0.
    fn mask(&mut self, batch: &FeatureBatch) {
        for (s, w) in self.offsets.windows(2).enumerate() {
            for i in 0..(w[1] - w[0]) as usize {
                let at = self.token[self.source[s] as usize + i] as usize;
                self.masked.push(i > 0 && (batch.token_action[at] == 0 || batch.token_age_ms[at] < 0));
            }
        }
    }

    /// Rows of `tape.token`: the requests' tokens and appended candidates.
    pub(crate) fn token_rows(&self) -> usize {
        self.token.len() + if self.gather.is_empty() { 0 } else { self.source.len() }
    }

    /// Encoder tokens.
    pub(crate) fn expanded(&self) -> usize {
        self.offsets.last().map_or(0, |o| *o as usize)
    }

    /// Numbers 0 to n - 1.
    pub(crate) fn identity(&self, n: usize) -> &[u32] {
        &self.identity[..n]
    }

    /// Places in the batch of the tokens of a request, which is one of the chunk's.
    pub(crate) fn tokens_of(&self, request: u32) -> &[u32] {
        let at = request as usize - self.requests.start;
        &self.token[self.starts[at] as usize..self.starts[at + 1] as usize]
    }

    /// Segments without a token.
    pub(crate) fn empty_segments(&self) -> impl Iterator<Item = usize> {
        self.offsets.windows(2).enumerate().filter(|(_, w)| w[0] == w[1]).map(|(s, _)| s)
    }
}

/// Places in the batch of a request's tokens, without those that the model leaves out.
fn tokens<'a>(plan: &'a Plan, batch: &'a FeatureBatch, request: usize) -> impl Iterator<Item = usize> + 'a {
    let left_out = &plan.encoder.left_out;
    let all = batch.token_offsets[request] as usize..batch.token_offsets[request + 1] as usize;
    all.filter(move |t| left_out.is_empty() || !left_out[usize::from(batch.token_action[*t])])
}

fn request_of(batch: &FeatureBatch, row: usize) -> usize {
    batch.row_offsets.partition_point(|o| *o as usize <= row) - 1
}

/// Where the chunk of a range's first rows ends: as many rows, or whole lists, as the limits allow, at least one.
fn end(plan: &Plan, batch: &FeatureBatch, range: Range<usize>, limits: Limits, lists: &[u32]) -> usize {
    let (mut request, mut count, mut end) = (request_of(batch, range.start), 0, range.start);
    for row in range.clone() {
        let before = request;
        while batch.row_offsets[request + 1] as usize <= row {
            request += 1;
        }
        if plan.encoder.per_candidate || request != before || row == range.start {
            count += tokens(plan, batch, request).count() + usize::from(plan.encoder.appended);
        }
        if end > range.start && (row - range.start >= limits.rows || count > limits.tokens) {
            return end;
        }
        if lists.is_empty() || lists.binary_search(&(row as u32 + 1)).is_ok() {
            end = row + 1;
        }
    }
    range.end
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
    if plan.encoder.slots > 1 {
        length("token_actions", tokens, batch.token_actions.len())?;
    }
    if plan.encoder.surface_table.is_some() {
        length("token_surface", tokens, batch.token_surface.len())?;
        limit("token_surface", plan.surfaces, batch.token_surface.iter().map(|s| usize::from(*s)))?;
    }
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
