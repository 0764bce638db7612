//! From a batch to the numbers that a device multiplies, on the host and without a weight.

use std::ops::Range;

use lately_features::FeatureBatch;
use lately_kernels::columns::{self, Block};
use lately_kernels::loss::{self, list};
use lately_kernels::parallel::Pool;

use crate::chunk::{Chunk, Limits, check};
use crate::config::Encoder;
use crate::network::Network;
use crate::objective::Lists;
use crate::plan::Side;
use crate::{Admission, Model, ModelError, Objective, rate};

/// Rows of which a thread makes the features at a time.
const PIECE: usize = 256;

/// Sums of rows, in a fixed order: `out[rows[u]] = sum over i in starts[u]..starts[u + 1] of share[i] * in[from[i]]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scatter {
    /// Rows that get something, each once, rising.
    pub rows: Vec<u32>,
    /// For each of them, and at the end, its first entry in `from`.
    pub starts: Vec<u32>,
    /// What is added up.
    pub from: Vec<u32>,
    /// What each is multiplied by; empty: by 1.
    pub share: Vec<f32>,
}

/// Indices into a trained table, and the way back of its gradient.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableRows {
    /// `slots` a row; 0 is an empty slot, and where all are empty row 0 of the table stands.
    pub indices: Vec<u32>,
    /// From rows to rows of the table.
    pub back: Scatter,
}

/// For each row of the tokens' matrix the encoder tokens that it is: number `place` of `count` segments from `first` on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Uses {
    /// First segment.
    pub first: Vec<u32>,
    /// How many.
    pub count: Vec<u32>,
    /// Which of a segment's tokens.
    pub place: Vec<u32>,
}

/// Rows of a batch that are computed at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stretch {
    /// Which rows of the batch.
    pub rows: Range<usize>,
    /// Rows of the tokens' matrix: those of the requests, then appended candidates.
    pub token_rows: usize,
    /// Where each segment's encoder tokens begin, and where the last one's end; without an encoder one 0.
    pub offsets: Vec<u32>,
    /// For each segment the row of the tokens' matrix of its first token, an appended candidate left out. The others follow.
    pub source: Vec<u32>,
    /// Whether each segment begins with its candidate; these are the last rows of the tokens' matrix.
    pub appended: bool,
    /// For each row of the tokens' matrix the encoder tokens that it is.
    pub uses: Uses,
    /// For each row its segment.
    pub row_segment: Vec<u32>,
    /// For each segment, and at the end, its first row: they follow one another.
    pub row_starts: Vec<u32>,
    /// Token rows x item: the tokens' item part.
    pub token_items: Vec<f32>,
    /// Segments x the candidate's part of a token; empty where it has none.
    pub candidates: Vec<f32>,
    /// Of the tokens' action part, in the plan's order.
    pub token_tables: Vec<TableRows>,
    /// Rows x (inputs - encoder's output): all columns but the encoder's. Those of trained tables are 0.
    pub features: Vec<f32>,
    /// Of those columns, in the plan's order.
    pub tables: Vec<TableRows>,
    /// Rows x summary of the rate tower; empty where there is none.
    pub summary: Vec<f32>,
}

impl Stretch {
    /// Encoder tokens.
    pub fn tokens(&self) -> usize {
        self.offsets.last().map_or(0, |end| *end as usize)
    }

    /// Segments: rows, or requests where the encoder does not see the candidate.
    pub fn segments(&self) -> usize {
        self.offsets.len() - 1
    }

    fn bytes(&self) -> usize {
        let of_tables = |tables: &[TableRows]| -> usize {
            tables.iter().map(|t| t.indices.len() + t.back.numbers()).sum()
        };
        let Uses { first, count, place } = &self.uses;
        let of_segments = [&self.offsets, &self.source, &self.row_segment, &self.row_starts];
        let lists = of_segments.into_iter().chain([first, count, place]).map(Vec::len);
        let values = [&self.token_items, &self.candidates, &self.features, &self.summary].map(Vec::len);
        let tables = of_tables(&self.token_tables) + of_tables(&self.tables);
        4 * (lists.chain(values).sum::<usize>() + tables)
    }
}

/// A batch, staged.
#[derive(Debug, Clone, Default)]
pub struct StagedBatch {
    /// In order; none where the batch has no row.
    pub stretches: Vec<Stretch>,
    heads: usize,
    label: Vec<f32>,
    weight: Vec<f32>,
    /// Empty: no lists.
    offsets: Vec<u32>,
    head_weight: Vec<f32>,
    copies: Vec<f32>,
}

