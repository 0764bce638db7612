//! A report as text.

use std::fmt;

use super::design::Role;
use super::report::{Comparison, Report};
use super::segment::Group;
use crate::statistics::Effect;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "experiment {}, day {:.1}, against `{}`", self.experiment, self.days, self.control)?;
        for of in &self.users {
            let degraded = of.degraded_share.map_or(String::new(), |s| format!(", {} degraded", percent(s)));
            let planned = percent(of.share);
            writeln!(f, "  {:<16} {:>9} people of planned {planned}{degraded}", of.variant, of.users)?;
        }
        writeln!(f, "  split: p {:.3}; in two variants: {}", self.mismatch.p, self.crossovers)?;
        for warning in &self.warnings {
            writeln!(f, "  WARNING {warning}")?;
        }
        for group in Group::EACH {
            let mut of = self.comparisons.iter().filter(|c| c.group == group).peekable();
            if of.peek().is_some() {
                writeln!(f, "\n{}, {:.0} % intervals", group.name(), 100.0 * (1.0 - self.alpha))?;
                heading(f)?;
            }
            of.try_for_each(|comparison| row(f, comparison))?;
        }
        writeln!(
            f,
            "\n* significant at a look planned beforehand, ** at whatever look; n: past taken off (CUPED)"
        )
    }
}

fn heading(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "  {:<26} {:<12} {:>10} {:>9}    {:<21} {:<21} {:>8} {:>8}",
        "metric", "variant", "control", "lift", "one look", "any look", "p adj.", "finds"
    )
}

fn row(f: &mut fmt::Formatter<'_>, c: &Comparison) -> fmt::Result {
    let mark = match (c.significant_at_any_look, c.significant) {
        (true, _) => "**",
        (false, true) => "* ",
        (false, false) => "  ",
    };
    let role = match c.role {
        Role::Primary => "!",
        Role::Guardrail => "|",
        Role::Other => " ",
    };
    let taken = if c.cuped.is_some() { "n" } else { " " };
    let lift = c.best().lift;
    let value = lift.map_or("-".to_owned(), |l| signed(l.value));
    let fixed = lift.map_or("-".to_owned(), |l| interval(l.low, l.high));
    let any = lift.and_then(|l: Effect| l.sequential).map_or("-".to_owned(), |s| interval(s.low, s.high));
    let finds = c.detectable_lift.map_or("-".to_owned(), percent);
    let metric = format!("{role} {}", c.metric);
    let (control, p) = (c.best().control, c.adjusted_p);
    writeln!(
        f,
        "  {metric:<26} {:<12} {control:>10.4} {value:>9}{mark}{taken} {fixed:<21} {any:<21} {p:>8.4} {finds:>8}",
        c.variant
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn signed(share: f64) -> String {
    format!("{:+.1} %", 100.0 * share)
}

fn interval(low: f64, high: f64) -> String {
    format!("[{}, {}]", signed(low), signed(high))
}
