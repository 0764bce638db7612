//! The guardrails: what of a new version is compared with the version before it, and what counts as a breach.
//!
//! | guardrail | of | breach |
//! | --- | --- | --- |
//! | `errors` | rankings on which the model failed, of those it was asked for | more by `error_rate` |
//! | `deadline` | those that it could not score, all or in part, in their time; in a canary only, where both have the same load | more by `deadline_rate` |
//! | `score` | mean logit of a head over shown items | shifted by `score_shift` standard deviations |
//! | `calibration` | a head's actions over what was predicted | further from 1 by a factor `calibration` |
//! | `negative` | actions of a head with a negative weight, of shown items | more often by a factor `negative_rise` |
//! | `positive` | those of a head with a positive weight | more rarely by a factor `positive_drop` |
//!
//! Calibration is held against the other version's and not against 1, as actions that come after the time of waiting
//! are missing in both.

use serde::Serialize;

use super::config::GuardrailConfig;
use super::evidence::{evidence, sure};
use super::sums::{Column, Ratio, Sums};

/// A ratio of observed to predicted beyond these says no more than they do.
const CALIBRATION: std::ops::RangeInclusive<f64> = 1e-3..=1e3;
/// How much wider than a bound the mixture of effects is against which evidence is taken: faults are large. A model that
/// fails does so on more than a few of a hundred rankings; with a narrower mixture so large an effect would be taken
/// for a bad variance, and a failure of half of 400 rankings would be no evidence.
const WIDER_RATE: f64 = 10.0;
const WIDER: f64 = 2.0;
/// Least standard deviation of a head's logits in which a shift is measured. Shown items are the best ones, and may be so
/// much alike that it is small: two seeds of the demo's model lie 0.4 logits apart on them, 0.8 standard deviations. Half
/// a logit is a factor of 1.6 in odds.
const DEVIATION: f64 = 0.5;

/// What one guardrail says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// Its name: errors, deadline, score, calibration, negative or positive.
    pub guardrail: &'static str,
    /// Of which head; `None`: of the model as a whole.
    pub head: Option<String>,
    /// The new version's number.
    pub value: f64,
    /// The other version's.
    pub reference: f64,
    /// Where a breach begins.
    pub bound: f64,
    /// How sure a breach is: logarithm of the evidence, as a share of what is enough. From 1 on it is one. 0 before there
    /// are rankings and actions enough, and within the bound.
    pub evidence: f64,
    /// Whether the value lies within the bound, surely or not.
    pub within: bool,
}

/// A new version beside another one.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Comparison {
    /// Rankings by the new version since it is watched.
    pub rankings: u64,
    /// By the other one.
    pub reference_rankings: u64,
    /// By guardrail.
    pub readings: Vec<Reading>,
}

impl Comparison {
    /// The surest breach.
    pub fn breach(&self) -> Option<&Reading> {
        let breaches = self.readings.iter().filter(|r| r.evidence >= 1.0);
        breaches.max_by(|a, b| a.evidence.total_cmp(&b.evidence))
    }

    /// Whether all lies within its bounds: what is promoted must, also where a breach would not be sure yet.
    pub fn is_within(&self) -> bool {
        self.readings.iter().all(|r| r.within)
    }
}

/// The rules with their bounds.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) config: GuardrailConfig,
    /// Names and weights of the heads.
    pub(super) heads: Vec<(String, f32)>,
}

/// Two versions' sums.
struct Pair<'a> {
    new: &'a Sums,
    old: &'a Sums,
    enough: bool,
}

/// A number and where a breach begins.
struct Test {
    value: f64,
    reference: f64,
    bound: f64,
    /// Of the distance between value and bound.
    variance: f64,
    freedom: f64,
    /// Standard deviation of the effects that are looked for.
    scale: f64,
    /// Whether a breach lies above the bound, or below it.
    above: bool,
    enough: bool,
}

impl Rules {
    /// `concurrent`: both ranked at the same time.
    pub(super) fn compare(&self, new: &Sums, old: &Sums, concurrent: bool) -> Comparison {
        let rankings = [new, old].map(|s| s.total(Column::Rankings) as u64);
        let enough = rankings.iter().all(|n| *n >= self.config.min_rankings);
        let pair = Pair { new, old, enough };
        let sure = sure(self.config.alpha, self.tests());
        let mut readings = Vec::new();
        let mut read = |guardrail, head: Option<&String>, test: Option<Test>| {
            readings.extend(test.map(|test| test.reading(guardrail, head.cloned(), sure)));
        };
        read("errors", None, self.rate(&pair, Column::Failed, self.config.error_rate));
        if concurrent {
            read("deadline", None, self.rate(&pair, Column::Late, self.config.deadline_rate));
        }
        for (at, (head, weight)) in self.heads.iter().enumerate() {
            read("score", Some(head), self.score(&pair, at));
            read("calibration", Some(head), self.calibration(&pair, at));
            if *weight < 0.0 {
                read("negative", Some(head), self.outcome(&pair, at, self.config.negative_rise, true));
            }
            if *weight > 0.0 {
                read("positive", Some(head), self.outcome(&pair, at, 1.0 / self.config.positive_drop, false));
            }
        }
        Comparison { rankings: rankings[0], reference_rankings: rankings[1], readings }
    }