impl StagedBatch {
    /// Rows of it.
    pub fn rows(&self) -> usize {
        self.stretches.last().map_or(0, |s| s.rows.end)
    }

    /// Bytes of its numbers.
    pub fn bytes(&self) -> usize {
        let stretches: usize = self.stretches.iter().map(Stretch::bytes).sum();
        let own = self.label.len() + self.weight.len() + self.offsets.len() + self.copies.len();
        stretches + 4 * (own + self.head_weight.len())
    }

    /// Loss of a stretch, and its gradients (overwritten): of the logits without the rate tower, and of the tower's. All
    /// rows x heads; `order` are the logits without the tower's, `logits` the sum.
    pub fn loss(&self, stretch: &Stretch, logits: &[f32], order: &[f32], gradients: [&mut [f32]; 2]) -> f64 {
        let at = stretch.rows.start * self.heads..stretch.rows.end * self.heads;
        let (label, weight) = (&self.label[at.clone()], &self.weight[at]);
        let [of_order, of_rate] = gradients;
        let mut total = loss::cross_entropy(logits, label, weight, of_order);
        of_rate.copy_from_slice(of_order);
        if let Some(lists) = self.objective().lists_within(&stretch.rows) {
            total += list::cross_entropy(lists, order, label, weight, of_order);
        }
        total
    }

    fn objective(&self) -> Objective<'_> {
        let lists = Lists { offsets: &self.offsets, head_weight: &self.head_weight, copies: &self.copies };
        Objective { weight: &self.weight, lists: (!self.offsets.is_empty()).then_some(lists) }
    }
}

/// Stages batches of one model.
#[derive(Debug)]
pub struct Stager {
    /// Without its weights: none of what it makes depends on them.
    network: Network<f32>,
    admission: Admission,
    /// Rows of each parameter.
    rows: Vec<usize>,
    tokens: usize,
    pool: Pool,
    chunk: Chunk,
}

/// Encoder tokens computed at once: their activations take some 2 GiB at the default geometry.
const TOKENS: usize = 1 << 19;

impl Stager {
    /// For a model's batches, by this many threads.
    pub fn new(model: &Model, threads: usize) -> Self {
        let network = &model.network;
        Self {
            network: Network {
                config: network.config.clone(),
                plan: network.plan.clone(),
                parameters: Vec::new(),
                normaliser: network.normaliser.clone(),
            },
            admission: model.admission.clone(),
            rows: network.parameters.iter().map(|p| p.shape.first().copied().unwrap_or(0)).collect(),
            tokens: TOKENS,
            pool: Pool::new(threads),
            chunk: Chunk::default(),
        }
    }

    /// The same with stretches of at most so many encoder tokens, or one row or list.
    #[must_use]
    pub fn with_tokens(self, tokens: usize) -> Self {
        Self { tokens, ..self }
    }

    /// Stages a batch.
    ///
    /// # Errors
    /// Where the batch or the objective does not fit the model.
    pub fn stage(
        &mut self,
        batch: &FeatureBatch,
        objective: &Objective<'_>,
    ) -> Result<StagedBatch, ModelError> {
        let batch = &*self.admission.apply(batch);
        let plan = &self.network.plan;
        check(plan, batch)?;
        objective.check(batch, plan.heads)?;
        let lists = objective.lists;
        let mut staged = StagedBatch {
            stretches: Vec::new(),
            heads: plan.heads,
            label: batch.label.clone(),
            weight: objective.weight.to_vec(),
            offsets: objective.offsets().to_vec(),
            head_weight: lists.map_or(Vec::new(), |l| l.head_weight.to_vec()),
            copies: lists.map_or(Vec::new(), |l| l.copies.to_vec()),
        };
        let mut row = 0;
        while row < batch.rows() {
            let limits = Limits::tokens(self.tokens);
            self.chunk.fill(plan, batch, row..batch.rows(), limits, objective.offsets());
            staged.stretches.push(self.stretch(batch));
            row = self.chunk.rows.end;
        }
        Ok(staged)
    }

