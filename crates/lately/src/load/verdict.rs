//! What a run must show: the bounds of `--assert`, and what makes its figures no figures.

use serde::Serialize;

use super::overload::Overload;
use super::record::Outcome;
use super::report::{Phase, short};
use super::swaps::Swaps;

/// At the steady load p99 is at most so many unloaded medians.
const STEADY_RATIO: f64 = 4.0;
/// Goodput under overload as a share of capacity, at least.
const GOODPUT: f64 = 0.9;
/// Time to recover, s, at most.
const RECOVERY: f64 = 5.0;

/// One bound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// What was found, with the bound.
    pub(crate) text: String,
    pub(crate) holds: bool,
}

fn verdict(holds: bool, text: String) -> Verdict {
    Verdict { text, holds }
}

pub(crate) fn of_steady(phase: &Phase, unloaded_ms: f64) -> Vec<Verdict> {
    let ratio = phase.rankings.latency.p99 / unloaded_ms;
    let failed = phase.rankings.failed() + phase.events.as_ref().map_or(0, super::report::Stream::failed);
    vec![
        verdict(
            ratio <= STEADY_RATIO,
            format!("{}: p99 is {ratio:.2} unloaded medians, at most {STEADY_RATIO}", phase.name),
        ),
        verdict(failed == 0, format!("{}: {failed} requests failed, none may", phase.name)),
    ]
}

pub(crate) fn of_overload(overload: &Overload, phase: &Phase) -> Vec<Verdict> {
    let share = overload.share_of_capacity;
    let r = &phase.rankings;
    let (shed, other) = (r.count(Outcome::Shed), r.count(Outcome::Error) + r.count(Outcome::Timeout));
    let recovery = overload.recovery_seconds.map_or("not at all".to_owned(), |s| format!("after {s:.2} s"));
    vec![
        verdict(share >= GOODPUT, format!("overload: goodput is {share:.3} of capacity, at least {GOODPUT}")),
        verdict(
            other == 0 && r.retry_after == shed,
            format!(
                "overload: {shed} refused, {} of them with Retry-After, {other} other failures: all refusals name it",
                r.retry_after
            ),
        ),
        verdict(
            overload.recovery_seconds.is_some_and(|s| s <= RECOVERY),
            format!("overload: recovered {recovery}, within {RECOVERY} s"),
        ),
    ]
}

pub(crate) fn of_swaps(swaps: &Swaps, phase: &Phase) -> Vec<Verdict> {
    let failed = phase.rankings.failed();
    vec![
        verdict(failed == 0, format!("swaps: {failed} rankings failed during {} swaps", swaps.done)),
        verdict(
            phase.mixed == 0 && swaps.probes > 0,
            format!(
                "swaps: {} answers of mixed versions; {} answers had the scores of the version that they name",
                phase.mixed, swaps.probes
            ),
        ),
    ]
}

/// Why the figures of a phase are not to be used.
pub(crate) fn invalid(phase: &Phase, most_lag_ms: f64) -> Vec<String> {
    let streams = [("rankings", Some(&phase.rankings)), ("events", phase.events.as_ref())];
    let mut why = Vec::new();
    for (what, stream) in streams.into_iter().filter_map(|(what, s)| Some((what, s?))) {
        if stream.lag.p99 > most_lag_ms {
            why.push(format!(
                "{}: the p99 of the lag of sent {what} is {} ms, more than {most_lag_ms}: this machine cannot send so \
                 many requests beside the server",
                phase.name,
                short(stream.lag.p99)
            ));
        }
        if stream.unsent > 0 {
            let why_not = stream.messages.first().map_or("", String::as_str);
            why.push(format!("{}: {} {what} could not be sent: {why_not}", phase.name, stream.unsent));
        }
    }
    why
}
