//! Vectors from what people did with what they were shown, beyond what their own and the item's rate explain.
//!
//! Who meets an item is mostly the work of the system that shows it: co-occurrence learns exposure. The outcome of a
//! meeting less the smoothed rates of its two sides is free of that and of how generous a person is (the baseline
//! estimates of Koren, "Factorization Meets the Neighborhood", 2008). Factors of people and items are fitted to it, to the
//! pairs that met alone: alternating ridge regressions (Bell and Koren, 2007) from the truncated SVD.

use nalgebra::{DMatrix, DVector};

use super::histories::Outcome;
use super::sparse::Sparse;
use super::svd::truncated;
use super::{EmbedError, EmbedOptions, rescale};

/// Weight of the mean of all in an item's rate, in meetings.
const ITEM_PRIOR: f64 = 25.0;
/// Weight of the mean of all in a person's rate, in meetings.
const USER_PRIOR: f64 = 5.0;
/// Penalty of a person's factors, in meetings: most people have met few items.
const USER_RIDGE: f64 = 8.0;
/// Penalty of an item's factors, in meetings.
const ITEM_RIDGE: f64 = 1.6;
/// Passes over both sides.
const PASSES: usize = 10;

/// Vectors of `items` items, items x dim, scaled as those of [`super::ppmi_svd`], from the outcomes of `users` people,
/// each pair of person and item once.
///
/// # Errors
/// [`EmbedError::NoContrast`] where all outcomes are alike.
pub(super) fn residual_factors(
    outcomes: &[Outcome],
    (users, items): (usize, usize),
    options: &EmbedOptions,
) -> Result<Vec<f32>, EmbedError> {
    if outcomes.iter().all(|o| o.value == outcomes[0].value) {
        return Err(EmbedError::NoContrast);
    }
    let mut seen = vec![0u32; items];
    outcomes.iter().for_each(|o| seen[o.item as usize] += 1);
    let rest = residuals(outcomes, (users, items));
    let kept = outcomes.iter().zip(rest).filter(|(o, _)| seen[o.item as usize] >= options.min_count);
    let entries = kept.map(|(o, rest)| (o.item, o.user, rest)).collect();
    let by_item = Sparse::build(entries, items, users);
    let by_user = by_item.transposed();
    let (dim, svd) = (options.dim, truncated(&by_item, options.dim, options.iterations, options.seed));
    let root = svd.values.iter().cycle().map(|s| s.sqrt());
    let mut factors: Vec<f64> = svd.left.iter().zip(root).map(|(u, s)| u * s).collect();
    for _ in 0..PASSES {
        let people = ridge(&by_user, &factors, dim, USER_RIDGE);
        factors = ridge(&by_item, &people, dim, ITEM_RIDGE);
    }
    let mut out: Vec<f32> = factors.into_iter().map(|x| x as f32).collect();
    rescale(&mut out, dim);
    Ok(out)
}

/// For each row of the matrix the factors that best give its values from those of its columns, with a penalty.
fn ridge(matrix: &Sparse, other: &[f64], dim: usize, penalty: f64) -> Vec<f64> {
    let mut out = vec![0.0; matrix.rows() * dim];
    for (row, factors) in out.chunks_exact_mut(dim).enumerate().filter(|(row, _)| matrix.row(*row).len() > 0)
    {
        let mut left = DMatrix::from_diagonal_element(dim, dim, penalty);
        let mut right = DVector::zeros(dim);
        for (column, value) in matrix.row(row) {
            let x = DVector::from_column_slice(&other[column * dim..][..dim]);
            left.ger(1.0, &x, &x, 1.0);
            right.axpy(value, &x, 1.0);
        }
        // Positive definite by its penalty; where rounding made it not so, the row has no factors.
        if let Some(solved) = left.cholesky() {
            factors.copy_from_slice(solved.solve(&right).as_slice());
        }
    }
    out
}

/// What is left of each outcome after the mean, the item's and then the person's smoothed deviation from it.
fn residuals(outcomes: &[Outcome], (users, items): (usize, usize)) -> Vec<f64> {
    let mean = outcomes.iter().map(|o| o.value).sum::<f64>() / outcomes.len().max(1) as f64;
    let mut rest: Vec<f64> = outcomes.iter().map(|o| o.value - mean).collect();
    let mut without = |of: &dyn Fn(&Outcome) -> u32, sides: usize, prior: f64| {
        let mut sums = vec![(0.0, prior); sides];
        for (o, rest) in outcomes.iter().zip(&rest) {
            let sum = &mut sums[of(o) as usize];
            *sum = (sum.0 + rest, sum.1 + 1.0);
        }
        for (o, rest) in outcomes.iter().zip(&mut rest) {
            let (sum, weight) = sums[of(o) as usize];
            *rest -= sum / weight;
        }
    };
    without(&|o| o.item, items, ITEM_PRIOR);
    without(&|o| o.user, users, USER_PRIOR);
    rest
}

#[cfg(test)]
mod tests {
    use super::super::tests::near_and_far;
    use super::*;
    use crate::random::Random;

    /// People like the items of their own group more; everybody meets group 0 most, and every third person likes all.
    fn outcomes() -> Vec<Outcome> {
        let mut random = Random::of(3, &[]);
        let mut out = Vec::new();
        for user in 0..400u32 {
            for item in 0..40u32 {
                let met = random.uniform() < if item < 10 { 0.9 } else { 0.4 };
                let rate = if user % 3 == 0 {
                    0.9
                } else if user % 4 == item / 10 {
                    0.7
                } else {
                    0.2
                };
                let value = f64::from(u8::from(random.uniform() < rate));
                out.extend(met.then_some(Outcome { user, item, value }));
            }
        }
        out
    }

    #[test]
    fn taste_is_found_whatever_was_shown() {
        let options = EmbedOptions { dim: 3, ..EmbedOptions::default() };
        let vectors = residual_factors(&outcomes(), (400, 41), &options).unwrap();
        let (inside, across) = near_and_far(&vectors, 3);
        assert!(inside > 0.6 && across < 0.0, "{inside} against {across}");
        assert!(vectors[120..].iter().all(|x| *x == 0.0), "an item that nobody met has zeros");
    }

    #[test]
    fn rates_of_both_sides_leave_nothing_behind() {
        // Person 0 always likes, person 1 never: with many meetings little is left of either.
        let all = (0..2000u32).map(|n| Outcome { user: n % 2, item: n / 2, value: f64::from(n % 2 == 0) });
        let rest = residuals(&all.collect::<Vec<_>>(), (2, 1000));
        assert!(rest.iter().all(|r| r.abs() < 0.01), "{:?}", &rest[..4]);
    }

    #[test]
    fn outcomes_without_contrast_are_refused() {
        let alike: Vec<_> = outcomes().into_iter().map(|o| Outcome { value: 1.0, ..o }).collect();
        let result = residual_factors(&alike, (400, 41), &EmbedOptions::default());
        assert!(matches!(result, Err(EmbedError::NoContrast)));
    }
}