    /// The chunk's.
    fn stretch(&self, batch: &FeatureBatch) -> Stretch {
        let (network, chunk) = (&self.network, &self.chunk);
        let mut stretch = Stretch { rows: chunk.rows.clone(), offsets: vec![0], ..Stretch::default() };
        if network.config.encoder != Encoder::None {
            tokens(network, batch, chunk, &self.rows, &self.pool, &mut stretch);
        }
        self.features(batch, &mut stretch);
        let plan = &network.plan;
        let side = |side: &Side, categorical: &[u32], entity: &[u32]| -> Vec<TableRows> {
            let table = |t: &crate::plan::Table| {
                let (start, slots) = (t.slots.start, t.slots.slots);
                let rows = entity.iter().flat_map(|e| {
                    categorical[*e as usize * side.layout.categorical_width + start..][..slots]
                        .iter()
                        .copied()
                });
                TableRows::of(rows.collect(), slots, t.slots.buckets)
            };
            side.tables.iter().map(table).collect()
        };
        let mut tables = side(&plan.user, &batch.user.categorical, &chunk.request);
        tables.extend(plan.surface.map(|_| TableRows::of(chunk.surface.clone(), 1, plan.surfaces + 1)));
        tables.extend(side(&plan.item, &batch.item.categorical, &chunk.row));
        stretch.tables = tables;
        stretch
    }

    /// Columns beside the encoder's, and the rate tower's summary.
    fn features(&self, batch: &FeatureBatch, stretch: &mut Stretch) {
        let network = &self.network;
        let plan = &network.plan;
        let (rows, output) = (stretch.rows.clone(), plan.encoder.output);
        let width = plan.inputs - output;
        let summary = plan.rate.as_ref().map_or(0, |_| rate::summary_width(plan.actions));
        stretch.features = vec![0.0; rows.len() * width];
        stretch.summary = vec![0.0; rows.len() * summary];
        let mut pieces = Vec::new();
        let (mut features, mut summaries) = (&mut stretch.features[..], &mut stretch.summary[..]);
        for start in rows.clone().step_by(PIECE) {
            let piece = start..(start + PIECE).min(rows.end);
            let (of_piece, rest) = features.split_at_mut(piece.len() * width);
            let (sums, left) = summaries.split_at_mut(piece.len() * summary);
            (features, summaries) = (rest, left);
            pieces.push((piece, of_piece, sums));
        }
        self.pool.each(pieces.into_iter(), |(piece, features, summaries)| {
            let mut chunk = Chunk::default();
            chunk.fill(plan, batch, piece, Limits::NONE, &[]);
            let mut wide = vec![0.0; chunk.rows.len() * plan.inputs];
            network.constants(batch, &chunk, &mut wide);
            for (i, wide) in wide.chunks_exact(plan.inputs).enumerate() {
                features[i * width..(i + 1) * width].copy_from_slice(&wide[output..]);
                if summary > 0 {
                    rate::summarise(
                        batch,
                        chunk.tokens_of(chunk.request[i]),
                        &mut summaries[i * summary..][..summary],
                    );
                }
            }
        });
    }
}

/// The encoder's part of a stretch.
fn tokens(
    network: &Network<f32>,
    batch: &FeatureBatch,
    chunk: &Chunk,
    rows: &[usize],
    pool: &Pool,
    stretch: &mut Stretch,
) {
    let plan = &network.plan;
    let e = &plan.encoder;
    stretch.token_rows = chunk.token_rows();
    stretch.offsets.clone_from(&chunk.offsets);
    stretch.source.clone_from(&chunk.source);
    stretch.appended = e.appended;
    stretch.uses = Uses::of(chunk, e.per_candidate, e.appended);
    stretch.row_segment.clone_from(&chunk.segment);
    stretch.row_starts = (0..=stretch.segments() as u32)
        .map(|segment| chunk.segment.partition_point(|s| *s < segment) as u32)
        .collect();
    let (width, scale) = (plan.item_dim, network.embedding_scale());
    let scaled = |source: &[u32], from: &[f32], out: &mut [f32]| {
        let pieces = source.chunks(PIECE).zip(out.chunks_mut(PIECE * width));
        pool.each(pieces, |(source, out)| {
            columns::scaled(Block { source, width, stride: width, offset: 0 }, from, scale, out);
        });
    };
    let mut items = vec![0.0; stretch.token_rows * width];
    let (of_tokens, of_candidates) = items.split_at_mut(chunk.token.len() * width);
    scaled(&chunk.token, &batch.token_item, of_tokens);
    if e.appended {
        scaled(&chunk.row, &batch.candidate, of_candidates);
    }
    stretch.token_items = items;
    if e.candidate() > 0 {
        stretch.candidates = vec![0.0; chunk.row.len() * width];
        scaled(&chunk.row, &batch.candidate, &mut stretch.candidates);
    }
    stretch.token_tables.push(TableRows::of(chunk.action.clone(), e.slots, rows[e.action_table]));
    for (id, indices) in
        [(e.surface_table, &chunk.token_surface), (e.age_table.map(|(id, _)| id), &chunk.token_age)]
    {
        stretch.token_tables.extend(id.map(|id| TableRows::of(indices.clone(), 1, rows[id])));
    }
}

