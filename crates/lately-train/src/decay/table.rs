//! The lab's findings as tables for the terminal.

use comfy_table::{CellAlignment, Table, presets};

use super::report::{Cell, DecayReport, HeadReport};
use super::schedule::Schedule;
use crate::ablation::claim::sign;
use crate::eval::Estimate;

/// Of each head, AUC by day: of the model that is never retrained, and what each schedule gains over it on the same
/// impressions.
pub fn days(report: &DecayReport) -> String {
    let arms = arms(report);
    let blocks = report.heads.iter().flat_map(|head| arms.iter().map(move |arm| block(head, arm)));
    blocks.collect::<Vec<_>>().join("\n")
}

/// What models lose with age, by head and arm.
pub fn ages(report: &DecayReport) -> String {
    let mut table = table(&["head", "sequence", "age, days", "days", "AUC", "log loss"], 2);
    for head in &report.heads {
        for line in head.ages.iter().filter(|line| line.age > 1) {
            table.add_row([
                head.head.clone(),
                line.arm.clone(),
                line.age.to_string(),
                line.days.to_string(),
                signed(&line.auc),
                signed(&line.log_loss),
            ]);
        }
    }
    format!(
        "what a model loses with age, against one of the day before, same impressions\n{}",
        table.trim_fmt()
    )
}

/// What incremental training costs and reaches, against full.
pub fn cost(report: &DecayReport) -> String {
    let mut out = String::new();
    for arm in arms(report) {
        let of = |incremental: bool| {
            let all = report.trainings.iter().filter(|t| t.arm == arm && t.incremental == incremental);
            // The first full one has no incremental fellow.
            let first = usize::from(!incremental);
            all.skip(first).map(|t| t.seconds).collect::<Vec<_>>()
        };
        let mut shares: Vec<f64> = of(true).iter().zip(of(false)).map(|(i, full)| i / full).collect();
        shares.sort_by(f64::total_cmp);
        if let (Some(low), Some(high)) = (shares.first(), shares.last()) {
            let median = shares[shares.len() / 2];
            out += &format!(
                "{arm}: incremental training took {median:.3} of the full one's time (median of {}, {low:.3} to {high:.3})\n",
                shares.len()
            );
        }
        for head in &report.heads {
            let mean = head.days.last().into_iter().flat_map(|line| &line.cells);
            let own = |c: &&Cell| c.arm == arm && c.schedule == Schedule::Incremental;
            for cell in mean.filter(own) {
                out += &format!(
                    "  {}: its AUC less that of full daily retraining, mean over days: {}\n",
                    head.head,
                    range(&cell.behind_daily.auc)
                );
            }
        }
    }
    out
}

/// What the first arm has over the others under the same schedule, mean over days.
pub fn gap(report: &DecayReport) -> String {
    let first = arms(report).into_iter().next().unwrap_or_default();
    let mut table = table(&["head", "without", "retrained", "AUC", "HIT@3"], 3);
    for head in &report.heads {
        for cell in head.days.last().into_iter().flat_map(|line| &line.cells) {
            let Some(lift) = &cell.lift_of_first else { continue };
            let words = cell.schedule.words().to_owned();
            table.add_row([
                head.head.clone(),
                cell.arm.clone(),
                words,
                range(&lift.auc),
                range(&lift.hit_at_3),
            ]);
        }
    }
    format!("what {first} has over a model without it, same days and impressions\n{}", table.trim_fmt())
}

fn arms(report: &DecayReport) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in report.trainings.iter().map(|t| &t.arm) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn block(head: &HeadReport, arm: &str) -> String {
    let gains = &Schedule::EACH[1..];
    let mut header = vec!["day", "rows", "positive", "never"];
    header.extend(gains.iter().map(|s| s.words()));
    header.extend(["HIT@3 never", "HIT@3 daily"]);
    let mut table = table(&header, 1);
    for line in &head.days {
        let own: Vec<&Cell> = line.cells.iter().filter(|c| c.arm == arm).collect();
        let Some((never, rest)) = own.split_first() else { continue };
        let mut row = vec![line.day.clone(), line.rows.to_string(), line.positives.to_string()];
        row.push(never.metrics.auc.value.map_or("-".to_owned(), |x| format!("{x:.4}")));
        row.extend(rest.iter().map(|cell| signed(&cell.gain.auc)));
        let hits = |e: &Estimate| e.value.map_or("-".to_owned(), |x| format!("{x:.4}"));
        row.push(hits(&never.metrics.hit_at_3));
        let daily = rest.iter().find(|c| c.schedule == Schedule::Daily);
        row.push(daily.map_or("-".to_owned(), |c| {
            format!("{} {}", hits(&c.metrics.hit_at_3), signed(&c.gain.hit_at_3))
        }));
        table.add_row(row);
    }
    format!("{}, {arm}: AUC never retrained, and what each schedule gains\n{}\n", head.head, table.trim_fmt())
}

fn table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A difference with half its interval, marked where that excludes zero.
fn signed(e: &Estimate) -> String {
    match (e.value, e.low, e.high) {
        (Some(value), Some(low), Some(high)) => {
            let mark = if sign(e).unwrap_or(0) == 0 { " " } else { "*" };
            format!("{value:+.4} ±{:.4}{mark}", (high - low) / 2.0)
        }
        (Some(value), ..) => format!("{value:+.4}"),
        _ => "-".to_owned(),
    }
}

fn range(e: &Estimate) -> String {
    match (e.value, e.low, e.high) {
        (Some(value), Some(low), Some(high)) => format!("{value:+.4} [{low:+.4}, {high:+.4}]"),
        (Some(value), ..) => format!("{value:+.4}"),
        _ => "-".to_owned(),
    }
}
