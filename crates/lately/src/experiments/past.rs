//! What a plan must know of a metric, from the newest days of a log: read as an experiment in which nothing differs.

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use lately_experiment::{Design, Experiment, Group, Readout, Settings, Variant};
use lately_features::{Event, Schema};

use crate::log_source::Log;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The experiment in which nothing differs, and its variants.
const NAME: &str = "plan";
const SIDES: [&str; 2] = ["a", "b"];

/// A metric in the newest days of a log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Past {
    /// Its mean, of a person who was shown anything.
    pub(crate) mean: f64,
    /// Its variance between people.
    pub(crate) variance: f64,
    /// Share of the variance that CUPED leaves; 1: the log begins too late to know.
    pub(crate) kept: f64,
    /// People.
    pub(crate) users: u64,
    /// For each day the people who were shown anything for the first time in these days.
    pub(crate) new_users: Vec<f64>,
}

/// Reads a metric, by the name that a report gives it, in the newest `days`. Reads the log twice: what is newest is known
/// at its end.
pub(crate) fn past(log: &Log, schema: &Schema, settings: &Settings, metric: &str, days: u32) -> Result<Past> {
    let start_ms = newest(log)?.saturating_sub(i64::from(days) * DAY_MS);
    let variant = |name: &str| Variant { name: name.to_owned(), share: 1.0 };
    let experiment = Experiment {
        name: NAME.to_owned(),
        start_ms,
        end_ms: None,
        variants: SIDES.map(variant).into(),
        surfaces: Vec::new(),
    };
    let design = Design::new(experiment, schema, settings.clone())?;
    let names: Vec<_> = design.metrics.iter().map(|m| m.name.clone()).collect();
    if !names.iter().any(|name| name == metric) {
        bail!("there is no metric `{metric}`: name one of {}", names.join(", "));
    }
    let mut readout = Readout::new(design)?;
    let (mut seen, mut new_users) = (HashSet::new(), vec![0.0; days as usize]);
    log.each(&mut |_, mut event| {
        if let Event::Impression(shown) = &mut event {
            let hash = shown.user.hash64();
            shown.variant = Some(format!("{NAME}={}", SIDES[(hash >> 32) as usize % SIDES.len()]));
            let since_ms = shown.time_ms - start_ms;
            if since_ms >= 0 && seen.insert(hash) {
                // The newest moment belongs to the last day.
                new_users[((since_ms / DAY_MS) as usize).min(days as usize - 1)] += 1.0;
            }
        }
        readout.observe(&event);
        Ok(())
    })?;
    let report = readout.report();
    let found = report.comparison(Group::All, metric, SIDES[1]).with_context(|| {
        format!(
            "nobody did what `{metric}` counts in the newest {days} days of the log: take more --log-days"
        )
    })?;
    let [a, b] = found.users.map(|n| n as f64);
    Ok(Past {
        mean: (a * found.plain.control + b * found.plain.variant) / (a + b),
        variance: found.plain.difference.standard_error.powi(2) / (1.0 / a + 1.0 / b),
        kept: found.cuped.as_ref().map_or(1.0, |cuped| cuped.kept),
        users: found.users.iter().sum(),
        new_users,
    })
}

/// Time of the newest action or list, ms since 1970 UTC.
fn newest(log: &Log) -> Result<i64> {
    let mut newest = None;
    log.each(&mut |_, event| {
        if let Event::Action(_) | Event::Impression(_) = &event {
            newest = newest.max(Some(event.time_ms()));
        }
        Ok(())
    })?;
    newest.context("the log holds no action and no list: serve first, or import")
}
