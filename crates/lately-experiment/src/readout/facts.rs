//! What a log tells beside the sums, and what follows for how far a report can be trusted.

use super::design::Design;
use super::report::VariantUsers;
use super::tallies::Tallies;
use crate::statistics::Mismatch;

/// Share of people in two variants, and of lists served degraded, that is worth a warning.
const WORTH_A_WARNING: f64 = 0.01;

/// What a log tells beside the sums.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// People who were seen in two variants: they are in none.
    pub(super) crossovers: u64,
    /// For each variant the lists served to its people, and those of them with a rung of degradation.
    pub(super) served: Vec<[u64; 2]>,
    /// Days of log before the start; `None`: not from a log.
    pub(super) history_days: Option<f64>,
    /// Events of people beyond `max_users`.
    pub(super) not_kept: u64,
    /// Exposures to a variant that the design does not have.
    pub(super) unknown: u64,
}

impl Facts {
    /// Share of a variant's lists that were served degraded.
    pub(super) fn degraded(&self, variant: usize) -> Option<f64> {
        let [all, degraded] = *self.served.get(variant)?;
        (all > 0).then(|| degraded as f64 / all as f64)
    }
}

/// What a reader must know before believing a number.
pub(super) fn warnings(
    design: &Design,
    facts: &Facts,
    users: &[VariantUsers],
    mismatch: &Mismatch,
    tallies: &Tallies,
) -> Vec<String> {
    let settings = &design.settings;
    let mut all = Vec::new();
    let total: u64 = users.iter().map(|u| u.users).sum();
    if mismatch.suspected {
        all.push(format!(
            "people are not split as planned (p {:.1e}): find out why before reading on; nothing below can be believed",
            mismatch.p
        ));
    }
    for few in users.iter().filter(|u| u.users < settings.min_users) {
        all.push(format!(
            "`{}` has {} people, fewer than {}: no sequential interval yet",
            few.variant, few.users, settings.min_users
        ));
    }
    let crossed = facts.crossovers as f64 / (total + facts.crossovers).max(1) as f64;
    if crossed > WORTH_A_WARNING {
        all.push(format!("{:.1} % of people were seen in two variants and left out", 100.0 * crossed));
    }
    all.extend(of_the_past(facts, settings.pre_days, total, tallies.with_past));
    let degraded = users.iter().filter_map(|u| Some((&u.variant, u.degraded_share?)));
    for (variant, share) in degraded.filter(|(_, share)| *share > WORTH_A_WARNING) {
        all.push(format!("{:.1} % of the lists of `{variant}` were served degraded", 100.0 * share));
    }
    if facts.not_kept > 0 {
        all.push(format!("{} events of people beyond max_users are not in it", facts.not_kept));
    }
    if facts.unknown > 0 {
        all.push(format!("{} exposures name a variant that is not declared", facts.unknown));
    }
    all
}

fn of_the_past(facts: &Facts, pre_days: u32, total: u64, with_past: u64) -> Option<String> {
    match facts.history_days {
        Some(days) if days < f64::from(pre_days) => Some(format!(
            "the log begins {days:.1} days before the start, the pre-period has {pre_days}: CUPED and segments are weaker"
        )),
        _ if total > 0 && with_past == 0 => {
            Some("nobody did anything in the pre-period: no CUPED".to_owned())
        }
        _ => None,
    }
}
