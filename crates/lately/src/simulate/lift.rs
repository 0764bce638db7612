//! How much more of something: between variants of split towns, and between towns that are alike but for one thing.

use std::ops::Range;

use anyhow::Result;
use lately_experiment::readout::{Better, Metric, Role};
use lately_experiment::{Design, Experiment, Group, Report, Settings, Variant};
use serde::Serialize;

use super::person::{Column, Inhabitant};
use super::town::EXPERIMENT;

/// Of a normal variable, the distance that 5 % exceed, either way.
const NORMAL_95: f64 = 1.959_964;

/// A relative effect.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Lift {
    /// The estimate: 0.05 is 5 % more.
    pub value: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Lift {
    fn new(value: f64, variance: f64) -> Self {
        let reach = NORMAL_95 * variance.sqrt();
        Self { value, low: value - reach, high: value + reach }
    }

    /// Whether the interval leaves out 0.
    pub fn is_proven(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    /// Towns are independent: each weighs by how sure it is (inverse variance, fixed effect).
    fn pooled(effects: impl Iterator<Item = (f64, f64)>) -> Option<Self> {
        let sure = effects.filter(|(_, error)| *error > 0.0 && error.is_finite());
        let (mut weights, mut sum) = (0.0, 0.0);
        for (value, error) in sure {
            let weight = 1.0 / (error * error);
            weights += weight;
            sum += weight * value;
        }
        (weights > 0.0).then(|| Self::new(sum / weights, 1.0 / weights))
    }
}

/// A metric that suites compare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measure {
    pub(super) of: Column,
    /// `None`: a person.
    pub(super) per: Option<Column>,
}

impl Measure {
    pub(super) fn each(of: Column) -> Self {
        Self { of, per: None }
    }

    pub(super) fn per(of: Column, per: Column) -> Self {
        Self { of, per: Some(per) }
    }

    /// `saves a person`.
    pub(super) fn name(self) -> String {
        let per = match self.per {
            None => "person",
            Some(Column::Pages) => "page",
            Some(column) => column.name(),
        };
        format!("{} a {per}", self.of.name())
    }
}

/// The relative effect of a variant over a control, over days, by the readout that a user's experiment gets: with what
/// people did before taken off (CUPED), then pooled over towns. One a group of people; `None` where nothing is known.
pub(super) fn split(
    towns: &[Vec<Inhabitant>],
    [control, variant]: [&str; 2],
    measure: Measure,
    days: Range<u32>,
) -> Result<Vec<(Group, Option<Lift>)>> {
    let name = measure.name();
    let variants = [control, variant].map(|v| Variant { name: v.to_owned(), share: 1.0 });
    let design = Design {
        experiment: Experiment {
            name: EXPERIMENT.to_owned(),
            start_ms: 0,
            end_ms: None,
            variants: variants.to_vec(),
            surfaces: Vec::new(),
        },
        columns: Column::EACH.iter().map(|c| c.name().to_owned()).collect(),
        metrics: vec![Metric {
            name: name.clone(),
            of: measure.of.name().to_owned(),
            per: measure.per.map(|c| c.name().to_owned()),
            role: Role::Primary,
            better: Better::Neither,
        }],
        settings: Settings::default(),
    };
    design.check()?;
    let read = |town: &Vec<Inhabitant>| {
        let people: Vec<_> = town.iter().filter_map(|p| p.sums(&[control, variant], &days)).collect();
        Report::of(&design, &people, 0, None)
    };
    let reports: Vec<Report> = towns.iter().map(read).collect();
    let of = |group: Group| {
        let lift = |r: &Report| r.comparison(group, &name, variant)?.best().lift;
        (group, Lift::pooled(reports.iter().filter_map(lift).map(|e| (e.value, e.standard_error))))
    };
    Ok(Group::EACH.into_iter().map(of).collect())
}

