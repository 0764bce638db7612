//! A report as a picture: the lift of each primary metric and guardrail at the end of each day.

use anyhow::{Result, bail};
use lately_experiment::{DayPoint, Group, Report, Role};
use lately_train::plot::{Area, COLOURS, DrawError, panels};
use plotters::prelude::*;

/// Width, and height of a panel, px.
const SIZE: (u32, u32) = (900, 280);
/// Of the axis above the lifts, for the legend.
const LEGEND: f64 = 0.3;

/// A panel.
struct Panel<'a> {
    metric: &'a str,
    role: Role,
    control: &'a str,
    /// By variant: days and the lift at their end.
    lines: Vec<(&'a str, Vec<(f64, &'a DayPoint)>)>,
}

/// Draws a report as SVG text: of each variant the lift, as a bar its interval for one look, as a band that for any look.
///
/// # Errors
/// Where there is no lift yet, or the picture cannot be drawn.
pub(crate) fn effects(report: &Report) -> Result<String> {
    let panels = of(report);
    if panels.is_empty() {
        bail!(
            "there is no lift of a primary metric or guardrail of `{}` to draw yet: look at the table",
            report.experiment
        );
    }
    let size = (SIZE.0, SIZE.1 * panels.len() as u32);
    Ok(self::panels(size, panels.len(), |area, at| draw(area, &panels[at]))?)
}

fn of(report: &Report) -> Vec<Panel<'_>> {
    let mut panels: Vec<Panel<'_>> = Vec::new();
    for c in report.comparisons.iter().filter(|c| c.group == Group::All && c.role != Role::Other) {
        let points = report.series.iter().filter_map(|day| {
            let point = day.points.iter().find(|p| p.metric == c.metric && p.variant == c.variant)?;
            Some((day.days, point))
        });
        let line = (c.variant.as_str(), points.collect::<Vec<_>>());
        if line.1.is_empty() {
            continue;
        }
        match panels.iter_mut().find(|p| p.metric == c.metric) {
            Some(panel) => panel.lines.push(line),
            None => panels.push(Panel {
                metric: &c.metric,
                role: c.role,
                control: &report.control,
                lines: vec![line],
            }),
        }
    }
    panels
}

fn draw<'a>(area: &Area<'a>, panel: &Panel<'_>) -> Result<(), DrawError<'a>> {
    let (low, high) = limits(panel);
    let days = panel.lines.iter().flat_map(|(_, points)| points).map(|(day, _)| *day).fold(1.0, f64::max);
    let right = days * 1.05;
    let role = if panel.role == Role::Primary { "primary" } else { "guardrail" };
    let caption =
        format!("{} ({role}), lift against {}; bar: one look, band: any look", panel.metric, panel.control);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..right, low..high + LEGEND * (high - low))?;
    let percent = |lift: &f64| format!("{:+.0} %", 100.0 * lift);
    chart
        .configure_mesh()
        .max_light_lines(1)
        .x_desc("days since the start")
        .y_label_formatter(&percent)
        .draw()?;
    chart.draw_series([PathElement::new([(0.0, 0.0), (right, 0.0)], BLACK.stroke_width(1))])?;
    for ((name, points), colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
        // Early intervals are far wider than what is to be seen.
        let inside = |lift: f64| lift.clamp(low, high);
        let known = || points.iter().filter_map(|(day, point)| Some((*day, point.sequential?)));
        let upper = known().map(|(day, [_, high])| (day, inside(high)));
        let lower = known().map(|(day, [low, _])| (day, inside(low)));
        let outline: Vec<_> = upper.chain(lower.collect::<Vec<_>>().into_iter().rev()).collect();
        chart.draw_series([Polygon::new(outline, colour.mix(0.2))])?;
        let whisker = |day, low, high, width| {
            PathElement::new([(day, inside(low)), (day, inside(high))], colour.stroke_width(width))
        };
        chart.draw_series(known().map(|(day, [low, high])| whisker(day, low, high, 1)))?;
        chart.draw_series(points.iter().map(|(day, p)| whisker(*day, p.low, p.high, 3)))?;
        chart
            .draw_series(LineSeries::new(
                points.iter().map(|(day, p)| (*day, inside(p.lift))),
                colour.stroke_width(2),
            ))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(2)));
        chart.draw_series(
            points.iter().map(|(day, p)| Circle::new((*day, inside(p.lift)), 3, colour.filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
}

/// The axis: no lift, all lifts, and the newest intervals with some air; wider ones of earlier days are cut.
fn limits(panel: &Panel<'_>) -> (f64, f64) {
    let points = panel.lines.iter().flat_map(|(_, points)| points).map(|(_, point)| point.lift);
    let last = panel.lines.iter().filter_map(|(_, points)| points.last()).map(|(_, point)| point);
    let ends = last.flat_map(|p| [p.low, p.high].into_iter().chain(p.sequential.into_iter().flatten()));
    let (low, high) = points.chain(ends).fold((0.0f64, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
    let air = 0.25 * (high - low).max(1e-6);
    (low - air, high + air)
}
