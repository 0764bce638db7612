//! What is kept of a variant: sums of four numbers a person and of their products.
//!
//! Plain sums and not running means: they can be added over days and groups, and a person whose numbers grew is taken out
//! and put in again. Per-person sums of actions have a spread of the size of their mean, so the cancellation costs two or
//! three of f64's sixteen digits.

use std::ops::AddAssign;

/// Numbers of a person.
const FIELDS: usize = 4;

/// One person's numbers for one metric.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Observation {
    /// Numerator since the first exposure: saves.
    pub of: f64,
    /// Denominator since then: impressions; 1 for a mean per person.
    pub per: f64,
    /// Numerator in the pre-period.
    pub of_before: f64,
    /// Denominator in the pre-period; 1 for a mean per person.
    pub per_before: f64,
}

impl Observation {
    /// A person's sum in a mean per person.
    pub fn mean(during: f64, before: f64) -> Self {
        Self { of: during, per: 1.0, of_before: before, per_before: 1.0 }
    }

    fn fields(&self) -> [f64; FIELDS] {
        [self.of, self.per, self.of_before, self.per_before]
    }
}

/// Sums over the people of a variant.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sums {
    people: f64,
    sum: [f64; FIELDS],
    product: [[f64; FIELDS]; FIELDS],
}

impl Sums {
    /// Counts a person in.
    pub fn add(&mut self, person: &Observation) {
        self.weigh(person, 1.0);
    }

    /// Takes a person out again, with the numbers that were counted in.
    pub fn remove(&mut self, person: &Observation) {
        self.weigh(person, -1.0);
    }

    fn weigh(&mut self, person: &Observation, weight: f64) {
        let fields = person.fields();
        self.people += weight;
        for (i, a) in fields.iter().enumerate() {
            self.sum[i] += weight * a;
            fields.iter().enumerate().for_each(|(j, b)| self.product[i][j] += weight * a * b);
        }
    }

    /// People.
    pub fn people(&self) -> f64 {
        self.people
    }

    /// The denominator: people, in a mean.
    pub(super) fn per(&self) -> f64 {
        self.sum[1]
    }

    /// Numerator over denominator; NaN where the denominator is 0.
    pub fn ratio(&self) -> f64 {
        self.sum[0] / self.sum[1]
    }

    /// The same of the pre-period.
    pub fn ratio_before(&self) -> f64 {
        self.sum[2] / self.sum[3]
    }

    /// Variance of the ratio, by the delta method.
    pub fn ratio_variance(&self) -> f64 {
        self.influence().during / self.people
    }

    /// Variances and covariance, over people, of the two ratios' influence: by the delta method a ratio R of sums moves
    /// with a person by (of - R per) / mean(per). Of a mean that is the person's own distance from it. Unbiased in the
    /// case of a mean.
    pub(super) fn influence(&self) -> Influence {
        let n = self.people;
        let lines = [line(0, self.ratio(), self.sum[1] / n), line(2, self.ratio_before(), self.sum[3] / n)];
        // The mean of an influence is 0, so that its mean product is its covariance.
        let covariance = |a: &[f64; FIELDS], b: &[f64; FIELDS]| {
            let terms = (0..FIELDS).flat_map(|i| (0..FIELDS).map(move |j| (i, j)));
            terms.map(|(i, j)| a[i] * b[j] * self.product[i][j]).sum::<f64>() / (n - 1.0)
        };
        Influence {
            during: covariance(&lines[0], &lines[0]).max(0.0),
            before: covariance(&lines[1], &lines[1]).max(0.0),
            both: covariance(&lines[0], &lines[1]),
        }
    }
}

/// The influence as weights of a person's fields.
fn line(at: usize, ratio: f64, mean_per: f64) -> [f64; FIELDS] {
    let mut weights = [0.0; FIELDS];
    if mean_per != 0.0 {
        weights[at] = 1.0 / mean_per;
        weights[at + 1] = -ratio / mean_per;
    }
    weights
}

/// Second moments of what a person moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Influence {
    pub(super) during: f64,
    pub(super) before: f64,
    pub(super) both: f64,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.people += other.people;
        self.sum.iter_mut().zip(other.sum).for_each(|(a, b)| *a += b);
        self.product.iter_mut().flatten().zip(other.product.iter().flatten()).for_each(|(a, b)| *a += b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_has_the_sample_variance_and_removal_undoes() {
        let mut sums = Sums::default();
        [1.0, 2.0, 6.0].iter().for_each(|y| sums.add(&Observation::mean(*y, 2.0 * y)));
        assert_eq!(sums.ratio(), 3.0);
        let of = sums.influence();
        assert!((of.during - 7.0).abs() < 1e-12 && (of.before - 28.0).abs() < 1e-12, "{of:?}");
        assert!((of.both - 14.0).abs() < 1e-12);
        let whole = sums;
        sums.add(&Observation::mean(40.0, 1.0));
        sums.remove(&Observation::mean(40.0, 1.0));
        assert_eq!(sums, whole);
    }

    #[test]
    fn the_influence_on_a_ratio_is_that_of_the_delta_method() {
        let people = [(1.0, 10.0), (0.0, 5.0), (3.0, 12.0), (2.0, 40.0)];
        let mut sums = Sums::default();
        let person = |(of, per)| Observation { of, per, ..Observation::default() };
        people.iter().for_each(|p| sums.add(&person(*p)));
        let (ratio, mean) = (6.0 / 67.0, 67.0 / 4.0);
        let by_hand = people.iter().map(|(y, d)| ((y - ratio * d) / mean).powi(2)).sum::<f64>() / 3.0;
        assert!((sums.influence().during - by_hand).abs() < 1e-12);
        assert_eq!(sums.influence().before, 0.0, "nobody has a past");
    }
}