/// The relative effect between pairs of towns of one seed, the first of each being the control: the same people come to
/// both, so a person is compared with themselves. Variance of a ratio of means by the delta method, over pairs of people.
pub(super) fn paired(
    towns: &[[&[Inhabitant]; 2]],
    measure: Measure,
    days: Range<u32>,
    group: impl Fn(&Inhabitant) -> bool,
) -> Option<Lift> {
    let effects = towns.iter().filter_map(|[control, other]| {
        let pairs: Vec<[[f64; 2]; 2]> = control
            .iter()
            .zip(*other)
            .filter(|(person, _)| group(person))
            .map(|(a, b)| [a, b].map(|p| of(p, measure, &days)))
            .collect();
        ratio_of_ratios(&pairs)
    });
    Lift::pooled(effects)
}

fn of(person: &Inhabitant, measure: Measure, days: &Range<u32>) -> [f64; 2] {
    let tally = person.during(days);
    [tally[measure.of as usize], measure.per.map_or(1.0, |per| tally[per as usize])]
}

/// (r_b / r_a - 1, its standard error) of r = sum of numerators / sum of denominators, from pairs ((of, per) of a, of b).
fn ratio_of_ratios(pairs: &[[[f64; 2]; 2]]) -> Option<(f64, f64)> {
    let n = pairs.len() as f64;
    let total = |side: usize, what: usize| pairs.iter().map(|p| p[side][what]).sum::<f64>();
    let [a, b] = [0, 1].map(|side| total(side, 0) / total(side, 1));
    let ratio = b / a;
    // What a person moves the logarithm of the ratio by.
    let part = |pair: &[[f64; 2]; 2], side: usize, ratio: f64| {
        (pair[side][0] - ratio * pair[side][1]) / (ratio * total(side, 1))
    };
    let [of_a, of_b] =
        [0, 1].map(|side| pairs.iter().map(|p| part(p, side, [a, b][side])).collect::<Vec<_>>());
    let square: f64 = of_a.iter().zip(&of_b).map(|(a, b)| (b - a).powi(2)).sum();
    let error = ratio * (square * n / (n - 1.0)).sqrt();
    (n > 1.0 && ratio.is_finite() && error.is_finite()).then_some((ratio - 1.0, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_compared_with_itself() {
        // Each does 10 % more, give or take: far surer than the spread between people.
        let pairs: Vec<_> = (1..=200)
            .map(|n| {
                let base = f64::from(n * n);
                [[base, 1.0], [base * (1.1 + 0.02 * f64::from(n % 3 - 1)), 1.0]]
            })
            .collect();
        let (value, error) = ratio_of_ratios(&pairs).unwrap();
        assert!((value - 0.1).abs() < 3.0 * error && error < 0.003, "{value} {error}");
        assert!(ratio_of_ratios(&pairs[..1]).is_none(), "one pair tells nothing");
        assert!(ratio_of_ratios(&[[[0.0, 1.0], [1.0, 1.0]]; 5]).is_none(), "nor does a control of nothing");
    }

    #[test]
    fn the_delta_method_is_as_wide_as_the_bootstrap() {
        let mut seed = 7u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 11) as f64 / (1u64 << 53) as f64
        };
        let pairs: Vec<_> = (0..400)
            .map(|_| {
                let pages = 1.0 + (10.0 * random()).floor();
                let (a, b) = (pages * random(), pages * random() * 1.2);
                [[a, pages], [b, pages + (2.0 * random()).floor()]]
            })
            .collect();
        let (_, error) = ratio_of_ratios(&pairs).unwrap();
        let draws: Vec<f64> = (0..500)
            .map(|_| {
                let drawn: Vec<_> =
                    (0..pairs.len()).map(|_| pairs[(random() * pairs.len() as f64) as usize]).collect();
                ratio_of_ratios(&drawn).unwrap().0
            })
            .collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let deviation = (draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / draws.len() as f64).sqrt();
        assert!((error / deviation - 1.0).abs() < 0.15, "{error} against {deviation}");
    }

    #[test]
    fn towns_weigh_by_how_sure_they_are() {
        let lift = Lift::pooled([(0.1, 0.01), (0.2, 0.02), (9.0, f64::INFINITY)].into_iter()).unwrap();
        assert!((lift.value - 0.12).abs() < 1e-9, "{lift:?}");
        assert!(lift.is_proven() && (lift.high - lift.value - 1.96 * 0.01 / 1.25f64.sqrt()).abs() < 1e-4);
        assert_eq!(Lift::pooled(std::iter::empty()), None);
    }
}
