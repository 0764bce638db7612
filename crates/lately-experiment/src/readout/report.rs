//! What is reported of an experiment.

use serde::{Deserialize, Serialize};

use super::DAY_MS;
use super::design::{Better, Design, Role};
use super::facts::{Facts, warnings};
use super::segment::Group;
use super::series::Day;
use super::tallies::{PersonSums, Tallies};
use crate::statistics::{
    BEST_CLOCK, Estimate, Looked, Mismatch, benjamini_hochberg, cuped, estimate, holm, mismatch, needed,
};

/// How an experiment stands. As text it is a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The experiment.
    pub experiment: String,
    /// When, ms since 1970 UTC.
    pub now_ms: i64,
    /// Days since its start, or until its end.
    pub days: f64,
    /// The variant that others are compared with.
    pub control: String,
    /// Probability of an interval that misses.
    pub alpha: f64,
    /// People of each variant.
    pub users: Vec<VariantUsers>,
    /// Whether they were split as planned.
    pub mismatch: Mismatch,
    /// People seen in two variants, who are left out.
    pub crossovers: u64,
    /// What to know before believing a number.
    pub warnings: Vec<String>,
    /// Each group, metric and variant against the control, where anything is known.
    pub comparisons: Vec<Comparison>,
    /// The same at the end of each day, where it was read from a log.
    pub series: Vec<Day>,
}

/// People of a variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantUsers {
    /// The variant.
    pub variant: String,
    /// Planned share of people.
    pub share: f64,
    /// People.
    pub users: u64,
    /// Share of their lists that were served degraded.
    pub degraded_share: Option<f64>,
}

/// A variant against the control, in a metric, among a group of people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The people.
    pub group: Group,
    /// The metric.
    pub metric: String,
    /// The variant.
    pub variant: String,
    /// What the metric is for.
    pub role: Role,
    /// Which way is good.
    pub better: Better,
    /// People of control and variant.
    pub users: [u64; 2],
    /// As measured.
    pub plain: Estimate,
    /// With what people did before taken off; `None` where nobody did anything.
    pub cuped: Option<Cuped>,
    /// p-value of one look, of all comparisons of its group and role together: Holm's for primary metrics and
    /// guardrails, Benjamini and Hochberg's for others.
    pub adjusted_p: f64,
    /// The same of the p-value that holds at every look.
    pub adjusted_p_sequential: Option<f64>,
    /// Whether it is significant at a look that was planned beforehand.
    pub significant: bool,
    /// Whether it is at whatever look.
    pub significant_at_any_look: bool,
    /// The relative effect that is found with the wished power, with as many people as now.
    pub detectable_lift: Option<f64>,
    /// Days until the wanted lift would be found, if people come as they did.
    pub days_to_go: Option<f64>,
}

/// An estimate with what people did before taken off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cuped {
    /// The estimate.
    pub estimate: Estimate,
    /// Share of the variance that is left, 1 - rho^2.
    pub kept: f64,
}

impl Comparison {
    /// The estimate to believe: with the past taken off where there is one.
    pub fn best(&self) -> &Estimate {
        self.cuped.as_ref().map_or(&self.plain, |cuped| &cuped.estimate)
    }
}

impl Report {
    /// From sums of people. `earlier` is any earlier report of the same experiment that was itself given the one before
    /// it, if there was one: it anchors the sequential clock. Without it this is the first look.
    pub fn of(design: &Design, people: &[PersonSums], now_ms: i64, earlier: Option<&Self>) -> Self {
        let mut tallies = Tallies::new(design);
        people.iter().for_each(|person| tallies.add(person));
        Self::new(design, &tallies, &Facts::default(), now_ms, earlier)
    }

    pub(super) fn new(
        design: &Design,
        tallies: &Tallies,
        facts: &Facts,
        now_ms: i64,
        earlier: Option<&Self>,
    ) -> Self {
        let experiment = &design.experiment;
        let until_ms = experiment.end_ms.map_or(now_ms, |end| end.min(now_ms));
        let days = until_ms.saturating_sub(experiment.start_ms).max(0) as f64 / DAY_MS as f64;
        let counts = tallies.users(0);
        let variants = experiment.variants.iter().enumerate();
        let shares: Vec<f64> = experiment.variants.iter().map(|v| v.share).collect();
        let total: f64 = shares.iter().sum();
        let users: Vec<_> = variants
            .map(|(at, v)| VariantUsers {
                variant: v.name.clone(),
                share: v.share / total,
                users: counts[at],
                degraded_share: facts.degraded(at),
            })
            .collect();
        let mismatch = mismatch(counts, &shares, design.settings.mismatch_p);
        let mut comparisons = compared(design, tallies, days, earlier);
        adjust(&mut comparisons, design.settings.alpha);
        Self {
            experiment: experiment.name.clone(),
            now_ms,
            days,
            control: experiment.variants.first().map_or_else(String::new, |v| v.name.clone()),
            alpha: design.settings.alpha,
            crossovers: facts.crossovers,
            warnings: warnings(design, facts, &users, &mismatch, tallies),
            users,
            mismatch,
            comparisons,
            series: Vec::new(),
        }
    }

