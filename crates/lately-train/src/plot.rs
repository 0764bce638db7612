//! Pictures: what all of them share ([`panels`]), and an evaluation as one: AUC by length of history, a panel a head, a
//! bar a scorer, with 95 % intervals.

use plotters::prelude::*;

use crate::eval::{EvalReport, Group, GroupReport};

/// Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
];
const GROUPS: [Group; 5] =
    [Group::All, Group::History0, Group::History1To9, Group::History10To99, Group::History100Up];

/// Why a plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the plot could not be drawn: {0}")]
pub struct PlotError(String);

/// A part of a picture.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
/// Why something could not be drawn on it.
pub type DrawError<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

/// SVG text of `width` x `height` px with `count` panels one above the other, each drawn by `draw`, which gets its
/// index; none where there are none.
pub fn panels(
    size: (u32, u32),
    count: usize,
    draw: impl for<'a> Fn(&Area<'a>, usize) -> Result<(), DrawError<'a>>,
) -> Result<String, PlotError> {
    let mut svg = String::new();
    {
        let error = |e: DrawError<'_>| PlotError(e.to_string());
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE).map_err(error)?;
        for (index, area) in root.split_evenly((count.max(1), 1)).iter().enumerate().take(count) {
            draw(area, index).map_err(error)?;
        }
        root.present().map_err(error)?;
    }
    Ok(svg)
}

/// Draws the report as SVG text.
pub fn auc_by_history(report: &EvalReport) -> Result<String, PlotError> {
    let all: Vec<(&str, Vec<&GroupReport>)> = report
        .heads
        .iter()
        .map(|h| (h.head.as_str(), GROUPS.iter().filter_map(|g| report.group(&h.head, *g)).collect()))
        .collect();
    panels((900, 260 * all.len().max(1) as u32), all.len(), |area, n| panel(area, all[n].0, &all[n].1))
}

fn panel<'a>(area: &Area<'a>, head: &str, groups: &[&GroupReport]) -> Result<(), DrawError<'a>> {
    let (low, high) = limits(groups);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("AUC, {head}"), ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(30)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..groups.len().max(1) as f64, low..high + LEGEND * (high - low))?;
    let label = |x: &f64| {
        let group = groups.get(x.floor() as usize).filter(|_| (x.fract() - 0.5).abs() < 0.01);
        group.map_or(String::new(), |g| format!("{} ({} rows)", g.group.words(), g.rows))
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * groups.len() + 1)
        .x_label_formatter(&label)
        .draw()?;
    let scorers = groups.first().map_or(0, |g| g.scorers.len());
    let width = 0.8 / scorers.max(1) as f64;
    for scorer in 0..scorers {
        let colour = COLOURS[scorer % COLOURS.len()];
        let bars = groups.iter().enumerate().filter_map(|(at, group)| {
            let auc = &group.scorers[scorer].metrics.auc;
            Some((at as f64 + 0.1 + scorer as f64 * width, auc.value?, auc))
        });
        let rectangles = bars
            .clone()
            .map(|(x, value, _)| Rectangle::new([(x, low), (x + width * 0.9, value)], colour.filled()));
        chart
            .draw_series(rectangles)?
            .label(groups[0].scorers[scorer].name.clone())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        let whiskers = bars.filter_map(|(x, _, auc)| {
            let middle = x + width * 0.45;
            Some(PathElement::new([(middle, auc.low?), (middle, auc.high?)], BLACK.stroke_width(2)))
        });
        chart.draw_series(whiskers)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
}

/// Room for the legend above the bars, as a share of the axis.
const LEGEND: f64 = 0.35;

/// The axis: all values and intervals with some air, always showing 0.5, the AUC of guessing.
fn limits(groups: &[&GroupReport]) -> (f64, f64) {
    let aucs = groups.iter().flat_map(|g| &g.scorers).map(|s| &s.metrics.auc);
    let numbers = aucs.flat_map(|e| [e.value, e.low, e.high]).flatten();
    let (low, high) = numbers.fold((0.5f64, 0.55f64), |(low, high), x| (low.min(x), high.max(x)));
    (low, (high + 0.25 * (high - low)).min(1.25))
}
