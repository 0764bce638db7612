//! Metrics of one scorer on one head and group of rows, weighted by user so that a bootstrap over users costs O(n) a
//! resample: everything is sorted and summed by user once.

use serde::{Deserialize, Serialize};

/// The numbers, of any kind: a value, an interval, samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics<T> {
    /// Area under the ROC curve over all pairs of rows; ties count half.
    pub auc: T,
    /// Mean over the users who have both classes of the AUC within the user's rows, each user counting once. Where a
    /// list is a user's day, all rows of a user have the sequence of the user's first request.
    pub user_auc: T,
    /// Mean over the lists that have both classes of the AUC within the list, scored as for `hit_at_3`.
    pub list_auc: T,
    /// Mean over lists of the positives among the three best, all with the sequence of the list's start.
    pub hit_at_3: T,
    /// Mean cross entropy, nats a row.
    pub log_loss: T,
    /// Mean predicted probability divided by the observed rate; 1 is right, more is too high.
    pub calibration: T,
    /// As `user_auc`, each row with its own sequence. Biased low where that holds outcomes of other rows: see
    /// [`crate::predict`]. The same as `user_auc` where a list is a request.
    pub user_auc_streaming: T,
}

/// Position of HIT@3 in [`Metrics::each`].
pub(crate) const HIT_AT_3: usize = 3;

impl<T> Metrics<T> {
    /// All of them, always in the order of the fields.
    pub fn each(&self) -> [&T; 7] {
        [
            &self.auc,
            &self.user_auc,
            &self.list_auc,
            &self.hit_at_3,
            &self.log_loss,
            &self.calibration,
            &self.user_auc_streaming,
        ]
    }

    /// Builds them by their position in [`Metrics::each`].
    pub fn build(mut of: impl FnMut(usize) -> T) -> Self {
        Self {
            auc: of(0),
            user_auc: of(1),
            list_auc: of(2),
            hit_at_3: of(HIT_AT_3),
            log_loss: of(4),
            calibration: of(5),
            user_auc_streaming: of(6),
        }
    }
}

/// One row as the metrics see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// The user's number in the evaluation.
    pub(crate) user: u32,
    /// With the row's own sequence.
    pub(crate) score: f32,
    /// With the sequence of the user's first request.
    pub(crate) fixed: f32,
    pub(crate) label: bool,
}

/// One list as the metrics see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranked {
    pub(crate) user: u32,
    /// Positives among the three best.
    pub(crate) hits: u32,
    /// AUC within the list; `None` where a class is absent.
    pub(crate) auc: Option<f64>,
}

/// What a user adds to the sums.
#[derive(Debug, Clone, Copy, Default)]
struct UserSums {
    user: u32,
    rows: f64,
    positives: f64,
    predicted: f64,
    log_loss: f64,
    user_auc: Mean,
    user_auc_streaming: Mean,
    list_auc: Mean,
    hits: Mean,
}

/// Sum and number of what is defined.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn push(&mut self, value: Option<f64>) {
        self.sum += value.unwrap_or(0.0);
        self.count += f64::from(u8::from(value.is_some()));
    }

    fn add(&mut self, other: Self, weight: f64) {
        self.sum += weight * other.sum;
        self.count += weight * other.count;
    }

    fn value(self) -> f64 {
        if self.count > 0.0 { self.sum / self.count } else { f64::NAN }
    }
}

/// One scorer, head and group, ready for any weights of users.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// By ascending score: user << 2 | label << 1 | whether a new score begins.
    order: Vec<u32>,
    users: Vec<UserSums>,
    logits: bool,
}

