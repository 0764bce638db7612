//! What came, what was served, and how it compares.

use super::page::span;
use super::{Check, Status};
use crate::data_dir::DataDir;
use crate::log_source::Log;
use crate::watch::{NO_CHAMPION, WatchReport};

/// Nothing new for so long is worth a word, ms.
const STALE_MS: i64 = 24 * 3_600_000;
/// Largest share of the rankings on a rung, beside those that are put there on purpose.
const DEGRADED: f64 = 0.01;
/// Largest share of the actions that come after their attribution window.
const LATE: f64 = 0.05;
/// Largest share of the actions that no impression explains. Histories that were imported without any are such.
const UNJOINED: f64 = 0.5;
/// Largest share of the shown items without a vector of their own.
const WITHOUT_VECTOR: f64 = 0.1;

pub(super) fn checks(report: &WatchReport, source: &Log, now_ms: i64, dir: &DataDir) -> Vec<Check> {
    let mut checks = vec![freshness(report, source, now_ms)];
    if report.findings.census.records == 0 {
        return checks;
    }
    checks.push(degraded(report, dir));
    checks.push(joined(report));
    checks.push(busy(report));
    checks.extend(vectors(report));
    checks.push(drift(report));
    checks.push(calibration(report));
    checks.push(replay(report));
    checks
}

fn freshness(report: &WatchReport, source: &Log, now_ms: i64) -> Check {
    let census = &report.findings.census;
    let held = match source.address() {
        None => "opened here".to_owned(),
        Some(address) => format!("read from the server at {address}"),
    };
    if census.records == 0 {
        let todo = "send items, users and events, or `lately import` them";
        return Check::warn("log", format!("empty, {held}"), todo);
    }
    let ago = |time: Option<i64>| time.map_or("never".to_owned(), |t| format!("{} ago", span(now_ms - t)));
    let found = format!(
        "{} records, {held}; last action {}, last list {}",
        census.records,
        ago(census.newest_action_ms),
        ago(census.newest_impression_ms)
    );
    let fresh = census.newest_action_ms.is_some_and(|t| now_ms - t <= STALE_MS);
    Check::ok_if(fresh, "log", found, "no action for a day: do clients still send them to POST /v1/events?")
}

fn degraded(report: &WatchReport, dir: &DataDir) -> Check {
    let census = &report.findings.census;
    let all = census.impressions.max(1) as f64;
    let share = census.degraded as f64 / all;
    let rungs = census.rungs.iter().map(|(rung, n)| format!("{rung} {:.2} %", 100.0 * *n as f64 / all));
    let rungs: Vec<String> = rungs.collect();
    let which = if rungs.is_empty() { "none on a rung".to_owned() } else { rungs.join(", ") };
    let found = format!("{} lists, {} by a model; {which}", census.impressions, census.ranked);
    let todo = "docs/serve.md says what each rung means; such lists are left out of training";
    Check::ok_if(share <= DEGRADED + dir.config.rank.exercise_share, "served", found, todo)
}

fn joined(report: &WatchReport) -> Check {
    let join = &report.findings.join;
    let all = join.actions.max(1) as f64;
    let (late, unjoined) = (join.late_actions as f64 / all, join.unjoined_actions as f64 / all);
    let found = format!(
        "of {} actions in the log {:.1} % late, {:.1} % on nothing that was shown, {:.1} % repeated; {} records do not fit \
         the schema",
        join.actions,
        100.0 * late,
        100.0 * unjoined,
        100.0 * join.repeated_actions as f64 / all,
        join.bad_features + join.unknown_actions,
    );
    let good = late <= LATE && unjoined <= UNJOINED && join.bad_features + join.unknown_actions == 0;
    let todo = "late: raise attribution_seconds or send sooner; on nothing shown: send the ranking's request id; not \
                fitting: docs/operations.md";
    Check::ok_if(good, "labels", found, todo)
}

fn busy(report: &WatchReport) -> Check {
    let (census, bound) = (&report.findings.census, report.config.user_actions_per_hour);
    if census.busy == 0 {
        return Check::ok("bots", format!("no user with more than {bound} actions in an hour"));
    }
    let named: Vec<String> = census.busiest.iter().map(|(user, n)| format!("{user} {n}")).collect();
    let found =
        format!("{} users with more than {bound} actions in an hour: {}", census.busy, named.join(", "));
    Check::warn(
        "bots",
        found,
        "cap them with [serve.limits] user_actions, or forget them: DELETE /v1/users/{id}",
    )
}

fn vectors(report: &WatchReport) -> Option<Check> {
    let v = report.findings.vectors.filter(|v| v.items > 0)?;
    let found = format!("{} of {} shown items have no vector of their own", v.without, v.items);
    let todo = "`lately embed items`, then train";
    Some(Check::ok_if(
        v.without as f64 <= WITHOUT_VECTOR * v.items as f64,
        "vectors of shown items",
        found,
        todo,
    ))
}

fn drift(report: &WatchReport) -> Check {
    let (findings, bounds) = (&report.findings, report.config.bounds());
    if let Some(why) = &findings.no_drift {
        let status = if why == NO_CHAMPION { Status::Ok } else { Status::Warn };
        return Check { status, ..Check::ok("drift", format!("not measured: {why}")) };
    }
    let crossed: Vec<&str> =
        findings.drift.iter().filter(|d| d.crossed(&bounds)).map(|d| d.name.as_str()).collect();
    if crossed.is_empty() {
        return Check::ok("drift", format!("{} columns are as in training", findings.drift.len()));
    }
    let found =
        format!("{} of {} columns moved: {}", crossed.len(), findings.drift.len(), crossed.join(", "));
    Check::warn("drift", found, "a fault of what sends them: correct it; else train again")
}

fn calibration(report: &WatchReport) -> Check {
    let (findings, low, high) =
        (&report.findings, report.config.calibration_low, report.config.calibration_high);
    let rows = findings.calibration.iter().map(|h| h.all.rows).max().unwrap_or(0);
    if rows == 0 {
        return Check::ok("calibration", "no list of a model whose labels are complete");
    }
    let off: Vec<String> = (findings.calibration.iter())
        .filter(|h| h.all.is_off(low, high))
        .map(|h| format!("{} {:.2}", h.head, h.all.ratio))
        .collect();
    if off.is_empty() {
        return Check::ok(
            "calibration",
            format!("predicted over observed within {low} to {high}, or too few to say"),
        );
    }
    let found = format!("predicted over observed out of {low} to {high}: {}", off.join(", "));
    Check::warn("calibration", found, "train again, with [train] calibration = \"platt\"")
}

fn replay(report: &WatchReport) -> Check {
    let f = &report.findings;
    let sum = |of: fn(&lately_train::replay::ReplayReport) -> usize| f.replay.values().map(of).sum::<usize>();
    let (requests, differ) = (sum(|r| r.requests), sum(|r| r.beyond + r.unknown));
    let worst = f.replay.values().map(|r| r.worst).fold(0.0, f64::max);
    let found = format!(
        "{requests} rankings made again from the log: {differ} items differ, |dp| at most {worst:.1e}{}",
        f.not_replayed.iter().map(|why| format!("; not {why}")).collect::<String>()
    );
    if f.replay.values().any(|r| !r.holds()) {
        let todo = "what is served is not what is trained on: was the program, the precision, the schema or the vectors changed \
                    since? `lately replay` tells by version";
        return Check::fail("replay", found, todo);
    }
    Check::ok_if(f.not_replayed.is_empty(), "replay", found, "versions that are gone cannot be checked")
}
