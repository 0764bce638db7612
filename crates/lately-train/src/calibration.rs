//! Calibration of a trained model on rows that its weights have not seen: the newest, as a model is used on what comes
//! after its training.
//!
//! Fitted on single rows, unweighted, without time window: as they are served. So it also takes back what label
//! weights and other settings do to the probabilities.

use lately_model::{Calibration, HeadCalibration, Model, ModelError};
use serde::{Deserialize, Serialize};

use crate::dataset::Slice;
use crate::predict;

/// How a head's probabilities are calibrated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationKind {
    /// Not at all; the weights are fitted on all rows.
    #[default]
    None,
    /// A slope and an intercept of the logit: 2 numbers, safe with few positives.
    Platt,
    /// Any rising function: follows every bend, needs more rows.
    Isotonic,
}

/// A head with fewer positives, or negatives, is left as it is: the rate itself is then uncertain by a third.
const LEAST: usize = 10;
/// Rows of the smallest step of an isotonic fit. Single rows would give steps of probability 0 and 1 at the ends.
const BIN: usize = 50;

/// Fits every head of `model` on a slice.
pub(crate) fn fit(
    model: &Model,
    slice: &Slice<'_>,
    kind: CalibrationKind,
    threads: usize,
) -> Result<Option<Calibration>, ModelError> {
    if kind == CalibrationKind::None {
        return Ok(None);
    }
    let mut raw = model.clone();
    raw.set_calibration(None)?;
    let (scores, heads) = (predict::own(slice, &raw, threads)?, slice.dataset.heads());
    let of = |head: usize| {
        let label = slice.iter().flat_map(|r| &r.candidates).map(|c| slice.dataset.label(c, head));
        let logits = scores.iter().skip(head).step_by(heads).map(|z| f64::from(*z));
        fit_head(&logits.zip(label).collect::<Vec<_>>(), kind)
    };
    Ok(Some(Calibration { heads: (0..heads).map(of).collect(), rows: slice.rows() as u64 }))
}

/// One head, from (logit, label).
fn fit_head(rows: &[(f64, bool)], kind: CalibrationKind) -> HeadCalibration {
    let positives = rows.iter().filter(|(_, y)| *y).count();
    if positives.min(rows.len() - positives) < LEAST {
        return HeadCalibration::IDENTITY;
    }
    match kind {
        CalibrationKind::None => HeadCalibration::IDENTITY,
        CalibrationKind::Platt => platt(rows, positives as f64),
        // One block says that the order is of no use: what is left to fit is the rate.
        CalibrationKind::Isotonic => match isotonic(rows) {
            knots if knots.len() > 1 => HeadCalibration::Isotonic { knots },
            _ => platt(rows, positives as f64),
        },
    }
}

/// Platt's scaling by Newton's method with backtracking (Lin, Lin and Weng 2007), with Platt's targets, which keep
/// classes that a line separates finite. Where the best slope is not above 0 the order would turn round: only the
/// intercept is fitted then.
fn platt(rows: &[(f64, bool)], positives: f64) -> HeadCalibration {
    let negatives = rows.len() as f64 - positives;
    let target = [1.0 / (negatives + 2.0), (positives + 1.0) / (positives + 2.0)];
    let rows: Vec<(f64, f64)> = rows.iter().map(|(z, y)| (*z, target[usize::from(*y)])).collect();
    let (slope, intercept) = match newton(&rows, true) {
        line @ (slope, _) if slope > 0.0 => line,
        _ => newton(&rows, false),
    };
    HeadCalibration::Platt { slope, intercept }
}

/// The line (slope, intercept) of least cross entropy from (1, 0) on; without `free` its slope stays 1.
fn newton(rows: &[(f64, f64)], free: bool) -> (f64, f64) {
    let loss = |(a, b): (f64, f64)| -> f64 {
        let of =
            |(z, t): &(f64, f64)| (a * z + b).max(0.0) - (a * z + b) * t + (-(a * z + b).abs()).exp().ln_1p();
        rows.iter().map(of).sum()
    };
    let (mut line, mut best) = ((1.0, 0.0), loss((1.0, 0.0)));
    for _ in 0..100 {
        let (da, db) = newton_step(rows, line, free);
        let halves = std::iter::successors(Some(1.0), |step| Some(step / 2.0)).take(30);
        let tried = halves.map(|step| (line.0 - step * da, line.1 - step * db)).map(|l| (l, loss(l)));
        let Some((next, lower)) = tried.into_iter().find(|(_, lower)| *lower < best) else { break };
        let gain = best - lower;
        (line, best) = (next, lower);
        if gain < 1e-10 * best {
            break;
        }
    }
    line
}

/// Inverse Hessian times gradient.
fn newton_step(rows: &[(f64, f64)], (a, b): (f64, f64), free: bool) -> (f64, f64) {
    let (mut ga, mut gb) = (0.0, 0.0);
    let (mut haa, mut hab, mut hbb) = (1e-12, 0.0, 1e-12); // not singular where all logits are equal
    for (z, t) in rows {
        let p = 1.0 / (1.0 + (-(a * z + b)).exp());
        let (d, w) = (p - t, p * (1.0 - p));
        (ga, gb) = (ga + d * z, gb + d);
        (haa, hab, hbb) = (haa + w * z * z, hab + w * z, hbb + w);
    }
    if !free {
        return (0.0, gb / hbb);
    }
    let determinant = haa * hbb - hab * hab;
    ((hbb * ga - hab * gb) / determinant, (haa * gb - hab * ga) / determinant)
}

/// Some neighbouring rows.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    rows: f64,
    logits: f64,
    positives: f64,
}

impl Block {
    fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            logits: self.logits + other.logits,
            positives: self.positives + other.positives,
        }
    }

    fn rate(self) -> f64 {
        self.positives / self.rows
    }
}

/// Isotonic regression by pooling adjacent violators (Ayer et al. 1955) over bins of [`BIN`] rows. A knot is a block's
/// mean logit and the logit of its rate, so that the function rises between blocks too instead of making ties.
fn isotonic(rows: &[(f64, bool)]) -> Vec<(f64, f64)> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut blocks: Vec<Block> = Vec::new();
    for bin in bins(&rows) {
        blocks.push(bin);
        while let [.., a, b] = blocks[..]
            && a.rate() >= b.rate()
        {
            blocks.truncate(blocks.len() - 2);
            blocks.push(a.plus(b));
        }
    }
    // Half a row keeps rates of 0 and 1 finite; it is below the step to any other rate.
    let least = 0.5 / (rows.len() as f64 + 1.0);
    let knot = |block: &Block| {
        let rate = block.rate().clamp(least, 1.0 - least);
        (block.logits / block.rows, (rate / (1.0 - rate)).ln())
    };
    blocks.iter().map(knot).collect()
}

/// Sorted rows in bins of at least [`BIN`], equal logits together, the last one joined to its neighbour if it is less.
fn bins(rows: &[(f64, bool)]) -> Vec<Block> {
    let mut bins: Vec<Block> = Vec::new();
    let mut open = Block::default();
    for (at, (z, y)) in rows.iter().enumerate() {
        open = open.plus(Block { rows: 1.0, logits: *z, positives: f64::from(u8::from(*y)) });
        let tied = rows.get(at + 1).is_some_and(|(next, _)| next == z);
        if open.rows >= BIN as f64 && !tied {
            bins.push(std::mem::take(&mut open));
        }
    }
    if open.rows > 0.0 {
        let last = bins.pop().unwrap_or_default();
        bins.push(last.plus(open));
    }
    bins
}

#[cfg(test)]
#[path = "calibration_tests.rs"]
mod tests;