    /// The comparison of a group, metric and variant.
    pub fn comparison(&self, group: Group, metric: &str, variant: &str) -> Option<&Comparison> {
        self.comparisons.iter().find(|c| c.group == group && c.metric == metric && c.variant == variant)
    }
}

fn compared(design: &Design, tallies: &Tallies, days: f64, earlier: Option<&Report>) -> Vec<Comparison> {
    let variants = design.experiment.variants.iter().enumerate().skip(1);
    let one = |group: usize, metric: usize, variant: usize, name: &str| {
        let what = &design.metrics[metric];
        let before = earlier.and_then(|e| e.comparison(Group::EACH[group], &what.name, name));
        let users = [tallies.users(group)[0], tallies.users(group)[variant]];
        let sums = [tallies.sums(group, metric, 0), tallies.sums(group, metric, variant)];
        let looked = looked(design, users);
        let first = before.and_then(|c| c.plain.anchor);
        let plain = estimate(sums[0], sums[1], &Looked { first, ..looked })?;
        let first = before.and_then(|c| c.cuped.as_ref()?.estimate.anchor);
        let cuped = cuped(sums[0], sums[1], &Looked { first, ..looked });
        let cuped = cuped.map(|(estimate, kept)| Cuped { estimate, kept });
        let best = cuped.as_ref().map_or(&plain, |c| &c.estimate);
        let settings = &design.settings;
        let detectable_lift =
            best.lift.map(|lift| lift.standard_error * needed(settings.alpha, settings.power));
        let days_to_go =
            detectable_lift.map(|now| days * ((now / settings.wanted_lift).powi(2) - 1.0).max(0.0));
        Some(Comparison {
            group: Group::EACH[group],
            metric: what.name.clone(),
            variant: name.to_owned(),
            role: what.role,
            better: what.better,
            users,
            plain,
            cuped,
            adjusted_p: f64::NAN,
            adjusted_p_sequential: None,
            significant: false,
            significant_at_any_look: false,
            detectable_lift,
            days_to_go: days_to_go.filter(|_| days > 0.0),
        })
    };
    let cells = (0..Group::EACH.len()).flat_map(|g| (0..design.metrics.len()).map(move |m| (g, m)));
    let all = cells.flat_map(|(g, m)| variants.clone().map(move |(v, variant)| (g, m, v, variant)));
    all.filter_map(|(g, m, v, variant)| one(g, m, v, &variant.name)).collect()
}

/// The clock starts such that it is at its best after the planned days, if what people do grows with the days.
fn looked(design: &Design, users: [u64; 2]) -> Looked {
    let settings = &design.settings;
    let enough = users.iter().all(|n| *n >= settings.min_users);
    let start = enough.then(|| BEST_CLOCK / f64::from(settings.planned_days));
    Looked { alpha: settings.alpha, start, first: None }
}

/// Comparisons of a group and role are one family.
fn adjust(comparisons: &mut [Comparison], alpha: f64) {
    let mut families: Vec<Vec<usize>> = Vec::new();
    for at in 0..comparisons.len() {
        let of = |c: &Comparison| (c.group, c.role);
        match families.iter_mut().find(|family| of(&comparisons[family[0]]) == of(&comparisons[at])) {
            Some(family) => family.push(at),
            None => families.push(vec![at]),
        }
    }
    for family in families {
        let adjusted = if comparisons[family[0]].role == Role::Other { benjamini_hochberg } else { holm };
        let best: Vec<_> = family.iter().map(|at| comparisons[*at].best().difference).collect();
        let fixed = adjusted(&best.iter().map(|e| e.p).collect::<Vec<_>>());
        let of_any = |e: &crate::statistics::Effect| e.sequential.map_or(1.0, |s| s.p);
        let any = adjusted(&best.iter().map(of_any).collect::<Vec<_>>());
        for (place, at) in family.into_iter().enumerate() {
            let comparison = &mut comparisons[at];
            comparison.adjusted_p = fixed[place];
            comparison.significant = fixed[place] < alpha;
            comparison.adjusted_p_sequential = best[place].sequential.map(|_| any[place]);
            comparison.significant_at_any_look = any[place] < alpha;
        }
    }
}
