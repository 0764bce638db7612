//! The three estimates, each a ratio of sums over people, so that its variance is the delta method's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::overlap::{Overlap, overlap, warnings};
use super::{Logged, OffPolicyError, OffPolicySettings};
use crate::statistics::{Observation, Sums, two_sided};

/// An estimate with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Mean reward of a shown item.
    pub value: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What a target policy would have earned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What the logging policy did earn.
    pub logged: Value,
    /// By inverse propensity.
    pub ips: Value,
    /// By self-normalised inverse propensity; `None` where no row has a weight.
    pub snips: Option<Value>,
    /// Doubly robust; `None` where a row has no prediction.
    pub doubly_robust: Option<Value>,
    /// How much of the target the log has seen.
    pub overlap: Overlap,
    /// What to know before believing an estimate.
    pub warnings: Vec<String>,
}

/// What a person's rows add up to.
#[derive(Debug, Clone, Copy, Default)]
struct Person {
    rows: f64,
    reward: f64,
    weight: f64,
    raw_weight: f64,
    weighted: f64,
    robust: f64,
}

/// Evaluates a target policy on rows that another one logged.
pub fn off_policy(rows: &[Logged], settings: &OffPolicySettings) -> Result<Evaluation, OffPolicyError> {
    check(rows, settings)?;
    let most = settings.max_weight.unwrap_or(f64::INFINITY);
    let raw: Vec<f64> = rows.iter().map(|row| row.target / row.propensity).collect();
    let used: Vec<f64> = raw.iter().map(|weight| weight.min(most)).collect();
    let rewards: Vec<f64> = rows.iter().map(|row| row.reward).collect();
    let mut people: BTreeMap<u64, Person> = BTreeMap::new();
    for ((row, raw), weight) in rows.iter().zip(&raw).zip(&used) {
        people.entry(row.user).or_default().add(row, *raw, *weight);
    }
    if people.len() < 2 {
        return Err(OffPolicyError::People(people.len()));
    }
    let alpha = 1.0 - settings.confidence;
    let of = |pick: fn(&Person) -> (f64, f64)| value(&sums(&people, pick), alpha);
    let overlap = overlap(&raw, &used, &rewards, people.len());
    let mean_weight = sums(&people, |p| (p.raw_weight, p.rows));
    let robust = rows.iter().all(|row| row.model.is_some());
    let weighed = overlap.effective_rows > 0.0;
    Ok(Evaluation {
        logged: of(|p| (p.reward, p.rows)),
        ips: of(|p| (p.weighted, p.rows)),
        snips: weighed.then(|| of(|p| (p.weighted, p.weight))),
        doubly_robust: robust.then(|| of(|p| (p.robust, p.rows))),
        warnings: warnings(&overlap, error(&mean_weight)),
        overlap,
    })
}

impl Person {
    fn add(&mut self, row: &Logged, raw: f64, weight: f64) {
        self.rows += 1.0;
        self.reward += row.reward;
        self.weight += weight;
        self.raw_weight += raw;
        self.weighted += weight * row.reward;
        if let Some(model) = row.model {
            self.robust += model.expected + weight * (row.reward - model.shown);
        }
    }
}

fn sums(people: &BTreeMap<u64, Person>, pick: fn(&Person) -> (f64, f64)) -> Sums {
    let mut sums = Sums::default();
    for person in people.values() {
        let (of, per) = pick(person);
        sums.add(&Observation { of, per, ..Observation::default() });
    }
    sums
}

fn error(sums: &Sums) -> f64 {
    sums.ratio_variance().sqrt()
}

fn value(sums: &Sums, alpha: f64) -> Value {
    let reach = two_sided(alpha, sums.people() - 1.0) * error(sums);
    let value = sums.ratio();
    Value { value, low: value - reach, high: value + reach }
}

fn check(rows: &[Logged], settings: &OffPolicySettings) -> Result<(), OffPolicyError> {
    let confidence = settings.confidence;
    if !(0.0 < confidence && confidence < 1.0) || settings.max_weight.is_some_and(|w| w.is_nan() || w <= 0.0)
    {
        return Err(OffPolicyError::Settings(confidence));
    }
    for (row, of) in rows.iter().enumerate() {
        if !(of.propensity > 0.0 && of.propensity <= 1.0) {
            return Err(OffPolicyError::Propensity { row, got: of.propensity });
        }
        if !(0.0..=1.0).contains(&of.target) {
            return Err(OffPolicyError::Target { row, got: of.target });
        }
        let numbers = of.model.map_or([0.0; 2], |m| [m.shown, m.expected]);
        if !of.reward.is_finite() || numbers.iter().any(|n| !n.is_finite()) {
            return Err(OffPolicyError::NotFinite { row });
        }
    }
    Ok(())
}
