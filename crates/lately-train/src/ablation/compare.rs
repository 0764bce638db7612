//! Means over seeds and differences from the baseline, with intervals over users.
//!
//! Inside each resample of users a configuration's metric is its mean over seeds. So the interval says how far other
//! users would move the result; how far another seed would is shown beside it, as the values by seed. There is no
//! interval where positives are fewer than [`MIN_POSITIVES`].

use std::collections::BTreeMap;

use serde::Serialize;

use super::claim::{Claim, Verdict};
use super::measure::{GROUPS, Measured};
use crate::eval::{Estimate, Group, interval};
use crate::metrics::{HIT_AT_3, Metrics};

/// Positives of a head below which no interval is given. With one positive, every resample that holds it gives nearly
/// the same AUC: on a day of KuaiRand's hides the interval was 0.02 wide about a difference of -0.17.
pub const MIN_POSITIVES: usize = 20;

/// A configuration's models, one a seed, all measured on the same slice with the same resamples.
#[derive(Debug, Clone)]
pub struct Contender {
    /// Name of the configuration.
    pub name: String,
    /// For each seed what [`super::measure()`] gave.
    pub seeds: Vec<Vec<Measured>>,
    /// By group, for each head the paper's lift of HIT@3.
    pub claims: Vec<(Group, BTreeMap<String, Claim>)>,
}

/// A metric over seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Averaged {
    /// Mean over seeds, with the interval over users.
    #[serde(flatten)]
    pub mean: Estimate,
    /// Standard deviation between seeds; `None` with one seed.
    pub deviation: Option<f64>,
    /// By seed.
    pub seeds: Vec<Option<f64>>,
}

/// One configuration in one cell. The last four are `None` for the baseline.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Name of the configuration.
    pub name: String,
    /// Its metrics.
    pub metrics: Metrics<Averaged>,
    /// Its metrics less the baseline's, by seed those of the same seed.
    pub less: Option<Metrics<Averaged>>,
    /// Its HIT@3 over the baseline's less 1, in percent.
    pub lift: Option<Averaged>,
    /// The paper's lift.
    pub claim: Option<Claim>,
    /// Whether the sign is the paper's.
    pub verdict: Option<Verdict>,
}

/// One head within one group of rows.
#[derive(Debug, Clone, Serialize)]
pub struct CellReport {
    /// Head.
    pub head: String,
    /// Group of rows.
    pub group: Group,
    /// Its rows.
    pub rows: usize,
    /// Those whose label is 1.
    pub positives: usize,
    /// Chunks of HIT@3.
    pub chunks: usize,
    /// HIT@3 that a random order has on average.
    pub random_hit_at_3: Option<f64>,
    /// The configurations, in the order given.
    pub lines: Vec<Line>,
}

/// Compares all with `baseline`, a position in `contenders`, cell by cell. A contender lacks no cell: all were
/// measured on one slice.
pub fn compare(contenders: &[Contender], baseline: usize) -> Vec<CellReport> {
    let Some(cells) = contenders.get(baseline).and_then(|c| c.seeds.first()) else { return Vec::new() };
    (0..cells.len()).map(|at| cell(contenders, baseline, at)).collect()
}

fn cell(contenders: &[Contender], baseline: usize, at: usize) -> CellReport {
    let of = |c: &Contender| Averages::of(&c.seeds.iter().map(|cells| &cells[at]).collect::<Vec<_>>());
    let base = of(&contenders[baseline]);
    let first = &contenders[baseline].seeds[0][at];
    let line = |(index, contender): (usize, &Contender)| {
        let own = of(contender);
        let other = (index != baseline).then_some(&base);
        let lift = other.map(|base| own.against(base, HIT_AT_3, |own, base| 100.0 * (own / base - 1.0)));
        let claims = contender.claims.iter().find(|(group, _)| *group == first.group);
        let claim = claims.and_then(|(_, heads)| heads.get(&first.head)).copied().filter(|_| lift.is_some());
        Line {
            name: contender.name.clone(),
            metrics: Metrics::build(|m| own.metric(m)),
            less: other.map(|base| Metrics::build(|m| own.against(base, m, |own, base| own - base))),
            verdict: claim.zip(lift.as_ref()).map(|(claim, lift)| claim.judge(&lift.mean)),
            lift,
            claim,
        }
    };
    CellReport {
        head: first.head.clone(),
        group: first.group,
        rows: first.rows,
        positives: first.positives,
        chunks: first.chunks,
        random_hit_at_3: first.random_hit_at_3,
        lines: contenders.iter().enumerate().map(line).collect(),
    }
}

