//! Whether a trained challenger may take the champion's place.

use lately_model::{Golden, Model, Scratch, probability};

use super::{Failure, GateConfig, GateError, Latency, Verdict};
use crate::drift::psi;
use crate::eval::{EvalReport, Group, GroupReport};
use crate::scores::Scores;

/// Segments whose calibration is judged.
const SEGMENTS: [Group; 3] = [Group::All, Group::Core, Group::NonCore];
/// Bins of a score's distribution, by quantiles of the champion's.
const BINS: usize = 10;
/// Largest difference of a golden row's probability.
const GOLDEN_ERROR: f64 = 1e-5;

/// A challenger, the champion if there is one, and what both make of the newest rows, which neither has seen.
#[derive(Debug, Clone, Copy)]
pub struct Contest<'a> {
    /// The challenger.
    pub challenger: &'a Model,
    /// Scores of the held-out rows: the challenger's, then the champion's.
    pub scores: &'a [Scores],
    /// Their evaluation, in this order.
    pub report: &'a EvalReport,
    /// Rows that are published with the challenger.
    pub golden: &'a Golden,
    /// What a candidate costs; `None`: not judged.
    pub latency: Option<Latency>,
}

/// Judges a challenger.
///
/// # Errors
/// Where it cannot score its golden rows.
pub fn judge(contest: &Contest<'_>, config: &GateConfig) -> Result<Verdict, GateError> {
    let Contest { challenger, scores, report, golden, latency } = contest;
    let mut verdict = Verdict::default();
    for parameter in challenger.parameters().iter().filter(|p| p.data.iter().any(|x| !x.is_finite())) {
        verdict.failures.push(Failure::NotFinite { parameter: parameter.name.clone() });
    }
    for (at, head) in report.heads.iter().enumerate() {
        judge_head(&mut verdict, report, &head.head, config);
        verdict.failures.extend(judge_logits(scores, (at, report.heads.len()), &head.head, config));
    }
    if verdict.not_judged.len() == report.heads.len() {
        verdict.failures.push(Failure::NothingJudged { min_positives: config.min_positives });
    }
    verdict.failures.extend(judge_golden(challenger, golden)?);
    verdict.failures.extend(latency.and_then(|latency| judge_latency(latency, config)));
    Ok(verdict)
}

fn judge_head(verdict: &mut Verdict, report: &EvalReport, head: &str, config: &GateConfig) {
    let Some(group) = report.group(head, Group::All) else { return };
    if group.positives < config.min_positives {
        verdict.not_judged.push(head.to_owned());
        verdict.failures.extend(log_loss(group, head, config));
        return;
    }
    let segments = SEGMENTS.iter().filter_map(|segment| report.group(head, *segment));
    let judged = segments.filter(|group| group.positives >= config.min_positives);
    verdict.failures.extend(judged.filter_map(|group| calibration(group, head, config)));
    verdict.failures.extend(log_loss(group, head, config));
    verdict.failures.extend(auc(group, head, config));
}

fn calibration(group: &GroupReport, head: &str, config: &GateConfig) -> Option<Failure> {
    let ratio = &group.scorers.first()?.metrics.calibration;
    let (value, from, to) = (ratio.value?, ratio.low?, ratio.high?);
    let (low, high) = (config.calibration_low, config.calibration_high);
    (to < low || from > high).then(|| Failure::Calibration {
        head: head.to_owned(),
        segment: group.group.words(),
        value,
        from,
        to,
        low,
        high,
    })
}

fn log_loss(group: &GroupReport, head: &str, config: &GateConfig) -> Option<Failure> {
    let of = |at: usize| group.scorers.get(at)?.metrics.log_loss.value;
    let (challenger, champion) = (of(0)?, of(1)?);
    let proven = group.differences.first().and_then(|d| d.metrics.log_loss.low).unwrap_or(f64::NEG_INFINITY);
    let (margin, tolerance) = (config.log_loss_margin, config.log_loss_tolerance);
    let rise = challenger / champion - 1.0;
    let worse = rise > margin || (proven > 0.0 && rise > tolerance);
    worse.then(|| Failure::LogLoss { head: head.to_owned(), challenger, champion, margin, tolerance })
}