impl Prepared {
    /// Sorts and sums.
    pub(crate) fn new(mut rows: Vec<Row>, lists: &[Ranked], users: usize, logits: bool) -> Self {
        rows.sort_by(|a, b| a.score.total_cmp(&b.score));
        let mut order = Vec::with_capacity(rows.len());
        let mut sums = vec![UserSums::default(); users];
        let mut own = vec![Vec::<Row>::new(); users];
        let mut before = f32::NAN;
        for row in &rows {
            order.push(row.user << 2 | u32::from(row.label) << 1 | u32::from(row.score != before));
            before = row.score;
            let sum = &mut sums[row.user as usize];
            let (score, label) = (f64::from(row.score), f64::from(u8::from(row.label)));
            sum.rows += 1.0;
            sum.positives += label;
            sum.predicted += 1.0 / (1.0 + (-score).exp());
            sum.log_loss += score.max(0.0) - score * label + (-score.abs()).exp().ln_1p();
            own[row.user as usize].push(*row);
        }
        for (sum, mut own) in sums.iter_mut().zip(own) {
            sum.user_auc_streaming.push(auc_sorted(own.iter().map(|r| (r.score, r.label))));
            own.sort_by(|a, b| a.fixed.total_cmp(&b.fixed));
            sum.user_auc.push(auc_sorted(own.iter().map(|r| (r.fixed, r.label))));
        }
        for list in lists {
            let sum = &mut sums[list.user as usize];
            sum.hits.push(Some(f64::from(list.hits)));
            sum.list_auc.push(list.auc);
        }
        let numbered = (0..).zip(sums).map(|(user, s)| UserSums { user, ..s });
        let users = numbered.filter(|s| s.rows > 0.0 || s.hits.count > 0.0).collect();
        Self { order, users, logits }
    }

    /// The metrics where user u counts `weights[u]` times; NaN where one is not defined.
    pub(crate) fn weighted(&self, weights: &[u32]) -> Metrics<f64> {
        let mut sum = UserSums::default();
        for s in &self.users {
            let weight = f64::from(weights[s.user as usize]);
            sum.rows += weight * s.rows;
            sum.positives += weight * s.positives;
            sum.predicted += weight * s.predicted;
            sum.log_loss += weight * s.log_loss;
            sum.user_auc.add(s.user_auc, weight);
            sum.user_auc_streaming.add(s.user_auc_streaming, weight);
            sum.list_auc.add(s.list_auc, weight);
            sum.hits.add(s.hits, weight);
        }
        let ratio = |sum: f64, count: f64| if self.logits { Mean { sum, count }.value() } else { f64::NAN };
        Metrics {
            auc: self.auc(weights),
            user_auc: sum.user_auc.value(),
            list_auc: sum.list_auc.value(),
            hit_at_3: sum.hits.value(),
            log_loss: ratio(sum.log_loss, sum.rows),
            calibration: ratio(sum.predicted, sum.positives),
            user_auc_streaming: sum.user_auc_streaming.value(),
        }
    }

    fn auc(&self, weights: &[u32]) -> f64 {
        let mut pairs = Pairs::default();
        for entry in &self.order {
            if entry & 1 == 1 {
                pairs.close();
            }
            pairs.add(entry & 2 != 0, u64::from(weights[(entry >> 2) as usize]));
        }
        pairs.auc().unwrap_or(f64::NAN)
    }
}

/// Counts of (positive, negative) pairs over rows by ascending score.
#[derive(Default)]
struct Pairs {
    positives: u64,
    negatives: u64,
    /// Weights of the rows with the current score: negatives, positives.
    tie: (u64, u64),
    /// Twice the pairs that are in order, ties counting half.
    twice: u128,
}

impl Pairs {
    fn add(&mut self, label: bool, weight: u64) {
        if label { self.tie.1 += weight } else { self.tie.0 += weight }
    }

    fn close(&mut self) {
        let (negatives, positives) = std::mem::take(&mut self.tie);
        self.twice += u128::from(positives) * u128::from(2 * self.negatives + negatives);
        self.negatives += negatives;
        self.positives += positives;
    }

    fn auc(mut self) -> Option<f64> {
        self.close();
        let all = 2 * u128::from(self.positives) * u128::from(self.negatives);
        (all > 0).then(|| self.twice as f64 / all as f64)
    }
}

/// AUC of rows that come by ascending score; `None` where one class is absent.
pub(crate) fn auc_sorted(rows: impl Iterator<Item = (f32, bool)>) -> Option<f64> {
    let mut pairs = Pairs::default();
    let mut before = f32::NAN;
    for (score, label) in rows {
        if score != before {
            pairs.close();
        }
        before = score;
        pairs.add(label, 1);
    }
    pairs.auc()
}