/// One configuration's numbers in one cell; NaN where one is not defined.
struct Averages {
    /// By seed.
    seeds: Vec<Metrics<f64>>,
    /// Mean over seeds.
    mean: Metrics<f64>,
    /// The same on each resample.
    samples: Vec<Metrics<f64>>,
}

impl Averages {
    fn of(seeds: &[&Measured]) -> Self {
        let enough = seeds.iter().all(|s| s.positives >= MIN_POSITIVES);
        let resamples = seeds.iter().map(|s| s.samples.len()).min().filter(|_| enough).unwrap_or(0);
        let sample = |k: usize| mean(&seeds.iter().map(|s| &s.samples[k]).collect::<Vec<_>>());
        let values: Vec<&Metrics<Option<f64>>> = seeds.iter().map(|s| &s.value).collect();
        Self {
            mean: mean(&values),
            seeds: values.iter().map(|v| mean(&[v])).collect(),
            samples: (0..resamples).map(sample).collect(),
        }
    }

    fn metric(&self, m: usize) -> Averaged {
        averaged(
            *self.mean.each()[m],
            &mut self.samples.iter().map(|s| *s.each()[m]),
            self.seeds.iter().map(|s| *s.each()[m]),
        )
    }

    /// A metric combined with the baseline's, resample by resample and seed by seed.
    fn against(&self, base: &Self, m: usize, combine: impl Fn(f64, f64) -> f64) -> Averaged {
        let both = |(own, base): (&Metrics<f64>, &Metrics<f64>)| combine(*own.each()[m], *base.each()[m]);
        averaged(
            both((&self.mean, &base.mean)),
            &mut self.samples.iter().zip(&base.samples).map(both),
            self.seeds.iter().zip(&base.seeds).map(both),
        )
    }
}

fn mean(of: &[&Metrics<Option<f64>>]) -> Metrics<f64> {
    let value = |metrics: &&Metrics<Option<f64>>, m: usize| metrics.each()[m].unwrap_or(f64::NAN);
    Metrics::build(|m| of.iter().map(|metrics| value(metrics, m)).sum::<f64>() / of.len() as f64)
}

fn averaged(
    value: f64,
    samples: &mut dyn Iterator<Item = f64>,
    seeds: impl Iterator<Item = f64>,
) -> Averaged {
    let seeds: Vec<f64> = seeds.collect();
    let (count, mean) = (seeds.len() as f64, seeds.iter().sum::<f64>() / seeds.len() as f64);
    let squares: f64 = seeds.iter().map(|x| (x - mean) * (x - mean)).sum();
    let deviation = (squares / (count - 1.0)).sqrt();
    Averaged {
        mean: interval(value, samples),
        deviation: Some(deviation).filter(|x| x.is_finite()),
        seeds: seeds.into_iter().map(|x| Some(x).filter(|x| x.is_finite())).collect(),
    }
}

/// Heads of the reports, each once, in their order.
pub(super) fn heads(cells: &[CellReport]) -> Vec<&str> {
    let mut heads: Vec<&str> = cells.iter().map(|c| c.head.as_str()).collect();
    heads.dedup();
    heads
}

