//! How much of each candidate's direction the latest chosen items do not span already: what SSD and DPP both need.
//!
//! With unit vectors x, G the Gram matrix of the chosen ones in the window and L L' = G (Cholesky), the squared distance
//! of x from their span is 1 - |y|^2 where L y = (<x, x_1>, .., <x, x_w>). A new item adds one row to L and y (Chen,
//! Zhang, Zhou 2018); when one leaves the window both are made anew from kept products, in w^2 / 2 operations a
//! candidate, which is exact where adding its projection back (Huang et al. 2021, algorithm 1) is not.

/// A direction counts as spanned where less than this of its squared length is left: f32 holds no more.
pub(super) const SPANNED: f32 = 1e-4;

/// Unit vectors, dimension-major, so that loops run over candidates.
pub(super) struct Residuals {
    /// d x n.
    vectors: Vec<f32>,
    /// Whether a candidate has a vector.
    known: Vec<bool>,
    n: usize,
    window: usize,
    chosen: Vec<Chosen>,
    /// Squared length of what is left, one a candidate; 1 where it has no vector.
    left: Vec<f32>,
}

/// A chosen item of the window.
struct Chosen {
    /// Which; `None`: it has no vector, and only takes a place.
    at: Option<usize>,
    /// Its products with all candidates.
    products: Vec<f32>,
    /// Its row of y, one a candidate; empty where it is spanned by those before it.
    row: Vec<f32>,
    /// Its squared distance from those before it.
    left: f32,
}

impl Residuals {
    /// Of `d` numbers a candidate and any length; another number of them, or zeros: no vector.
    pub(super) fn new(embeddings: &[&[f32]], d: usize, window: usize) -> Self {
        let n = embeddings.len();
        let mut vectors = vec![0.0; d * n];
        let mut known = vec![false; n];
        for (i, embedding) in embeddings.iter().enumerate() {
            let norm = embedding.iter().map(|x| x * x).sum::<f32>().sqrt();
            if embedding.len() == d && norm > 0.0 && norm.is_finite() {
                known[i] = true;
                embedding.iter().enumerate().for_each(|(k, x)| vectors[k * n + i] = x / norm);
            }
        }
        Self { vectors, known, n, window: window.max(1), chosen: Vec::new(), left: vec![1.0; n] }
    }

    /// Squared distance of each candidate from the span of the window, 0 to 1.
    pub(super) fn left(&self) -> &[f32] {
        &self.left
    }

    /// Volume of the chosen items that the next one joins; those that are spanned by others do not count.
    pub(super) fn volume(&self) -> f32 {
        self.chosen.iter().filter(|c| !c.row.is_empty()).map(|c| c.left.sqrt()).product()
    }

    /// Takes a candidate. The window holds what the next one is held against: `window` - 1 items.
    pub(super) fn take(&mut self, at: usize) {
        let products = if self.known[at] { self.products(at) } else { Vec::new() };
        let at = self.known[at].then_some(at);
        self.chosen.push(Chosen { at, products, row: Vec::new(), left: 1.0 });
        if self.chosen.len() < self.window {
            self.span(self.chosen.len() - 1);
            return;
        }
        self.chosen.remove(0);
        self.left.fill(1.0);
        (0..self.chosen.len()).for_each(|k| self.span(k));
    }

    /// Makes the row of the chosen item `k` from those before it, and takes it off what is left.
    fn span(&mut self, k: usize) {
        let (before, rest) = self.chosen.split_at_mut(k);
        let own = &mut rest[0];
        own.row.clear();
        let Some(at) = own.at else { return };
        own.left = self.left[at];
        if own.left < SPANNED {
            return;
        }
        own.row.extend_from_slice(&own.products);
        for earlier in before.iter().filter(|c| !c.row.is_empty()) {
            let factor = earlier.row[at];
            own.row.iter_mut().zip(&earlier.row).for_each(|(y, e)| *y -= factor * e);
        }
        let scale = own.left.sqrt().recip();
        for (y, left) in own.row.iter_mut().zip(&mut self.left) {
            *y *= scale;
            *left = (*left - *y * *y).max(0.0);
        }
    }

    fn products(&self, at: usize) -> Vec<f32> {
        let mut out = vec![0.0f32; self.n];
        for row in self.vectors.chunks_exact(self.n) {
            let factor = row[at];
            out.iter_mut().zip(row).for_each(|(o, x)| *o += factor * x);
        }
        out
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gram-Schmidt in f64 over the window, from scratch: (volume, squared distance of each from its span).
    pub(in crate::select) fn plain(
        embeddings: &[Vec<f32>],
        chosen: &[usize],
        window: usize,
    ) -> (f64, Vec<f64>) {
        let unit = |v: &[f32]| {
            let norm = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            v.iter().map(|x| if norm > 0.0 { f64::from(*x) / norm } else { 0.0 }).collect::<Vec<f64>>()
        };
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut basis: Vec<Vec<f64>> = Vec::new();
        let reduce = |basis: &[Vec<f64>], mut v: Vec<f64>| {
            for b in basis {
                let along = dot(b, &v);
                v.iter_mut().zip(b).for_each(|(v, b)| *v -= along * b);
            }
            v
        };
        let mut volume = 1.0;
        for at in &chosen[chosen.len().saturating_sub(window - 1)..] {
            let rest = reduce(&basis, unit(&embeddings[*at]));
            let left = dot(&rest, &rest);
            if left >= f64::from(SPANNED) {
                volume *= left.sqrt();
                basis.push(rest.iter().map(|x| x / left.sqrt()).collect());
            }
        }
        let of = |v: &Vec<f32>| {
            let rest = reduce(&basis, unit(v));
            if v.iter().all(|x| *x == 0.0) { 1.0 } else { dot(&rest, &rest) }
        };
        (volume, embeddings.iter().map(of).collect())
    }

    proptest! {
        #[test]
        fn what_is_left_is_that_of_gram_schmidt_from_scratch(
            vectors in prop::collection::vec(prop::collection::vec(-1.0f32..1.0, 8), 9),
            order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(),
            window in 1usize..7,
            empty in 0usize..9,
        ) {
            let mut vectors = vectors;
            vectors[empty].fill(0.0);
            let views: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
            let mut residuals = Residuals::new(&views, 8, window);
            for n in 0..order.len() {
                let (volume, left) = plain(&vectors, &order[..n], window);
                prop_assert!((f64::from(residuals.volume()) - volume).abs() < 2e-3);
                for (a, b) in residuals.left().iter().zip(&left) {
                    prop_assert!((f64::from(*a) - b).abs() < 2e-3, "{a} for {b}");
                }
                residuals.take(order[n]);
            }
        }
    }

    #[test]
    fn a_copy_of_a_chosen_item_has_nothing_left_until_it_leaves_the_window() {
        let (a, b) = ([1.0, 0.0], [0.0, 2.0]);
        let mut residuals = Residuals::new(&[&a, &a, &b, &[]], 2, 2);
        residuals.take(0);
        assert_eq!(residuals.left(), [0.0, 0.0, 1.0, 1.0]);
        residuals.take(1);
        assert_eq!(residuals.left(), [0.0, 0.0, 1.0, 1.0], "one that is spanned spans as before");
        residuals.take(2);
        assert_eq!(residuals.left(), [1.0, 1.0, 0.0, 1.0]);
        residuals.take(3);
        assert_eq!(residuals.left(), [1.0; 4]);
    }
}
