//! How much of the target policy the log has seen: what an interval does not tell.

use serde::{Deserialize, Serialize};

/// Effective rows below which intervals are too narrow: the central limit theorem has not begun.
const FEW_EFFECTIVE_ROWS: f64 = 200.0;
/// Share of all weight in the top 1 % of rows that is worth a warning.
const HEAVY_TOP: f64 = 0.3;
/// Share of the target's own choices that were never shown that is worth a warning.
const UNSEEN: f64 = 0.01;
/// Standard errors by which the mean weight must differ from 1.
const SURELY: f64 = 3.0;

/// How the weights are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Rows.
    pub rows: u64,
    /// People.
    pub users: u64,
    /// Rows of equal weight that would tell as much: (sum w)^2 / sum w^2 (Kish 1965).
    pub effective_rows: f64,
    /// The same as a share of the rows.
    pub effective_share: f64,
    /// Share of all weight that the heaviest 1 % of rows have.
    pub top_percent_share: f64,
    /// The largest weight, before clipping.
    pub max_weight: f64,
    /// Estimated share of what the target shows that the log could not have shown: 1 - mean weight.
    pub unsupported: f64,
    /// Share of all weight that was clipped off.
    pub clipped_share: f64,
    /// What clipping took off the IPS estimate: its bias, estimated from the same rows.
    pub clipped_reward: f64,
}

/// Of raw weights, weights as used and rewards.
pub(super) fn overlap(raw: &[f64], used: &[f64], rewards: &[f64], users: usize) -> Overlap {
    let (n, total): (f64, f64) = (raw.len() as f64, used.iter().sum());
    let squares: f64 = used.iter().map(|w| w * w).sum();
    let mut heaviest = used.to_vec();
    heaviest.sort_by(|a, b| b.total_cmp(a));
    let top: f64 = heaviest.iter().take(raw.len().div_ceil(100)).sum();
    let of_raw: f64 = raw.iter().sum();
    let lost = raw.iter().zip(used).map(|(raw, used)| raw - used);
    let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
    Overlap {
        rows: raw.len() as u64,
        users: users as u64,
        effective_rows: share(total * total, squares),
        effective_share: share(total * total, squares) / n,
        top_percent_share: share(top, total),
        max_weight: raw.iter().fold(0.0, |a: f64, b| a.max(*b)),
        unsupported: 1.0 - of_raw / n,
        clipped_share: share(of_raw - total, of_raw),
        clipped_reward: lost.zip(rewards).map(|(lost, reward)| lost * reward).sum::<f64>() / n,
    }
}

/// What to know before believing an estimate.
pub(super) fn warnings(overlap: &Overlap, mean_error: f64) -> Vec<String> {
    let mut all = Vec::new();
    if overlap.effective_rows < FEW_EFFECTIVE_ROWS {
        all.push(format!(
            "{:.0} effective rows of {}: intervals are too narrow below {FEW_EFFECTIVE_ROWS}; log more exploration",
            overlap.effective_rows, overlap.rows
        ));
    }
    if overlap.top_percent_share > HEAVY_TOP {
        all.push(format!(
            "1 % of the rows has {:.0} % of the weight: a few rows decide; clip weights, or believe SNIPS",
            100.0 * overlap.top_percent_share
        ));
    }
    if overlap.unsupported > UNSEEN && overlap.unsupported > SURELY * mean_error {
        all.push(format!(
            "{:.1} % of what the target shows could not be in the log: IPS counts it as 0, SNIPS as like the rest",
            100.0 * overlap.unsupported
        ));
    }
    if overlap.unsupported < -UNSEEN && -overlap.unsupported > SURELY * mean_error {
        all.push("the mean weight is above 1: propensities or targets are wrong".to_owned());
    }
    if overlap.clipped_share > UNSEEN {
        all.push(format!(
            "clipping took {:.1} % of the weight and {:.2e} off the IPS estimate",
            100.0 * overlap.clipped_share,
            overlap.clipped_reward
        ));
    }
    all
}