/// AUC by ranks, ties counting half; `None` where one class is absent.
pub fn auc(scores: &[f32], labels: &[bool]) -> Option<f64> {
    let mut rows: Vec<_> = scores.iter().copied().zip(labels.iter().copied()).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    auc_sorted(rows.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// By the definition: over all pairs.
    fn brute(rows: &[Row], weights: &[u32]) -> f64 {
        let (mut won, mut all) = (0.0, 0.0);
        for p in rows.iter().filter(|r| r.label) {
            for n in rows.iter().filter(|r| !r.label) {
                let weight = f64::from(weights[p.user as usize] * weights[n.user as usize]);
                all += weight;
                won += weight * if p.score == n.score { 0.5 } else { f64::from(u8::from(p.score > n.score)) };
            }
        }
        won / all
    }

    #[test]
    fn auc_is_that_of_all_pairs_with_ties_and_weights() {
        let mut random = Random::of(3, &[]);
        for round in 0..20 {
            let values = 2 + round; // few values make many ties
            let rows: Vec<Row> = (0..60)
                .map(|_| Row {
                    user: random.below(9) as u32,
                    score: random.below(values) as f32 - 1.5,
                    fixed: 0.0,
                    label: random.uniform() < 0.3,
                })
                .collect();
            let weights: Vec<u32> = (0..9).map(|_| random.below(4) as u32).collect();
            let prepared = Prepared::new(rows.clone(), &[], 9, true);
            let want = brute(&rows, &weights);
            assert!((prepared.weighted(&weights).auc - want).abs() < 1e-12, "round {round}");
            let (scores, labels): (Vec<_>, Vec<_>) = rows.iter().map(|r| (r.score, r.label)).unzip();
            assert!((auc(&scores, &labels).unwrap() - brute(&rows, &[1; 9])).abs() < 1e-12);
        }
        assert_eq!(auc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(auc(&[0.1, 0.2], &[false, true]), Some(1.0));
    }

    #[test]
    fn the_other_metrics_follow_their_definitions() {
        // With the fixed sequence the order is the other way round.
        let row = |user, score, label| Row { user, score, fixed: -score, label };
        let list = |user, hits, auc| Ranked { user, hits, auc };
        // With own sequences user 0: AUC 1; user 1: AUC 0; user 2 has one class only.
        let rows = vec![
            row(0, 1.0, true),
            row(0, -1.0, false),
            row(1, 0.0, true),
            row(1, 2.0, false),
            row(2, 0.0, false),
        ];
        let lists = [list(0, 1, Some(1.0)), list(1, 0, None), list(1, 3, Some(0.25))];
        let prepared = Prepared::new(rows, &lists, 4, true);
        let m = prepared.weighted(&[1, 1, 1, 1]);
        assert_eq!((m.user_auc, m.user_auc_streaming, m.list_auc), (0.5, 0.5, 0.625));
        assert!((m.hit_at_3 - 4.0 / 3.0).abs() < 1e-12);
        let p = |x: f64| 1.0 / (1.0 + (-x).exp());
        let loss = -(p(1.0).ln() + p(1.0).ln() + 0.5f64.ln() + (1.0 - p(2.0)).ln() + 0.5f64.ln()) / 5.0;
        assert!((m.log_loss - loss).abs() < 1e-12);
        assert!((m.calibration - (p(1.0) + p(-1.0) + 0.5 + p(2.0) + 0.5) / 2.0).abs() < 1e-12);
        let twice = prepared.weighted(&[2, 1, 0, 1]);
        assert_eq!((twice.user_auc, twice.user_auc_streaming), (1.0 / 3.0, 2.0 / 3.0));
        assert_eq!((twice.list_auc, twice.hit_at_3), (2.25 / 3.0, 5.0 / 4.0));
        assert!(prepared.weighted(&[0, 0, 1, 1]).list_auc.is_nan());
        assert!(prepared.weighted(&[0, 0, 1, 1]).auc.is_nan());
    }
}
