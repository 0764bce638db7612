//! The nearest of all items: every vector is read once for all queries of a request.

use super::catalogue::Catalogue;

/// Numbers that are summed side by side, so that the compiler may use its widest registers.
const LANES: usize = 16;

/// Unit vectors of one length to which the nearest are sought.
#[derive(Debug, Clone, Default)]
pub(super) struct Queries {
    /// queries x d.
    flat: Vec<f32>,
    dim: usize,
}

impl Queries {
    /// Those of `vectors` (any length) that have `dim` numbers, not all zero.
    pub(super) fn new<'a>(vectors: impl IntoIterator<Item = &'a [f32]>, dim: usize) -> Self {
        let fit = vectors.into_iter().filter(|v| dim > 0 && v.len() == dim && v.iter().any(|x| *x != 0.0));
        Self { flat: fit.flat_map(super::unit).collect(), dim }
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.flat.chunks_exact(self.dim.max(1))
    }
}

/// The best of what was seen: a list of at most twice `count`, cut where it is full.
#[derive(Debug)]
pub(super) struct Best {
    count: usize,
    /// Cosine of the worst that stays; what is below needs no look.
    floor: f32,
    seen: Vec<(f32, u32)>,
}

impl Best {
    pub(super) fn new(count: usize) -> Self {
        Self { count, floor: f32::NEG_INFINITY, seen: Vec::with_capacity(2 * count) }
    }

    pub(super) fn push(&mut self, cosine: f32, position: u32) {
        if cosine < self.floor {
            return;
        }
        self.seen.push((cosine, position));
        if self.seen.len() >= 2 * self.count.max(1) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.seen.len() > self.count {
            self.seen.select_nth_unstable_by(self.count, better);
            self.seen.truncate(self.count);
            self.floor = self.seen.iter().map(|(cosine, _)| *cosine).fold(f32::INFINITY, f32::min);
        }
    }

    /// Best first, ties by position.
    pub(super) fn into_positions(mut self) -> Vec<u32> {
        self.cut();
        self.seen.sort_unstable_by(better);
        self.seen.into_iter().map(|(_, position)| position).collect()
    }
}

fn better(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// For each query the `count` embedded items with the largest cosine, best first, ties by position.
pub(super) fn nearest(catalogue: &Catalogue, queries: &Queries, count: usize) -> Vec<Vec<u32>> {
    let mut best: Vec<Best> = queries.iter().map(|_| Best::new(count)).collect();
    if !best.is_empty() && count > 0 {
        catalogue.units().for_each(|(position, unit)| offer(&mut best, queries, position, unit));
    }
    best.into_iter().map(Best::into_positions).collect()
}

/// Shows an item to all queries.
pub(super) fn offer(best: &mut [Best], queries: &Queries, position: u32, unit: &[f32]) {
    for (best, query) in best.iter_mut().zip(queries.iter()) {
        best.push(dot(query, unit), position);
    }
}

/// In one order for all, so that a cosine is the same bits wherever it is computed.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    // By halves: one after another, the sum of 16 lanes takes longer than the products of 64 numbers.
    for half in [8, 4, 2, 1] {
        let (low, high) = lanes.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
    }
    lanes[0] + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_those_of_a_full_sort_ties_by_position() {
        let mut best = Best::new(5);
        let cosine = |i: u32| ((i * 7919) % 23) as f32 / 23.0;
        (0..1_000).for_each(|i| best.push(cosine(i), i));
        let mut all: Vec<(f32, u32)> = (0..1_000).map(|i| (cosine(i), i)).collect();
        all.sort_by(better);
        let want: Vec<u32> = all.iter().take(5).map(|(_, i)| *i).collect();
        assert_eq!(best.into_positions(), want);
        let mut none = Best::new(0);
        none.push(1.0, 1);
        assert!(none.into_positions().is_empty());
    }

    #[test]
    fn a_dot_of_any_length_is_the_sum_of_products_and_unfit_queries_are_left_out() {
        for n in [1, 15, 16, 17, 64, 100] {
            let a: Vec<f32> = (0..n).map(|i| i as f32 * 0.01 - 0.3).collect();
            let want: f64 = a.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            assert!((f64::from(dot(&a, &a)) - want).abs() < 1e-4, "{n}");
        }
        let queries = [&[3.0, 4.0][..], &[0.0, 0.0], &[1.0]];
        let queries = Queries::new(queries, 2);
        assert_eq!(queries.iter().collect::<Vec<_>>(), [[0.6, 0.8]]);
    }
}
