//! The page as text.

use std::fmt;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::HumanDuration;

use super::{Diagnosis, Status};
use crate::watch::WatchReport;

/// Columns of the drift table that are shown where none crossed a bound; those that did all are.
const SHOWN: usize = 8;
/// Hours that are shown, the newest.
const HOURS: usize = 24;

/// A time in words, of milliseconds.
pub(super) fn span(ms: i64) -> String {
    HumanDuration(Duration::from_millis(ms.max(0).unsigned_abs())).to_string()
}

/// An hour, UTC.
fn hour(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).map(|t| t.strftime("%m-%d %H:00").to_string());
    time.unwrap_or_else(|_| ms.to_string())
}

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING); // no lines between rows: 24 hours are to fit on the page
    table.set_header(header);
    table
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            writeln!(f, "{status}  {}: {}", check.name, check.found)?;
            if !check.todo.is_empty() {
                writeln!(f, "      -> {}", check.todo)?;
            }
        }
        if let (Some(report), Some(dir)) = (&self.log, &self.dir) {
            let names: Vec<String> = dir.schema.actions.iter().map(|a| a.name.clone()).collect();
            drift(f, report)?;
            actions(f, report, &names)?;
            calibration(f, report)?;
        }
        let count = |status| self.count(status);
        let (ok, warn, fail) = (count(Status::Ok), count(Status::Warn), count(Status::Fail));
        write!(f, "{ok} ok, {warn} to look at, {fail} failed")
    }
}

/// The worst first; the noise is what chance alone does on so few independent rows.
fn drift(f: &mut fmt::Formatter<'_>, report: &WatchReport) -> fmt::Result {
    let bounds = report.config.bounds();
    let mut table =
        table(["column", "coverage", "in training", "PSI", "bound", "verdict"].map(String::from).into());
    let crossed = report.findings.drift.iter().filter(|d| d.crossed(&bounds)).count();
    for d in report.findings.drift.iter().take(crossed.max(SHOWN)) {
        let verdict = match (d.moved(&bounds), d.uncovered(&bounds)) {
            (_, true) => "COVERAGE",
            (true, false) => "MOVED",
            _ => "ok",
        };
        table.add_row([
            d.name.clone(),
            format!("{:.1} %", 100.0 * d.coverage),
            format!("{:.1} %", 100.0 * d.coverage_before),
            format!("{:.3}", d.psi),
            format!("{:.3}", bounds.psi.max(d.psi_noise)),
            verdict.to_owned(),
        ]);
    }
    if report.findings.drift.is_empty() {
        return Ok(());
    }
    writeln!(f, "\nDrift of the last {} h against training, the worst first\n{table}", report.findings.hours)
}

fn actions(f: &mut fmt::Formatter<'_>, report: &WatchReport, names: &[String]) -> fmt::Result {
    let actions = &report.findings.census.actions;
    if actions.is_empty() {
        return Ok(());
    }
    let header = ["hour, UTC", "actions"].map(String::from).into_iter();
    let mut table = table(header.chain(names.iter().map(|n| format!("{n} %"))).collect());
    for (at, counts) in actions.iter().skip(actions.len().saturating_sub(HOURS)) {
        let all = counts.iter().sum::<u64>();
        let share = |n: &u64| format!("{:.1}", 100.0 * *n as f64 / all.max(1) as f64);
        table.add_row([hour(*at), all.to_string()].into_iter().chain(counts.iter().map(share)));
    }
    writeln!(f, "\nActions\n{table}")
}

fn calibration(f: &mut fmt::Formatter<'_>, report: &WatchReport) -> fmt::Result {
    let (low, high) = (report.config.calibration_low, report.config.calibration_high);
    let header = ["head", "items", "predicted", "observed", "ratio", "95 %", "hours off"];
    let mut table = table(header.map(String::from).into());
    for head in report.findings.calibration.iter().filter(|h| h.all.rows > 0) {
        let off = head.hours.iter().filter(|(_, c)| c.is_off(low, high));
        let off: Vec<String> = off.map(|(at, c)| format!("{} {:.2}", hour(*at), c.ratio)).collect();
        let unripe = report.findings.unripe.contains(&head.head);
        table.add_row([
            if unripe { format!("{} (labels still come)", head.head) } else { head.head.clone() },
            head.all.rows.to_string(),
            format!("{:.1}", head.all.predicted),
            head.all.observed.to_string(),
            format!("{:.2}", head.all.ratio),
            format!("{:.2} to {:.2}", head.all.low, head.all.high),
            if off.is_empty() { "none".to_owned() } else { off.join(", ") },
        ]);
    }
    if table.is_empty() {
        return Ok(());
    }
    writeln!(f, "\nPredicted over observed, of what was served\n{table}")
}