/// The cells of a head by group.
pub(super) fn of_head<'a>(cells: &'a [CellReport], head: &str) -> Vec<&'a CellReport> {
    GROUPS.iter().filter_map(|g| cells.iter().find(|c| c.head == head && c.group == *g)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::claim::NotSignificant;
    use super::*;

    /// Two resamples; HIT@3 as given, all else 0.5.
    fn measured(hit: f64, samples: [f64; 2]) -> Measured {
        let metrics =
            |hit: f64| Metrics::build(|m| (m != 4).then_some(if m == HIT_AT_3 { hit } else { 0.5 }));
        Measured {
            head: "save".into(),
            group: Group::All,
            rows: 100,
            positives: MIN_POSITIVES,
            chunks: 3,
            random_hit_at_3: Some(0.3),
            value: metrics(hit),
            samples: samples.map(metrics).into(),
        }
    }

    fn contender(name: &str, claim: Option<Claim>, seeds: &[(f64, [f64; 2])]) -> Contender {
        let claims = claim.map(|c| (Group::All, BTreeMap::from([("save".to_owned(), c)])));
        Contender {
            name: name.into(),
            seeds: seeds.iter().map(|(hit, samples)| vec![measured(*hit, *samples)]).collect(),
            claims: claims.into_iter().collect(),
        }
    }

    #[test]
    fn seeds_are_averaged_inside_each_resample() {
        // The lift of the means is 20 %; on the resamples 0.6 / 0.4 and 0.2 / 0.4.
        let none = contender("none", None, &[(0.4, [0.3, 0.5]), (0.6, [0.5, 0.3])]);
        let own = contender("own", Some(Claim::Lift(9.0)), &[(0.5, [0.5, 0.1]), (0.7, [0.7, 0.3])]);
        let report = compare(&[own, none], 1);
        let [cell] = report.as_slice() else { panic!("{report:?}") };
        let (line, base) = (&cell.lines[0], &cell.lines[1]);
        let lift = line.lift.as_ref().unwrap();
        assert!((lift.mean.value.unwrap() - 20.0).abs() < 1e-9, "{lift:?}");
        // Percentiles between the two resamples, +50 and -50 %.
        assert!(
            (lift.mean.low.unwrap() + 47.5).abs() < 1e-9 && (lift.mean.high.unwrap() - 47.5).abs() < 1e-9
        );
        let by_seed: Vec<f64> = lift.seeds.iter().map(|x| x.unwrap()).collect();
        assert!((by_seed[0] - 25.0).abs() < 1e-9 && (by_seed[1] - 100.0 / 6.0).abs() < 1e-9, "{by_seed:?}");
        assert_eq!((line.claim, line.verdict), (Some(Claim::Lift(9.0)), Some(Verdict::NotProven)));
        assert!((line.less.as_ref().unwrap().hit_at_3.mean.value.unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(line.metrics.log_loss.mean.value, None, "what is not defined stays so");
        assert!((line.metrics.hit_at_3.deviation.unwrap() - 0.02f64.sqrt()).abs() < 1e-12);
        assert!(base.less.is_none() && base.lift.is_none() && base.verdict.is_none());
    }

    #[test]
    fn a_few_positives_prove_nothing() {
        let mut contenders = [
            contender("none", None, &[(0.4, [0.3, 0.5])]),
            contender("own", Some(Claim::Lift(1.0)), &[(0.8, [0.6, 1.0])]),
        ];
        assert_eq!(compare(&contenders, 0)[0].lines[1].verdict, Some(Verdict::Agrees));
        contenders.iter_mut().for_each(|c| c.seeds[0][0].positives -= 1);
        let line = &compare(&contenders, 0)[0].lines[1];
        assert_eq!(line.verdict, Some(Verdict::NotProven));
        let lift = line.lift.as_ref().unwrap();
        assert!((lift.mean.value.unwrap() - 100.0).abs() < 1e-9 && lift.mean.low.is_none());
    }

    #[test]
    fn a_lift_that_every_user_shares_is_proven() {
        let none = contender("none", None, &[(0.4, [0.3, 0.5])]);
        let claim = Claim::None(NotSignificant::Yes);
        let own = contender("own", Some(claim), &[(0.44, [0.33, 0.55])]);
        let report = compare(&[none, own], 0);
        let line = &report[0].lines[1];
        assert_eq!(line.verdict, Some(Verdict::Disagrees), "the paper found nothing, this data does");
        assert_eq!(line.lift.as_ref().unwrap().deviation, None, "one seed has no spread");
    }
}
