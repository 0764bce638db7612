//! Softmax cross-entropy within lists (ListNet, Cao et al. 2007, in its top-1 form, with the labels as target).
//!
//! A number that is added to all logits of a list changes nothing, so that the term says nothing about how much a user
//! clicks in general: only the order within the list counts.

use crate::Real;

/// Lists of consecutive rows.
#[derive(Debug, Clone, Copy)]
pub struct Lists<'a> {
    /// Where lists begin and the last one ends, G + 1, not falling.
    pub offsets: &'a [u32],
    /// For each head the weight of its term, H; 0 leaves it out.
    pub head_weight: &'a [f32],
    /// For each row how many rows of its list it stands for, N; empty: each for itself.
    pub copies: &'a [f32],
}

/// Sum over lists and heads of `head_weight * sum_i t_i (ln sum_j c_j e^z_j - z_i)` with t = `weight` x `label`, and c =
/// `copies`. Its gradient for the logits is added to `gradient`. A list whose labels are all equal adds nothing.
///
/// `logits`, `label`, `weight` and `gradient` are N x H, `copies` N, of the rows from the first offset to the last. The
/// sum over positives, not their mean, makes the term as strong as binary cross-entropy: where all logits of a list
/// are equal, both have the gradient (share of positives - label) x weight.
pub fn cross_entropy<R: Real>(
    lists: Lists<'_>,
    logits: &[R],
    label: &[f32],
    weight: &[f32],
    gradient: &mut [R],
) -> f64 {
    let heads = lists.head_weight.len();
    let first = lists.offsets.first().map_or(0, |o| *o as usize);
    let mut total = 0.0;
    for bounds in lists.offsets.windows(2) {
        let rows = bounds[0] as usize - first..bounds[1] as usize - first;
        let copies = if lists.copies.is_empty() { &[][..] } else { &lists.copies[rows.clone()] };
        let at = rows.start * heads..rows.end * heads;
        let list = (&logits[at.clone()], &label[at.clone()], &weight[at.clone()]);
        for (head, factor) in lists.head_weight.iter().enumerate().filter(|(_, factor)| **factor != 0.0) {
            let column = Column { heads, head, factor: f64::from(*factor), copies };
            total += column.add(list, &mut gradient[at.clone()]);
        }
    }
    total
}

/// One head of one list.
struct Column<'a> {
    heads: usize,
    head: usize,
    factor: f64,
    copies: &'a [f32],
}

