//! Two variants compared.
//!
//! Variances are between people, and a ratio's is that of the delta method (Deng, Knoblich and Lu 2018), so that a
//! person with a thousand impressions is one person. Intervals are Welch's.
//!
//! CUPED (Deng, Xu, Kohavi and Walker 2013): what a person did before the experiment cannot be its effect, so what it
//! explains of what was done since is taken off, with one theta for both variants, and the variance falls by 1 - rho^2. A
//! ratio's own influence is explained by the influence on the same ratio in the pre-period (their appendix B). Somebody
//! without a past counts as having done nothing, which is as true of both variants.

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::sums::{Influence, Sums};

/// How a comparison is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Looked {
    /// Probability of an interval that misses.
    pub alpha: f64,
    /// The sequential clock at the first look; `None`: no sequential interval.
    pub start: Option<f64>,
    /// [`Estimate::anchor`] of an earlier look; `None`: this is the first.
    pub first: Option<f64>,
}

impl Looked {
    fn clock(&self, information: f64) -> Option<f64> {
        let grown = self.first.filter(|first| *first > 0.0).map_or(1.0, |first| information / first);
        // People who asked to be forgotten turn no clock back.
        self.start.map(|start| start * grown.max(1.0))
    }
}

/// What a variant does differently from the control.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Variant less control, in the metric's unit.
    pub difference: Effect,
    /// The same as a share of the control, 0.06 for 6 % more; `None` where the control is at 0.
    pub lift: Option<Effect>,
    /// The control's mean or ratio.
    pub control: f64,
    /// The variant's.
    pub variant: f64,
    /// Sum over people of the squared distances of their sums: what the sequential clock counts.
    pub information: f64,
    /// What it was at the first look with a sequential interval.
    pub anchor: Option<f64>,
}

/// Compares two variants; `None` where a variance is not known: fewer than two people, or nobody did anything.
pub fn estimate(control: &Sums, variant: &Sums, looked: &Looked) -> Option<Estimate> {
    let sides = [control, variant].map(|sums| Side::new(sums, sums.ratio(), sums.influence().during));
    of(&sides, looked)
}

/// Compares two variants with what people did before taken off, and says which share of the variance is left
/// (1 - rho^2); `None` where nothing was done before.
pub fn cuped(control: &Sums, variant: &Sums, looked: &Looked) -> Option<(Estimate, f64)> {
    let both = [control, variant];
    let moments = both.map(Sums::influence);
    let pooled = |of: fn(&Influence) -> f64| {
        let weighted = both.iter().zip(&moments).map(|(sums, m)| (sums.people() - 1.0) * of(m));
        weighted.sum::<f64>()
    };
    let (before, shared, during) = (pooled(|m| m.before), pooled(|m| m.both), pooled(|m| m.during));
    if !(before > 0.0 && during > 0.0) {
        return None;
    }
    let theta = shared / before;
    let mut all = *control;
    all += *variant;
    let side = |sums: &Sums, m: &Influence| {
        let ratio = sums.ratio() - theta * (sums.ratio_before() - all.ratio_before());
        let left = m.during + theta * theta * m.before - 2.0 * theta * m.both;
        Side::new(sums, ratio, left.max(0.0))
    };
    let sides = [side(control, &moments[0]), side(variant, &moments[1])];
    let kept = 1.0 - shared * shared / (before * during);
    of(&sides, looked).map(|estimate| (estimate, kept.max(0.0)))
}

/// A variant's ratio and the variance of it.
struct Side {
    ratio: f64,
    variance: f64,
    freedom: f64,
    per: f64,
}

impl Side {
    fn new(sums: &Sums, ratio: f64, of_one: f64) -> Self {
        Self { ratio, variance: of_one / sums.people(), freedom: sums.people() - 1.0, per: sums.per() }
    }
}

