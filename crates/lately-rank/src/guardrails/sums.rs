//! What is known of a version, as sums by groups of people, and ratios of them with their variance.
//!
//! Rankings of one person, and items of one page, have much in common. So a person belongs to one of 64 groups by a hash,
//! and how far the groups lie apart says how uncertain a ratio over all is, whatever their members have in common.

/// Groups of people: enough for 63 degrees of freedom, and few enough to be all but free.
pub(super) const GROUPS: usize = 64;
/// Fewest groups with data of which a variance is taken.
const FEWEST: usize = 8;
/// A probability is held this far from 0 and 1 before its logit is taken.
const EDGE: f32 = 1e-6;

/// What is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// Rankings that the model was asked for.
    Asked,
    /// Of those: it failed.
    Failed,
    /// Of those: it could not score all in time.
    Late,
    /// Rankings in the log.
    Rankings,
    /// Their shown items.
    Items,
    /// Shown items whose actions were waited for.
    Matured,
    /// Of shown items, the logit of a head.
    Logit(usize),
    /// Of matured ones, its probability.
    Predicted(usize),
    /// Of matured ones, how many had it.
    Observed(usize),
}

/// Columns before those of heads, and of each head.
const PLAIN: usize = 6;
const OF_HEAD: usize = 3;

/// Sums by group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sums {
    width: usize,
    /// Groups x columns.
    sums: Vec<f64>,
    /// Of each head, the sum of its squared logits.
    squares: Vec<f64>,
}

/// A ratio of two sums.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ratio {
    pub(super) value: f64,
    pub(super) variance: f64,
    /// Of the variance.
    pub(super) freedom: f64,
    /// The sums.
    pub(super) over: f64,
    pub(super) under: f64,
}

impl Sums {
    pub(super) fn new(heads: usize) -> Self {
        let width = PLAIN + OF_HEAD * heads;
        Self { width, sums: vec![0.0; GROUPS * width], squares: vec![0.0; heads] }
    }

    fn at(&self, column: Column) -> usize {
        match column {
            Column::Asked => 0,
            Column::Failed => 1,
            Column::Late => 2,
            Column::Rankings => 3,
            Column::Items => 4,
            Column::Matured => 5,
            Column::Logit(head) => PLAIN + OF_HEAD * head,
            Column::Predicted(head) => PLAIN + OF_HEAD * head + 1,
            Column::Observed(head) => PLAIN + OF_HEAD * head + 2,
        }
    }

    pub(super) fn add(&mut self, group: usize, column: Column, amount: f64) {
        let at = group * self.width + self.at(column);
        self.sums[at] += amount;
    }

    /// Adds a shown item by its probabilities.
    pub(super) fn shown(&mut self, group: usize, probabilities: &[f32]) {
        self.add(group, Column::Items, 1.0);
        for (head, p) in probabilities.iter().enumerate() {
            let p = f64::from(p.clamp(EDGE, 1.0 - EDGE));
            let logit = (p / (1.0 - p)).ln();
            self.add(group, Column::Logit(head), logit);
            self.squares[head] += logit * logit;
        }
    }

    /// Both together.
    pub(super) fn plus(mut self, other: &Self) -> Self {
        self.sums.iter_mut().zip(&other.sums).for_each(|(a, b)| *a += b);
        self.squares.iter_mut().zip(&other.squares).for_each(|(a, b)| *a += b);
        self
    }

    fn column(&self, column: Column) -> impl Iterator<Item = f64> {
        self.sums.iter().skip(self.at(column)).step_by(self.width).copied()
    }

    pub(super) fn total(&self, column: Column) -> f64 {
        self.column(column).sum()
    }

    /// The standard deviation of a head's logits over items.
    pub(super) fn deviation(&self, head: usize) -> f64 {
        let items = self.total(Column::Items).max(1.0);
        let mean = self.total(Column::Logit(head)) / items;
        (self.squares[head] / items - mean * mean).max(0.0).sqrt()
    }

    /// One sum by another; `None` where too few groups have any of the other.
    pub(super) fn ratio(&self, over: Column, under: Column) -> Option<Ratio> {
        let pairs = || self.column(over).zip(self.column(under)).filter(|(_, under)| *under > 0.0);
        let groups = pairs().count();
        let (a, b) = pairs().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        if groups < FEWEST {
            return None;
        }
        let value = a / b;
        let spread = pairs().map(|(x, y)| (x - value * y).powi(2)).sum::<f64>();
        let freedom = (groups - 1) as f64;
        let variance = spread / (b * b) * groups as f64 / freedom;
        Some(Ratio { value, variance, freedom, over: a, under: b })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_as_uncertain_as_its_groups_lie_apart() {
        let mut sums = Sums::new(1);
        for group in 0..GROUPS {
            sums.add(group, Column::Asked, 10.0);
            sums.add(group, Column::Failed, if group % 2 == 0 { 1.0 } else { 3.0 });
        }
        let ratio = sums.ratio(Column::Failed, Column::Asked).unwrap();
        // Groups of 0.1 and 0.3: a standard deviation of 0.1 over the square root of 63.
        assert!((ratio.value - 0.2).abs() < 1e-12 && (ratio.variance - 0.01 / 63.0).abs() < 1e-12);
        assert_eq!((ratio.freedom, ratio.over, ratio.under), (63.0, 128.0, 640.0));
        let twice = sums.clone().plus(&sums);
        assert_eq!(twice.ratio(Column::Failed, Column::Asked).unwrap().variance, ratio.variance);
        assert_eq!(twice.total(Column::Asked), 1_280.0);
        assert_eq!(sums.ratio(Column::Observed(0), Column::Matured), None, "nothing matured");
    }

    #[test]
    fn logits_have_their_mean_and_deviation_and_extremes_stay_finite() {
        let mut sums = Sums::new(2);
        (0..16).for_each(|i| sums.shown(i, &[0.5, if i % 2 == 0 { 0.0 } else { 1.0 }]));
        assert_eq!(sums.deviation(0), 0.0);
        assert!((sums.deviation(1) - 13.8).abs() < 0.1, "{}", sums.deviation(1));
        let mean = sums.ratio(Column::Logit(1), Column::Items).unwrap();
        assert!(mean.value.abs() < 0.1 && mean.variance > 10.0, "{mean:?}");
    }
}