impl Column<'_> {
    fn of<'s, T>(&self, values: &'s [T]) -> impl Iterator<Item = &'s T> + Clone {
        values.iter().skip(self.head).step_by(self.heads)
    }

    /// In f64: a list is short, and its sum of exponentials decides every row's gradient.
    fn add<R: Real>(&self, (logits, label, weight): (&[R], &[f32], &[f32]), gradient: &mut [R]) -> f64 {
        let mut labels = self.of(label);
        if labels.next().is_none_or(|first| labels.all(|y| y == first)) {
            return 0.0;
        }
        let logits = self.of(logits).map(|z| z.to_f64());
        let target = self.of(label).zip(self.of(weight)).map(|(y, w)| f64::from(*y) * f64::from(*w));
        let copies = self.copies.iter().map(|c| f64::from(*c)).chain(std::iter::repeat(1.0));
        let largest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
        let share = logits.clone().zip(copies).map(|(z, c)| c * (z - largest).exp());
        let (sum, targets) = (share.clone().sum::<f64>(), target.clone().sum::<f64>());
        let log_sum = largest + sum.ln();
        let loss: f64 = logits.zip(target.clone()).map(|(z, t)| t * (log_sum - z)).sum();
        let out = gradient.iter_mut().skip(self.head).step_by(self.heads);
        for ((g, share), t) in out.zip(share).zip(target) {
            *g += R::from_f64(self.factor * (targets * share / sum - t));
        }
        self.factor * loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: usize = 2;
    /// Lists of 3, 0, 1, 4 and 2 rows, counted from row 5 of a larger batch.
    const OFFSETS: &[u32] = &[5, 8, 8, 9, 13, 15];

    fn case() -> (Vec<f64>, Vec<f32>, Vec<f32>, Vec<f32>) {
        let number = |i: usize, k: usize| ((i * 37 + k * 11) % 23) as f64 / 11.0 - 1.0;
        let logits = (0..10 * HEADS).map(|i| 3.0 * number(i, 1)).collect();
        let mut label: Vec<f32> = (0..10 * HEADS).map(|i| f32::from(u8::from(i % 5 < 2))).collect();
        label[8 * HEADS..].fill(1.0); // the last list has one class
        let weight = (0..10 * HEADS).map(|i| 0.5 + (i % 3) as f32).collect();
        let copies = (0..10).map(|i| if i % 4 == 0 { 3.0 } else { 1.0 }).collect();
        (logits, label, weight, copies)
    }

    /// The definition in plain loops.
    fn reference(lists: Lists<'_>, z: &[f64], y: &[f32], w: &[f32]) -> f64 {
        let mut total = 0.0;
        for bounds in lists.offsets.windows(2) {
            for h in 0..HEADS {
                let rows = (bounds[0] - 5) as usize..(bounds[1] - 5) as usize;
                let positive = rows.clone().filter(|r| y[r * HEADS + h] == 1.0).count();
                if positive == 0 || positive == rows.len() {
                    continue;
                }
                let sum: f64 =
                    rows.clone().map(|r| f64::from(lists.copies[r]) * z[r * HEADS + h].exp()).sum();
                for r in rows {
                    let i = r * HEADS + h;
                    total -= f64::from(lists.head_weight[h] * y[i] * w[i]) * (z[i].exp() / sum).ln();
                }
            }
        }
        total
    }

    #[test]
    fn is_the_reference_and_differentiates() {
        let (mut z, y, w, copies) = case();
        let lists = Lists { offsets: OFFSETS, head_weight: &[0.75, 2.0], copies: &copies };
        let mut gradient = vec![1.0; z.len()];
        let loss = cross_entropy(lists, &z, &y, &w, &mut gradient);
        assert!(loss > 1.0 && (loss - reference(lists, &z, &y, &w)).abs() < 1e-12, "{loss}");
        for i in 0..z.len() {
            let kept = z[i];
            let mut at = |step: f64| {
                z[i] = kept + step;
                reference(lists, &z, &y, &w)
            };
            let want = 1.0 + (at(1e-6) - at(-1e-6)) / 2e-6;
            z[i] = kept;
            assert!((gradient[i] - want).abs() < 1e-7, "{i}: {} but {want}", gradient[i]);
        }
        assert!(gradient[8 * HEADS..].iter().all(|g| *g == 1.0), "a list of one class adds nothing");
    }

    #[test]
    fn a_constant_on_a_whole_list_changes_nothing() {
        let (z, y, w, copies) = case();
        let lists = Lists { offsets: OFFSETS, head_weight: &[1.0, 0.0], copies: &copies };
        let of = |z: &[f64]| {
            let mut gradient = vec![0.0; z.len()];
            (cross_entropy(lists, z, &y, &w, &mut gradient), gradient)
        };
        let (loss, gradient) = of(&z);
        let shifted: Vec<f64> =
            z.iter().enumerate().map(|(i, z)| z + if i < 6 { 700.0 } else { -800.0 }).collect();
        let (same, again) = of(&shifted);
        assert!((loss - same).abs() < 1e-9, "{loss} {same}");
        assert!(gradient.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-9));
        assert!(gradient.iter().skip(1).step_by(2).all(|g| *g == 0.0), "a head of weight 0 is left out");
    }

    #[test]
    fn copies_count_as_rows_do() {
        // Two equal rows, or one that stands for two.
        let mut two = [0f64; 3];
        let both = Lists { offsets: &[0, 3], head_weight: &[1.0], copies: &[] };
        let loss = cross_entropy(both, &[0.3, -0.2, -0.2], &[1.0, 0.0, 0.0], &[1.0; 3], &mut two);
        let mut one = [0f64; 2];
        let copied = Lists { offsets: &[0, 2], head_weight: &[1.0], copies: &[1.0, 2.0] };
        let same = cross_entropy(copied, &[0.3, -0.2], &[1.0, 0.0], &[1.0; 2], &mut one);
        assert!((loss - same).abs() < 1e-12 && (two[1] + two[2] - one[1]).abs() < 1e-12);
    }
}