fn of([control, variant]: &[Side; 2], looked: &Looked) -> Option<Estimate> {
    if !(control.freedom >= 1.0 && variant.freedom >= 1.0) {
        return None;
    }
    let variance = control.variance + variant.variance;
    let freedom = welch(control.variance, control.freedom, variant.variance, variant.freedom);
    let information = variance * (control.per * variant.per / (control.per + variant.per)).powi(2);
    let clock = looked.clock(information);
    let effect = |value, variance| Effect::new(value, variance, freedom, looked.alpha, clock);
    let base = control.ratio;
    let grown = variant.ratio / base;
    // d(T/C) = dT / C - T dC / C^2. A control below 0 can only be one whose past was taken off: its lift has no meaning.
    let relative = (variant.variance + grown * grown * control.variance) / (base * base);
    Some(Estimate {
        difference: effect(variant.ratio - base, variance)?,
        lift: if base > 0.0 { effect(grown - 1.0, relative) } else { None },
        control: base,
        variant: variant.ratio,
        information,
        anchor: looked.first.or(looked.start.map(|_| information)),
    })
}

/// Degrees of freedom of a sum of two variances (Welch 1947, Satterthwaite 1946).
fn welch(a: f64, freedom_a: f64, b: f64, freedom_b: f64) -> f64 {
    (a + b).powi(2) / (a * a / freedom_a + b * b / freedom_b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Observation;

    const ONCE: Looked = Looked { alpha: 0.05, start: None, first: None };

    fn sums(people: &[(f64, f64)]) -> Sums {
        let mut sums = Sums::default();
        people.iter().for_each(|(y, x)| sums.add(&Observation::mean(*y, *x)));
        sums
    }

    #[test]
    fn welchs_interval_is_that_of_the_textbook() {
        let control = sums(&[3.0, 4.0, 5.0, 8.0].map(|y| (y, 0.0)));
        let variant = sums(&[6.0, 9.0, 9.0, 12.0, 14.0].map(|y| (y, 0.0)));
        let of = estimate(&control, &variant, &ONCE).unwrap();
        // scipy.stats.ttest_ind([6, 9, 9, 12, 14], [3, 4, 5, 8], equal_var=False)
        assert!((of.difference.p - 0.024_753_198).abs() < 1e-8, "{of:?}");
        assert!((of.difference.low - 0.851_138).abs() < 1e-5 && of.difference.value == 5.0, "{of:?}");
        assert!((of.lift.unwrap().value - 1.0).abs() < 1e-12);
        assert!(of.difference.sequential.is_none());
        assert!(cuped(&control, &variant, &ONCE).is_none(), "nobody has a past");
    }

    #[test]
    fn a_past_that_explains_all_but_the_effect_leaves_the_effect() {
        let people = |effect: f64, past: &[f64]| -> Vec<(f64, f64)> {
            past.iter().enumerate().map(|(i, x)| (2.0 * x + effect + 0.1 * (i % 2) as f64, *x)).collect()
        };
        let control = sums(&people(0.0, &[1.0, 5.0, 9.0, 2.0]));
        let variant = sums(&people(1.0, &[8.0, 3.0, 7.0, 9.0]));
        let (of, kept) = cuped(&control, &variant, &ONCE).unwrap();
        assert!((of.difference.value - 1.0).abs() < 0.1 && kept < 0.001, "{of:?} {kept}");
        let plain = estimate(&control, &variant, &ONCE).unwrap();
        assert!(plain.difference.value > 5.0 && plain.difference.p > 0.05, "{plain:?}");
    }

    #[test]
    fn nothing_is_said_where_nothing_is_known() {
        assert!(estimate(&sums(&[]), &sums(&[]), &ONCE).is_none());
        assert!(estimate(&sums(&[(1.0, 0.0)]), &sums(&[(1.0, 0.0), (2.0, 0.0)]), &ONCE).is_none());
        let nobody_acts = sums(&[(0.0, 0.0); 50]);
        assert!(estimate(&nobody_acts, &nobody_acts, &ONCE).is_none());
        let acts = sums(&[(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)]);
        assert!(estimate(&nobody_acts, &acts, &ONCE).unwrap().lift.is_none(), "no share of nothing");
    }
}