fn auc(group: &GroupReport, head: &str, config: &GateConfig) -> Option<Failure> {
    let of = |at: usize| group.scorers.get(at)?.metrics.auc.value;
    let (challenger, champion) = (of(0)?, of(1)?);
    let proven = group.differences.first().and_then(|d| d.metrics.auc.high).unwrap_or(f64::INFINITY);
    let (margin, tolerance) = (config.auc_margin, config.auc_tolerance);
    let fall = champion - challenger;
    let worse = fall > margin || (proven < 0.0 && fall > tolerance);
    worse.then(|| Failure::Auc { head: head.to_owned(), challenger, champion, margin, tolerance })
}

/// Range and spread of the challenger's logits, and how far its probabilities lie from the champion's.
fn judge_logits(
    scores: &[Scores],
    (head, heads): (usize, usize),
    name: &str,
    config: &GateConfig,
) -> Vec<Failure> {
    let column = |scores: &Scores| -> Vec<f64> {
        scores.rows.iter().skip(head).step_by(heads).map(|z| f64::from(*z)).collect()
    };
    let Some(own) = scores.first().map(column) else { return Vec::new() };
    let mut failures = Vec::new();
    let head = || name.to_owned();
    let value = own.iter().fold(0.0f64, |most, z| most.max(z.abs()));
    if value > config.max_logit {
        failures.push(Failure::Logit { head: head(), value, bound: config.max_logit });
    }
    let mean = own.iter().sum::<f64>() / own.len().max(1) as f64;
    let spread = (own.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / own.len().max(1) as f64).sqrt();
    if spread < config.min_spread {
        failures.push(Failure::Spread { head: head(), value: spread, bound: config.min_spread });
    }
    if let Some(other) = scores.get(1).map(column) {
        let psi = shift(&other, &own);
        if psi > config.score_shift {
            failures.push(Failure::ScoreShift { head: head(), psi, bound: config.score_shift });
        }
    }
    failures
}

/// Population stability index of two columns, in bins that hold as many of the first each.
fn shift(before: &[f64], now: &[f64]) -> f64 {
    let mut sorted = before.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut edges: Vec<f64> = (1..BINS).map(|at| sorted[at * (sorted.len() - 1) / BINS]).collect();
    edges.dedup();
    let shares = |column: &[f64]| {
        let mut shares = vec![0.0; edges.len() + 1];
        for z in column {
            shares[edges.partition_point(|edge| edge < z)] += 1.0 / column.len() as f64;
        }
        shares
    };
    psi(&shares(before), &shares(now), before.len() as f64, now.len() as f64)
}

fn judge_golden(model: &Model, golden: &Golden) -> Result<Option<Failure>, GateError> {
    let again = model.score(golden.batch(), &mut Scratch::default())?;
    let difference = |(a, b): (&f32, &f32)| f64::from((probability(*a) - probability(*b)).abs());
    let error = golden.logits().iter().zip(&again).map(difference).fold(0.0, f64::max);
    let rows = golden.batch().rows();
    let bad = rows == 0 || error.is_nan() || error > GOLDEN_ERROR;
    Ok(bad.then_some(Failure::Golden { rows, error }))
}

fn judge_latency(latency: Latency, config: &GateConfig) -> Option<Failure> {
    let absolute = if config.latency_us > 0.0 { config.latency_us } else { f64::INFINITY };
    let relative = latency.champion.map_or(f64::INFINITY, |us| us * config.latency_ratio);
    let (bound, challenger) = (absolute.min(relative), latency.challenger);
    let champion = latency.champion.unwrap_or_default();
    (challenger > bound).then_some(Failure::Latency { challenger, champion, bound })
}
