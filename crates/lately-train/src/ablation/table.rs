//! A comparison as one table, for the terminal or as Markdown.

use comfy_table::{CellAlignment, Table, presets};

use super::claim::{Claim, sign};
use super::compare::{Averaged, CellReport, Line};
use crate::eval::Estimate;

const HEADER: [&str; 10] = [
    "head, rows",
    "configuration",
    "HIT@3",
    "lift of HIT@3 [95 %]",
    "by seed",
    "paper",
    "sign",
    "AUC",
    "user AUC",
    "list AUC",
];

/// For the terminal: what a cell's rows are stands beside its first lines.
pub fn text(cells: &[CellReport]) -> String {
    let mut table = empty();
    table.load_style(presets::NOTHING);
    for cell in cells {
        let mut about = about(cell).into_iter();
        let lines = cell.lines.iter().map(|line| row(about.next().unwrap_or_default(), line));
        table.add_rows(lines.collect::<Vec<_>>());
        table.add_rows(about.map(|words| [words]));
        table.add_row([""]);
    }
    table.trim_fmt()
}

/// As Markdown: what a cell's rows are stands in its first line.
pub fn markdown(cells: &[CellReport]) -> String {
    let mut table = empty();
    table.load_style(presets::ASCII_MARKDOWN);
    for cell in cells {
        let mut about = Some(about(cell).join(", ")).into_iter();
        for line in &cell.lines {
            table.add_row(row(about.next().unwrap_or_default(), line));
        }
    }
    table.to_string()
}

fn empty() -> Table {
    let mut table = Table::new();
    table.set_header(HEADER);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What the rows of a cell are.
fn about(cell: &CellReport) -> Vec<String> {
    let mut about = vec![
        format!("{}, {}", cell.head, cell.group.words()),
        format!("{} rows", cell.rows),
        format!("{} positive", cell.positives),
        format!("{} lists", cell.chunks),
    ];
    about.extend(cell.random_hit_at_3.map(|x| format!("random order {x:.4}")));
    about
}

fn row(about: String, line: &Line) -> [String; 10] {
    let less = |of: fn(&crate::metrics::Metrics<Averaged>) -> &Averaged| {
        beside(of(&line.metrics), line.less.as_ref().map(|less| &of(less).mean))
    };
    [
        about,
        line.name.clone(),
        mean(&line.metrics.hit_at_3),
        line.lift.as_ref().map_or("baseline".to_owned(), |lift| percent(&lift.mean)),
        line.lift.as_ref().map(|lift| range(&lift.seeds)).unwrap_or_default(),
        line.claim.map(Claim::words).unwrap_or_default(),
        line.verdict.map(|v| v.words().to_owned()).unwrap_or_default(),
        less(|m| &m.auc),
        less(|m| &m.user_auc),
        less(|m| &m.list_auc),
    ]
}

/// The mean over seeds with the deviation between them.
fn mean(of: &Averaged) -> String {
    let Some(value) = of.mean.value else { return "-".to_owned() };
    let deviation = of.deviation.map(|x| format!(" (sd {x:.4})")).unwrap_or_default();
    format!("{value:.4}{deviation}")
}

/// The mean, and the difference from the baseline, marked with `*` where its interval excludes zero.
fn beside(of: &Averaged, less: Option<&Estimate>) -> String {
    let Some(value) = of.mean.value else { return "-".to_owned() };
    let difference = less.and_then(|e| {
        let (difference, low, high) = (e.value?, e.low?, e.high?);
        Some(format!(" {difference:+.4} ±{:.4}{}", (high - low) / 2.0, mark(e)))
    });
    format!("{value:.4}{}", difference.unwrap_or_default())
}

fn percent(e: &Estimate) -> String {
    match (e.value, e.low, e.high) {
        (Some(value), Some(low), Some(high)) => {
            format!("{value:+.2} % [{low:+.2}, {high:+.2}]{}", mark(e))
        }
        (Some(value), ..) => format!("{value:+.2} %"),
        _ => "-".to_owned(),
    }
}

fn mark(e: &Estimate) -> &'static str {
    if sign(e).unwrap_or(0) == 0 { "" } else { "*" }
}

/// The lowest and the highest of the seeds.
fn range(seeds: &[Option<f64>]) -> String {
    let known = || seeds.iter().flatten().copied();
    match (known().reduce(f64::min), known().reduce(f64::max)) {
        (Some(low), Some(high)) if seeds.len() > 1 => format!("{low:+.2} … {high:+.2}"),
        _ => String::new(),
    }
}
