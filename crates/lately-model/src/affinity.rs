//! How near a candidate is to what the user did last: for each action type the largest and the mean cosine between
//! the candidate's embedding and those of the tokens of that type, once over the last hour and once over the whole
//! sequence; 0 where there is none.
//!
//! Not in the paper. A transformer over [action ; item ; candidate] can learn these products, but needs far more
//! rows than a young product has; docs/model.md has the measurements. TransAct V2 selects neighbours by the same
//! product. The embeddings are inputs, so nothing is differentiated.
//!
//! `lately-cuda/src/kernels/affinity.cu` makes the same on a card.

use lately_features::FeatureBatch;
use lately_kernels::Real;

use crate::chunk::Chunk;
use crate::plan::Plan;

/// Oldest action that counts, ms: this sitting, and all.
const WINDOWS_MS: [i64; 2] = [3_600_000, i64::MAX];
/// Cosines of random items have a deviation of about 0.2: this makes it about 1.
pub(crate) const SCALE: f32 = 5.0;
/// Values an action type: largest and mean for each window.
pub(crate) const VALUES: usize = 2 * WINDOWS_MS.len();

/// Whether a token of this age, ms, is in the first window.
pub(crate) fn recent(age_ms: i64) -> bool {
    age_ms <= WINDOWS_MS[0]
}

/// Cosines of the tokens of one action type within one window.
#[derive(Clone, Copy)]
struct Cosines {
    largest: f32,
    sum: f32,
    count: u32,
}

impl Cosines {
    const NONE: Self = Self { largest: f32::NEG_INFINITY, sum: 0.0, count: 0 };

    fn add(&mut self, cosine: f32) {
        self.largest = self.largest.max(cosine);
        self.sum += cosine;
        self.count += 1;
    }

    fn values(self) -> [f32; 2] {
        if self.count == 0 {
            [0.0, 0.0]
        } else {
            [SCALE * self.largest, SCALE * self.sum / self.count as f32]
        }
    }
}

/// Writes the block into each row of `out` (rows x `plan.inputs`), from column `offset` on.
pub(crate) fn forward<R: Real>(
    plan: &Plan,
    batch: &FeatureBatch,
    chunk: &Chunk,
    offset: usize,
    out: &mut [R],
) {
    let d = plan.item_dim;
    let mut cosines = vec![[Cosines::NONE; WINDOWS_MS.len()]; plan.actions];
    let mut lengths: Vec<f32> = Vec::new();
    let mut last_request = None;
    for (i, (row, request)) in chunk.row.iter().zip(&chunk.request).enumerate() {
        let tokens = chunk.tokens_of(*request);
        let item = |token: &u32| &batch.token_item[*token as usize * d..][..d];
        if last_request != Some(request) {
            lengths.clear();
            lengths.extend(tokens.iter().map(item).map(|item| dot(item, item).sqrt()));
            last_request = Some(request);
        }
        let candidate = &batch.candidate[*row as usize * d..][..d];
        let length = dot(candidate, candidate).sqrt();
        cosines.fill([Cosines::NONE; WINDOWS_MS.len()]);
        for (token, other) in tokens.iter().zip(&lengths) {
            if length * other > 0.0 {
                let cosine = dot(candidate, item(token)) / (length * other);
                let windows = &mut cosines[usize::from(batch.token_action[*token as usize])];
                for (window, oldest) in windows.iter_mut().zip(WINDOWS_MS) {
                    if batch.token_age_ms[*token as usize] <= oldest {
                        window.add(cosine);
                    }
                }
            }
        }
        let at = i * plan.inputs + offset;
        let values = cosines.iter().flatten().flat_map(|c| c.values());
        for (value, out) in values.zip(&mut out[at..at + VALUES * plan.actions]) {
            *out = R::from_f64(value.into());
        }
    }
}

/// Eight sums side by side, so that it vectorises.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0f32; 8];
    for (x, y) in a8.zip(b8) {
        for k in 0..8 {
            sums[k] += x[k] * y[k];
        }
    }
    sums.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use lately_features::Schema;

    use super::*;
    use crate::config::ModelConfig;

    const SCHEMA: &str = r#"
        item_embedding = "v"
        actions = [{ name = "seen", polarity = "neutral" }, { name = "save", polarity = "positive" }]
        heads = [{ name = "save", actions = ["save"] }]
        item_features = [{ kind = "embedding", name = "v", dim = 2 }]
    "#;

    /// The block of each row; request 0 has two candidates and three tokens, request 1 one candidate and no token.
    fn blocks() -> Vec<Vec<f32>> {
        let schema = Schema::from_toml(SCHEMA).unwrap();
        let plan = Plan::new(&ModelConfig::default(), &schema).unwrap().0;
        let batch = FeatureBatch {
            row_offsets: vec![0, 2, 3],
            token_offsets: vec![0, 3, 3],
            surface: vec![0, 0],
            token_action: vec![1, 1, 1],
            token_surface: vec![0; 3],
            // Two in this sitting, one of them without a vector; one of a day ago.
            token_age_ms: vec![1_000, 2_000, 86_400_000],
            token_item: vec![0.0, 2.0, 0.0, 0.0, 3.0, 0.0],
            candidate: vec![0.0, 0.5, 1.0, 1.0, 1.0, 0.0],
            ..FeatureBatch::default()
        };
        let mut chunk = Chunk::default();
        chunk.fill(&plan, &batch, 0..batch.rows(), crate::chunk::Limits::CHUNK, &[]);
        let mut out = vec![9.0f32; 3 * plan.inputs];
        forward(&plan, &batch, &chunk, plan.encoder.output, &mut out);
        let block = plan.encoder.output..plan.encoder.output + VALUES * plan.actions;
        out.chunks(plan.inputs).map(|row| row[block.clone()].to_vec()).collect()
    }

    #[test]
    fn the_largest_and_the_mean_of_each_type_and_window() {
        let blocks = blocks();
        let half = 0.5f32.sqrt();
        let want = [
            // seen: none; save: the recent one is parallel, the old one orthogonal.
            vec![0.0, 0.0, 0.0, 0.0, SCALE, SCALE, SCALE, SCALE / 2.0],
            vec![0.0, 0.0, 0.0, 0.0, SCALE * half, SCALE * half, SCALE * half, SCALE * half],
            vec![0.0; 8],
        ];
        for (got, want) in blocks.iter().zip(&want) {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-5), "{got:?} is not {want:?}");
        }
    }
}
