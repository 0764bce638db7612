//! An evaluation as text for the terminal.

use comfy_table::{CellAlignment, Table, presets};

use crate::eval::{Estimate, EvalReport, GroupReport};
use crate::metrics::{HIT_AT_3, Metrics};

/// Columns of the metrics, the first ones of [`Metrics::each`].
pub const METRICS: [&str; 6] = ["AUC", "user AUC", "list AUC", "HIT@3", "log loss", "calibration"];

/// A table a head: for each group of rows the scorers' values, each with half the width of its 95 % interval, what a
/// random order has, and the first scorer's differences from the others with those of their paired intervals. A
/// difference whose interval excludes 0 is marked with `*`.
pub fn table(report: &EvalReport) -> String {
    let mut out = String::new();
    for head in &report.heads {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([head.head.as_str(), "scorer"].into_iter().chain(METRICS));
        for group in &head.groups {
            rows(&mut table, group);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        out.push_str(&table.trim_fmt());
        out.push_str("\n\n");
    }
    out
}

fn rows(table: &mut Table, group: &GroupReport) {
    let words = [
        group.group.words().to_owned(),
        format!("  {} rows", group.rows),
        format!("  {} positive", group.positives),
    ];
    let mut words = words.into_iter();
    let mut add = |name: String, cells: [String; METRICS.len()]| {
        table.add_row([words.next().unwrap_or_default(), name].into_iter().chain(cells));
    };
    let format = |metrics: &Metrics<Estimate>, show: fn(&Estimate) -> String| {
        std::array::from_fn(|m| show(metrics.each()[m]))
    };
    for scorer in &group.scorers {
        add(scorer.name.clone(), format(&scorer.metrics, value));
    }
    for difference in &group.differences {
        add(format!("less {}", difference.against), format(&difference.metrics, signed));
    }
    let mut random: [String; METRICS.len()] = Default::default();
    random[HIT_AT_3] = group.random_hit_at_3.map_or("-".to_owned(), |x| format!("{x:.4}         "));
    add("random order".to_owned(), random);
    add(String::new(), Default::default()); // air between groups; the words may still need it
}

fn value(e: &Estimate) -> String {
    match (e.value, e.low, e.high) {
        (Some(value), Some(low), Some(high)) => format!("{value:.4} ±{:.4} ", (high - low) / 2.0),
        (Some(value), ..) => format!("{value:.4}         "),
        _ => "-".to_owned(),
    }
}

fn signed(e: &Estimate) -> String {
    match (e.value, e.low, e.high) {
        (Some(value), Some(low), Some(high)) => {
            let sure = if low > 0.0 || high < 0.0 { "*" } else { " " };
            format!("{value:+.4} ±{:.4}{sure}", (high - low) / 2.0)
        }
        (Some(value), ..) => format!("{value:+.4}         "),
        _ => "-".to_owned(),
    }
}
