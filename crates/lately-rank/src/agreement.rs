//! Whether a model is still the model: its scores in another precision, or on another machine, against those that it
//! should give.

use std::sync::Arc;

use lately_features::batch::Layout;
use lately_features::schema::FeatureKind;
use lately_features::{
    Assembler, FeatureBatch, Features, RequestContext, Schema, Token, action_bit, assemble,
};

use lately_model::rank_correlation;

use lately_model::probability;

/// Largest difference of a probability of golden rows from when the model was published: in f32 the order of sums alone
/// differs, 1e-6 or less.
pub(crate) const GOLDEN_ERROR: f32 = 1e-4;
/// Largest difference of a probability from f32 that is served.
pub(crate) const PROBABILITY_ERROR: f32 = 0.02;
/// Smallest rank correlation with it, of a head within a request.
pub(crate) const RANK_CORRELATION: f64 = 0.999;

/// Candidates of each request.
const CANDIDATES: usize = 200;
/// Other items that its tokens name.
const ITEMS: usize = 20;

/// Requests of persons with histories of several lengths, each with one unknown candidate; features drawn at random, the same for one schema.
pub(crate) fn probe(schema: &Schema) -> FeatureBatch {
    let assembler = Assembler::new(schema);
    let mut random = Random(1);
    let mut batch = FeatureBatch::default();
    let length = usize::from(schema.sequence.length);
    for tokens in [1, length.div_ceil(2), length, 0] {
        let user = random.features(&schema.user_features);
        let items: Vec<_> = (0..ITEMS).map(|_| Arc::new(random.features(&schema.item_features))).collect();
        let token = |i: usize| {
            let action = random.below(schema.actions.len()) as u8;
            Token {
                action,
                actions: action_bit(action),
                surface: random.below(schema.surfaces.len() + 1) as u16,
                time_ms: -(i as i64) * 60_000,
                item: Some(Arc::clone(&items[random.below(ITEMS)])),
            }
        };
        let tokens: Vec<_> = (0..tokens).map(token).collect();
        let candidates: Vec<_> = (0..CANDIDATES).map(|_| random.features(&schema.item_features)).collect();
        let context = RequestContext { time_ms: 0, surface: 0, watermark: u64::MAX };
        let known = candidates.iter().enumerate().map(|(i, c)| (i > 0).then_some(c));
        assemble(&mut batch, &assembler, &context, Some(&user), &tokens, known);
    }
    batch
}

/// Fewest candidates of a request whose order says something: of few, one pair that is as good as equal moves it much.
const ORDERED: usize = 30;

/// How two tables of logits of the same rows agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Agreement {
    /// Largest difference of a probability; NaN where there is one.
    pub(crate) error: f32,
    /// Smallest rank correlation of a head within a request of enough candidates.
    pub(crate) correlation: f64,
}

impl Agreement {
    /// Whether one may be served for the other; not of a NaN.
    pub(crate) fn holds(self) -> bool {
        self.error <= PROBABILITY_ERROR && self.correlation >= RANK_CORRELATION
    }

    /// Of logits of a batch's rows, rows x heads.
    pub(crate) fn of(batch: &FeatureBatch, a: &[f32], b: &[f32], heads: usize) -> Self {
        let apart = |(a, b): (&f32, &f32)| (probability(*a) - probability(*b)).abs();
        // `f32::max` would drop a NaN.
        let worst = |m: f32, x: f32| if x > m || x.is_nan() { x } else { m };
        let error = a.iter().zip(b).map(apart).fold(0.0, worst);
        let column =
            |x: &[f32], head: usize| -> Vec<f32> { x.iter().skip(head).step_by(heads).copied().collect() };
        let mut correlation: f64 = 1.0;
        for rows in batch.row_offsets.windows(2).filter(|w| (w[1] - w[0]) as usize >= ORDERED) {
            let rows = rows[0] as usize * heads..rows[1] as usize * heads;
            let (a, b) = (&a[rows.clone()], &b[rows]);
            for head in 0..heads {
                correlation = correlation.min(rank_correlation(&column(a, head), &column(b, head)));
            }
        }
        Self { error, correlation }
    }
}

/// SplitMix64 (Steele et al. 2014): a probe needs no better, and must be the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// From -1 to 1.
    fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    fn features(&mut self, kinds: &[FeatureKind]) -> Features {
        let layout = Layout::of(kinds);
        let mut categorical = vec![0; layout.categorical_width];
        for slots in &layout.categorical {
            for slot in &mut categorical[slots.start..slots.start + slots.slots] {
                *slot = self.below(slots.buckets) as u32;
            }
        }
        Features {
            categorical: categorical.into(),
            numeric: (0..layout.numeric_width).map(|_| self.number()).collect(),
            embedding: (0..layout.embedding_width).map(|_| self.number()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_compared_head_by_head_and_request_by_request() {
        let rows = CANDIDATES as u32;
        let batch = FeatureBatch { row_offsets: vec![0, rows, rows + 2], ..FeatureBatch::default() };
        let a: Vec<f32> = (0..2 * CANDIDATES + 4).map(|i| i as f32 / 1e3).collect();
        let mut b = a.clone();
        assert_eq!(Agreement::of(&batch, &a, &b, 2), Agreement { error: 0.0, correlation: 1.0 });
        let last = b.len() - 2;
        b.swap(last, last - 2); // of two candidates: no order to speak of
        let Agreement { error, correlation } = Agreement::of(&batch, &a, &b, 2);
        assert!(error > 0.0 && correlation == 1.0, "{error} {correlation}");
        b.swap(1, 301); // head 1
        let Agreement { error, correlation } = Agreement::of(&batch, &a, &b, 2);
        assert!(error > 0.05 && correlation < 0.999, "{error} {correlation}");
        b[0] = f32::NAN;
        assert!(Agreement::of(&batch, &a, &b, 2).error.is_nan());
    }
}
