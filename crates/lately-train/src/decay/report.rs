//! What the lab found: by head, arm and schedule for each day and on average; by age of the model; and what it cost.

use serde::Serialize;

use super::lab::{DecayOptions, Results};
use super::schedule::{Cut, Schedule};
use crate::ablation::Measured;
use crate::ablation::compare::MIN_POSITIVES;
use crate::dates::Day;
use crate::eval::{Estimate, Group, interval};
use crate::metrics::Metrics;

/// One training.
#[derive(Debug, Clone, Serialize)]
pub struct Training {
    /// Arm.
    pub arm: String,
    /// Its last day.
    pub last_day: String,
    /// Whether it went on from the day before.
    pub incremental: bool,
    /// Rows of the slice that it read, each once.
    pub rows: usize,
    /// Wall time, s.
    pub seconds: f64,
}

/// One schedule on one day, or on average over the days.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Arm.
    pub arm: String,
    /// Schedule.
    pub schedule: Schedule,
    /// Days since the last day of its training, on the day; the mean for the average.
    pub age: f64,
    /// Its metrics.
    pub metrics: Metrics<Estimate>,
    /// Less those of the arm that was never retrained.
    pub gain: Metrics<Estimate>,
    /// Less those of the full daily retraining.
    pub behind_daily: Metrics<Estimate>,
    /// The first arm's less this one's, under the same schedule; `None` for the first.
    pub lift_of_first: Option<Metrics<Estimate>>,
}

/// One day, all arms and schedules on its impressions.
#[derive(Debug, Clone, Serialize)]
pub struct DayLine {
    /// The day; `mean` for the average over all.
    pub day: String,
    /// Days since the first cut.
    pub since: usize,
    /// Its rows.
    pub rows: usize,
    /// Those whose label is 1.
    pub positives: usize,
    /// Arm after arm, in each schedule after schedule.
    pub cells: Vec<Cell>,
}

/// What models lose with age, averaged over all pairs of a cut and a day.
#[derive(Debug, Clone, Serialize)]
pub struct AgeLine {
    /// Arm.
    pub arm: String,
    /// Days from the last day of training to the day scored; 1 is the freshest.
    pub age: usize,
    /// Days over which the difference is averaged.
    pub days: usize,
    /// AUC of models of this age less that of the freshest on the same impressions.
    pub auc: Estimate,
    /// The same for the log loss.
    pub log_loss: Estimate,
}

/// One head.
#[derive(Debug, Clone, Serialize)]
pub struct HeadReport {
    /// Head.
    pub head: String,
    /// The days, then their mean.
    pub days: Vec<DayLine>,
    /// By arm and age.
    pub ages: Vec<AgeLine>,
}

/// What the lab found.
#[derive(Debug, Clone, Serialize)]
pub struct DecayReport {
    /// Last day of training of the first model.
    pub freeze: String,
    /// Days that a training from new reads.
    pub window_days: usize,
    /// Resamples of users.
    pub resamples: usize,
    /// By head.
    pub heads: Vec<HeadReport>,
    /// All trainings.
    pub trainings: Vec<Training>,
}

/// A metric on the rows and on each resample, before it becomes an interval.
#[derive(Clone)]
struct Drawn {
    value: Metrics<f64>,
    samples: Vec<Metrics<f64>>,
    rows: usize,
    positives: usize,
}

impl Drawn {
    fn of(measured: &Measured) -> Self {
        let plain = |m: &Metrics<Option<f64>>| Metrics::build(|i| m.each()[i].unwrap_or(f64::NAN));
        let samples = measured.samples.iter().map(plain).collect();
        Self { value: plain(&measured.value), samples, rows: measured.rows, positives: measured.positives }
    }

    fn with(&self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Self {
        let each = |a: &Metrics<f64>, b: &Metrics<f64>| Metrics::build(|i| of(*a.each()[i], *b.each()[i]));
        let samples = self.samples.iter().zip(&other.samples).map(|(a, b)| each(a, b)).collect();
        Self { value: each(&self.value, &other.value), samples, ..*self }
    }

    fn less(&self, other: &Self) -> Self {
        self.with(other, |a, b| a - b)
    }

    /// The mean over days; rows and positives are summed.
    fn mean(days: &[Self]) -> Option<Self> {
        let (first, rest) = days.split_first()?;
        let mut sum = rest.iter().fold(first.clone(), |sum, day| sum.with(day, |a, b| a + b));
        let share = 1.0 / days.len() as f64;
        let scale = |m: &mut Metrics<f64>| *m = Metrics::build(|i| m.each()[i] * share);
        scale(&mut sum.value);
        sum.samples.iter_mut().for_each(scale);
        sum.rows = days.iter().map(|d| d.rows).sum();
        sum.positives = days.iter().map(|d| d.positives).sum();
        Some(sum)
    }

    fn estimates(&self) -> Metrics<Estimate> {
        let few = self.positives < MIN_POSITIVES;
        Metrics::build(|i| {
            let all = interval(*self.value.each()[i], &mut self.samples.iter().map(|s| *s.each()[i]));
            if few { Estimate { low: None, high: None, ..all } } else { all }
        })
    }
}

/// One head's view of the results.
struct Head<'a> {
    options: &'a DecayOptions,
    results: &'a Results,
    name: &'a str,
    freeze: usize,
    /// Test days that have rows.
    days: Vec<usize>,
}