    /// How many tests share alpha: score and calibration may leave their bounds on two sides.
    fn tests(&self) -> usize {
        2 + self.heads.iter().map(|(_, weight)| 4 + usize::from(*weight != 0.0)).sum::<usize>()
    }

    /// A share of the rankings that the model was asked for.
    fn rate(&self, pair: &Pair<'_>, column: Column, margin: f64) -> Option<Test> {
        let least = self.config.min_rankings as f64;
        let new = pair.new.ratio(column, Column::Asked)?;
        let old = pair.old.ratio(column, Column::Asked).filter(|r| r.under >= least);
        // Failing is wrong whatever another version did; of being late there is nothing to say alone.
        let none = Ratio { value: 0.0, variance: 0.0, freedom: new.freedom, over: 0.0, under: 0.0 };
        let old = old.or((column == Column::Failed).then_some(none))?;
        let bound = (old.value + margin).min(1.0);
        // Where no group saw any there is no spread: at the bound there would be.
        let floor = bound * (1.0 - bound) / new.under;
        let variance = new.variance.max(floor) + old.variance;
        let test = Test::of(&new, &old, bound, variance, new.under >= least);
        Some(Test { scale: WIDER_RATE * margin, ..test })
    }

    /// In standard deviations from the other's mean.
    fn score(&self, pair: &Pair<'_>, head: usize) -> Option<Test> {
        let mean = |sums: &Sums| sums.ratio(Column::Logit(head), Column::Items);
        let (new, old) = (mean(pair.new)?, mean(pair.old)?);
        let deviation = pair.old.deviation(head).max(DEVIATION);
        let shift = (new.value - old.value) / deviation;
        let floor = 1.0 / new.under + 1.0 / old.under;
        Some(Test {
            value: shift,
            reference: 0.0,
            bound: self.config.score_shift.copysign(shift),
            variance: ((new.variance + old.variance) / (deviation * deviation)).max(floor),
            freedom: new.freedom.min(old.freedom),
            scale: WIDER * self.config.score_shift,
            above: shift.is_sign_positive(),
            enough: pair.enough,
        })
    }

    fn calibration(&self, pair: &Pair<'_>, head: usize) -> Option<Test> {
        let of = |sums: &Sums| sums.ratio(Column::Observed(head), Column::Predicted(head));
        let (new, old) = (of(pair.new)?, of(pair.old)?);
        let k = self.config.calibration;
        let known = old.value.clamp(*CALIBRATION.start(), *CALIBRATION.end());
        let away = known.max(1.0 / known);
        let above = new.value >= 1.0;
        let bound = if above { away * k } else { 1.0 / (away * k) };
        // By the derivative of the bound in the other's ratio.
        let slope = bound / known;
        let variance = new.variance.max(bound / new.under) + slope * slope * old.variance;
        let enough = pair.enough && self.events(new.over.max(bound * new.under)) && self.events(old.over);
        let reference = if above { away } else { 1.0 / away };
        let test = Test::of(&new, &old, bound, variance, enough);
        Some(Test { reference, above, scale: WIDER * (bound - reference).abs(), ..test })
    }

    /// How often shown items get the actions of a head, beside `factor` times how often the other version's do.
    fn outcome(&self, pair: &Pair<'_>, head: usize, factor: f64, above: bool) -> Option<Test> {
        let of = |sums: &Sums| sums.ratio(Column::Observed(head), Column::Matured);
        let (new, old) = (of(pair.new)?, of(pair.old)?);
        let bound = old.value * factor;
        let variance = new.variance.max(bound / new.under) + factor * factor * old.variance;
        let expected = bound * new.under;
        let enough = pair.enough
            && self.events(if above { new.over.max(expected) } else { expected })
            && self.events(old.over);
        Some(Test { above, ..Test::of(&new, &old, bound, variance, enough) })
    }

    fn events(&self, count: f64) -> bool {
        count >= self.config.min_events as f64
    }
}

impl Test {
    /// A breach lies above the bound.
    fn of(new: &Ratio, old: &Ratio, bound: f64, variance: f64, enough: bool) -> Self {
        Self {
            value: new.value,
            reference: old.value,
            bound,
            variance,
            freedom: new.freedom.min(old.freedom),
            scale: WIDER * (bound - old.value).abs(),
            above: true,
            enough,
        }
    }

    fn reading(self, guardrail: &'static str, head: Option<String>, sure: f64) -> Reading {
        let Self { value, reference, bound, .. } = self;
        let beyond = if self.above { value - bound } else { bound - value };
        let of = || evidence(beyond, self.variance, self.scale, self.freedom) / sure;
        let evidence = if self.enough { of() } else { 0.0 };
        Reading { guardrail, head, value, reference, bound, evidence, within: beyond <= 0.0 }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
