//! Scores made comparable from request to request, and what diversity is worth beside them.
//!
//! A value model's scores have any scale, so they are taken as standard deviations from their mean: the same `gamma` or
//! `alpha` then trades as much relevance in each request.

use super::residual::{Residuals, SPANNED};
use crate::select::config::{Diversity, SelectConfig};

/// Standard deviations from the mean; zeros where all are alike.
pub(super) fn relevance(scores: &[f32]) -> Vec<f32> {
    let n = scores.len().max(1) as f64;
    let mean = scores.iter().map(|s| f64::from(*s)).sum::<f64>() / n;
    let variance = scores.iter().map(|s| (f64::from(*s) - mean).powi(2)).sum::<f64>() / n;
    let scale = if variance > 0.0 { variance.sqrt().recip() } else { 0.0 };
    scores.iter().map(|s| ((f64::from(*s) - mean) * scale) as f32).collect()
}

/// What each candidate is worth in the next place.
pub(super) struct Worth {
    relevance: Vec<f32>,
    residuals: Option<Residuals>,
    diversity: Diversity,
    factor: f32,
    worth: Vec<f32>,
}

impl Worth {
    pub(super) fn new(scores: &[f32], embeddings: &[&[f32]], d: usize, config: &SelectConfig) -> Self {
        let (factor, window) = match config.diversity {
            Diversity::None => (0.0, 1),
            Diversity::Ssd => (config.ssd.gamma, config.ssd.window),
            Diversity::Dpp => (config.dpp.alpha, config.dpp.window),
        };
        let wanted = config.diversity != Diversity::None && d > 0;
        let relevance = relevance(scores);
        let residuals = wanted.then(|| Residuals::new(embeddings, d, window));
        let mut worth =
            Self { worth: relevance.clone(), relevance, residuals, diversity: config.diversity, factor };
        worth.value();
        worth
    }

    /// One a candidate; finite.
    pub(super) fn of(&self) -> &[f32] {
        &self.worth
    }

    /// A candidate takes the next place.
    pub(super) fn take(&mut self, at: usize) {
        if let Some(residuals) = &mut self.residuals {
            residuals.take(at);
        }
        self.value();
    }

    fn value(&mut self) {
        let Some(residuals) = &self.residuals else { return };
        let all = self.worth.iter_mut().zip(&self.relevance).zip(residuals.left());
        if self.diversity == Diversity::Dpp {
            all.for_each(|((w, r), left)| *w = dpp(*r, *left, self.factor));
            return;
        }
        let volume = self.factor * residuals.volume();
        all.for_each(|((w, r), left)| *w = r + volume * left.sqrt());
    }
}

/// The logarithm of what an item with quality exp(alpha x relevance / 2) adds to the determinant.
fn dpp(relevance: f32, left: f32, alpha: f32) -> f32 {
    alpha * relevance + left.max(SPANNED).ln()
}