pub(super) fn build(
    days: &[Day],
    freeze: usize,
    options: &DecayOptions,
    results: &Results,
    trainings: Vec<Training>,
) -> DecayReport {
    let with_rows = |day: &usize| results.iter().any(|((_, d, _), m)| d == day && !m.is_empty());
    let tested: Vec<usize> = (freeze + 1..days.len()).filter(with_rows).collect();
    let mut names: Vec<&str> = Vec::new();
    for measured in results.values().flatten() {
        if !names.contains(&measured.head.as_str()) {
            names.push(&measured.head);
        }
    }
    let of = |name: &&'_ str| {
        let head = Head { options, results, name, freeze, days: tested.clone() };
        HeadReport { head: (*name).to_owned(), days: head.lines(days), ages: head.ages() }
    };
    DecayReport {
        freeze: days[freeze].name.clone(),
        window_days: options.window_days,
        resamples: options.eval.resamples,
        heads: names.iter().map(of).collect(),
        trainings,
    }
}

impl Head<'_> {
    fn drawn(&self, arm: usize, day: usize, cut: Cut) -> Option<Drawn> {
        let all = self.results.get(&(arm, day, cut))?;
        all.iter().find(|m| m.head == self.name && m.group == Group::All).map(Drawn::of)
    }

    /// The schedules of an arm on a day.
    fn schedules(&self, arm: usize, day: usize) -> Option<Vec<Drawn>> {
        Schedule::EACH.iter().map(|s| self.drawn(arm, day, s.cut(self.freeze, day))).collect()
    }

    fn lines(&self, days: &[Day]) -> Vec<DayLine> {
        let mut lines = Vec::new();
        let mut all = Vec::new();
        for day in &self.days {
            let arms: Option<Vec<_>> =
                (0..self.options.arms.len()).map(|a| self.schedules(a, *day)).collect();
            let Some(arms) = arms else { continue };
            let age = |s: Schedule| (*day - s.cut(self.freeze, *day).day) as f64;
            lines.push(self.line(days[*day].name.clone(), *day - self.freeze, &arms, &age));
            all.push((*day, arms));
        }
        let mean_of = |arm: usize, schedule: usize| {
            Drawn::mean(&all.iter().map(|(_, arms)| arms[arm][schedule].clone()).collect::<Vec<_>>())
        };
        let means: Option<Vec<Vec<Drawn>>> = (0..self.options.arms.len())
            .map(|arm| (0..Schedule::EACH.len()).map(|s| mean_of(arm, s)).collect())
            .collect();
        let age = |s: Schedule| {
            let ages = all.iter().map(|(day, _)| (day - s.cut(self.freeze, *day).day) as f64);
            ages.sum::<f64>() / all.len() as f64
        };
        lines.extend(means.map(|means| self.line("mean".to_owned(), all.len(), &means, &age)));
        lines
    }

    fn line(&self, day: String, since: usize, arms: &[Vec<Drawn>], age: &dyn Fn(Schedule) -> f64) -> DayLine {
        let mut cells = Vec::new();
        for (arm, schedules) in arms.iter().enumerate() {
            let at = |wanted| Schedule::EACH.iter().position(|s| *s == wanted).map(|at| &schedules[at]);
            for (place, schedule) in Schedule::EACH.into_iter().enumerate() {
                let own = &schedules[place];
                let against = |wanted| own.less(at(wanted).unwrap_or(own)).estimates();
                cells.push(Cell {
                    arm: self.options.arms[arm].name.clone(),
                    schedule,
                    age: age(schedule),
                    metrics: own.estimates(),
                    gain: against(Schedule::Never),
                    behind_daily: against(Schedule::Daily),
                    lift_of_first: (arm > 0).then(|| arms[0][place].less(own).estimates()),
                });
            }
        }
        let (rows, positives) = arms.first().map_or((0, 0), |a| (a[0].rows, a[0].positives));
        DayLine { day, since, rows, positives, cells }
    }

    fn ages(&self) -> Vec<AgeLine> {
        let oldest = self.days.last().map_or(0, |day| day - self.freeze);
        let of = |arm: usize, age: usize| {
            let full = |day| Cut { day, incremental: false };
            let pairs = self.days.iter().filter(|day| **day >= self.freeze + age).filter_map(|day| {
                let aged = self.drawn(arm, *day, full(day - age))?;
                Some(aged.less(&self.drawn(arm, *day, full(day - 1))?))
            });
            let pairs: Vec<Drawn> = pairs.collect();
            let mean = Drawn::mean(&pairs)?.estimates();
            let (arm, days) = (self.options.arms[arm].name.clone(), pairs.len());
            Some(AgeLine { arm, age, days, auc: mean.auc, log_loss: mean.log_loss })
        };
        let arms = 0..self.options.arms.len();
        arms.flat_map(|arm| (1..=oldest).filter_map(move |age| of(arm, age))).collect()
    }
}