impl Uses {
    fn of(chunk: &Chunk, per_candidate: bool, appended: bool) -> Self {
        let mut uses = Self::default();
        let mut segment = 0;
        for (request, tokens) in (chunk.requests.clone()).zip(chunk.starts.windows(2)) {
            let rows = chunk.request[segment.min(chunk.request.len())..].iter();
            let segments = match per_candidate {
                true => rows.take_while(|r| **r as usize == request).count(),
                false => 1,
            };
            for place in 0..tokens[1] - tokens[0] {
                uses.push(segment, segments, place + u32::from(appended));
            }
            segment += segments;
        }
        if appended {
            (0..chunk.source.len()).for_each(|s| uses.push(s, 1, 0));
        }
        uses
    }

    fn push(&mut self, first: usize, count: usize, place: u32) {
        self.first.push(first as u32);
        self.count.push(count as u32);
        self.place.push(place);
    }
}

impl TableRows {
    fn of(indices: Vec<u32>, slots: usize, rows: usize) -> Self {
        Self { back: Scatter::of(&indices, slots, rows), indices }
    }
}

impl Scatter {
    fn numbers(&self) -> usize {
        self.rows.len() + self.starts.len() + self.from.len() + self.share.len()
    }

    /// From rows of `slots` indices each to what they name, which is below `rows`; of several slots 0 is an empty one.
    fn of(indices: &[u32], slots: usize, rows: usize) -> Self {
        let mut entries: Vec<(u32, u32, f32)> = Vec::with_capacity(indices.len());
        for (at, slots) in indices.chunks_exact(slots.max(1)).enumerate() {
            let at = at as u32;
            if slots.len() == 1 {
                entries.extend(slots.iter().map(|row| (*row, at, 1.0)));
                continue;
            }
            let count = slots.iter().filter(|i| **i != 0).count();
            let share = 1.0 / count.max(1) as f32;
            let named = slots.iter().copied().filter(|i| *i != 0).chain((count == 0).then_some(0));
            entries.extend(named.map(|row| (row, at, share)));
        }
        let even = entries.iter().all(|(_, _, share)| *share == 1.0);
        let mut out = Self::default();
        let sorted = sorted(entries, rows);
        for (i, (row, from, share)) in sorted.into_iter().enumerate() {
            if out.rows.last() != Some(&row) {
                out.rows.push(row);
                out.starts.push(i as u32);
            }
            out.from.push(from);
            if !even {
                out.share.push(share);
            }
        }
        out.starts.push(out.from.len() as u32);
        out
    }
}

/// By row, within a row in the order given. Counting is the faster way unless the table is far larger than the batch.
fn sorted(entries: Vec<(u32, u32, f32)>, rows: usize) -> Vec<(u32, u32, f32)> {
    if rows > 4 * entries.len() {
        let mut entries = entries;
        entries.sort_by_key(|(row, ..)| *row); // stable
        return entries;
    }
    let mut places = vec![0u32; rows + 1];
    entries.iter().for_each(|(row, ..)| places[*row as usize + 1] += 1);
    (1..places.len()).for_each(|i| places[i] += places[i - 1]);
    let mut out = vec![(0, 0, 0.0); entries.len()];
    for entry in entries {
        let place = &mut places[entry.0 as usize];
        out[*place as usize] = entry;
        *place += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_added_up_in_order_and_averaged_over_their_slots() {
        let plain = Scatter::of(&[2, 0, 2, 1], 1, 3);
        assert_eq!(plain.rows, [0, 1, 2]);
        assert_eq!(plain.starts, [0, 1, 2, 4]);
        assert_eq!(plain.from, [1, 3, 0, 2]);
        assert!(plain.share.is_empty());
        // Row 0 names 3 and 5, row 1 nothing, row 2 only 5.
        for rows in [6, 1_000] {
            let averaged = Scatter::of(&[3, 5, 0, 0, 0, 5], 2, rows);
            assert_eq!(averaged.rows, [0, 3, 5]);
            assert_eq!(averaged.starts, [0, 1, 2, 4]);
            assert_eq!(averaged.from, [1, 0, 0, 2]);
            assert_eq!(averaged.share, [1.0, 0.5, 0.5, 1.0]);
        }
    }
}
