//! Frozen input normalisation: what training saw, kept in the checkpoint.

use lately_features::schema::{FeatureKind, Schema};
use lately_features::{FeatureBatch, batch::Columns};
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Normalised numbers are held within +- this.
pub(crate) const CLIP: f32 = 5.0;
/// Root mean square of the embedding numbers after [`Normaliser::embedding_scale`]: about that of the other inputs at
/// their start, so that neither side of a token drowns the other in the first layer norm.
const EMBEDDING_RMS: f64 = 0.5;

/// Mean and deviation of every numeric feature, and one factor for all embedding features (tokens, candidates, users).
/// A missing number becomes the mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normaliser {
    /// Means of the numeric user features, in the schema's order.
    pub user_mean: Vec<f32>,
    /// Standard deviations, above 0.
    pub user_std: Vec<f32>,
    /// Means of the numeric item features.
    pub item_mean: Vec<f32>,
    /// Standard deviations, above 0.
    pub item_std: Vec<f32>,
    /// Factor on every embedding feature.
    pub embedding_scale: f32,
}

impl Normaliser {
    /// Leaves every number as it is (but for the clip).
    pub fn identity(schema: &Schema) -> Self {
        let (user, item) = (numeric(&schema.user_features), numeric(&schema.item_features));
        Self {
            user_mean: vec![0.0; user],
            user_std: vec![1.0; user],
            item_mean: vec![0.0; item],
            item_std: vec![1.0; item],
            embedding_scale: 1.0,
        }
    }

    /// Checks widths and that it can be divided by the deviations.
    pub(crate) fn validate(&self, user: usize, item: usize) -> Result<(), ModelError> {
        ModelError::length("normaliser.user_mean", user, self.user_mean.len())?;
        ModelError::length("normaliser.user_std", user, self.user_std.len())?;
        ModelError::length("normaliser.item_mean", item, self.item_mean.len())?;
        ModelError::length("normaliser.item_std", item, self.item_std.len())?;
        let all = self.user_mean.iter().chain(&self.item_mean).all(|x| x.is_finite());
        let std = self.user_std.iter().chain(&self.item_std);
        let fits = all && std.chain([&self.embedding_scale]).all(|x| x.is_finite() && *x > 0.0);
        if fits { Ok(()) } else { Err(ModelError::NotFinite("normaliser")) }
    }
}

fn numeric(kinds: &[FeatureKind]) -> usize {
    kinds.iter().filter(|k| matches!(k, FeatureKind::Numeric { .. })).count()
}

/// Sums for one column, around its first value so that large means lose no digits.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    shift: f64,
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, x: f32) {
        if !x.is_finite() {
            return;
        }
        if self.count == 0.0 {
            self.shift = f64::from(x);
        }
        let x = f64::from(x) - self.shift;
        self.count += 1.0;
        self.sum += x;
        self.squares += x * x;
    }

    /// (mean, deviation); a constant or empty column gets the deviation 1.
    fn finish(self) -> (f32, f32) {
        let n = self.count.max(1.0);
        let mean = self.sum / n;
        let deviation = (self.squares / n - mean * mean).max(0.0).sqrt();
        let large = deviation > 1e-6 * (1.0 + self.shift.abs());
        ((self.shift + mean) as f32, if large { deviation as f32 } else { 1.0 })
    }
}

/// Finds a [`Normaliser`] from batches, one pass.
#[derive(Debug, Clone)]
pub struct NormaliserFit {
    user: Vec<Moments>,
    item: Vec<Moments>,
    embedding_count: f64,
    embedding_squares: f64,
}

impl NormaliserFit {
    /// For batches of this schema.
    pub fn new(schema: &Schema) -> Self {
        Self {
            user: vec![Moments::default(); numeric(&schema.user_features)],
            item: vec![Moments::default(); numeric(&schema.item_features)],
            embedding_count: 0.0,
            embedding_squares: 0.0,
        }
    }

    /// Takes in one batch: requests weigh once, rows once.
    pub fn add(&mut self, batch: &FeatureBatch) {
        for (moments, columns) in [(&mut self.user, &batch.user), (&mut self.item, &batch.item)] {
            add_columns(moments, columns);
        }
        // Zeros stand for missing embeddings; they would only shrink the measure.
        for x in batch.candidate.iter().filter(|x| **x != 0.0 && x.is_finite()) {
            self.embedding_count += 1.0;
            self.embedding_squares += f64::from(*x) * f64::from(*x);
        }
    }

    /// The normaliser.
    pub fn finish(&self) -> Normaliser {
        let (user_mean, user_std) = self.user.iter().map(|m| m.finish()).unzip();
        let (item_mean, item_std) = self.item.iter().map(|m| m.finish()).unzip();
        let rms = (self.embedding_squares / self.embedding_count.max(1.0)).sqrt();
        let embedding_scale = if rms > 1e-12 { (EMBEDDING_RMS / rms) as f32 } else { 1.0 };
        Normaliser { user_mean, user_std, item_mean, item_std, embedding_scale }
    }
}

fn add_columns(moments: &mut [Moments], columns: &Columns) {
    if moments.is_empty() {
        return;
    }
    for row in columns.numeric.chunks_exact(moments.len()) {
        moments.iter_mut().zip(row).for_each(|(m, x)| m.add(*x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_survive_large_means_and_ignore_missing_values() {
        let mut m = Moments::default();
        [1e6f32, f32::NAN, 1e6 + 2.0, 1e6 + 4.0].into_iter().for_each(|x| m.add(x));
        let (mean, deviation) = m.finish();
        assert_eq!(mean, 1e6 + 2.0);
        assert!((deviation - (8f32 / 3.0).sqrt()).abs() < 1e-4, "{deviation}");
        let mut constant = Moments::default();
        (0..5).for_each(|_| constant.add(7.0));
        assert_eq!(constant.finish(), (7.0, 1.0));
        assert_eq!(Moments::default().finish(), (0.0, 1.0));
    }
}
