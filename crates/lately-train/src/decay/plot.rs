//! The lab's findings as a picture: what models lose with age, and what retraining gains by day, a panel a head.

use plotters::prelude::*;

use super::report::{DecayReport, HeadReport};
use super::schedule::Schedule;
use crate::eval::Estimate;
use crate::plot::{Area, COLOURS, DrawError, PlotError, panels};

/// Height of a panel and width of the picture, px.
const HEIGHT: u32 = 300;
const WIDTH: u32 = 1_000;

/// Room above the curves for each line of the legend, as a share of what they take.
const LEGEND: f64 = 0.14;

/// A curve with its band.
struct Curve {
    name: String,
    points: Vec<(f64, Estimate)>,
}

/// Draws, for each head, AUC lost against the age of the model (left) and gained by each schedule over the model that is
/// never retrained, by day (right), as SVG text. Bands are 95 % intervals over users.
pub fn curves(report: &DecayReport) -> Result<String, PlotError> {
    let heads = &report.heads;
    let size = (WIDTH, HEIGHT * heads.len().max(1) as u32);
    panels(size, heads.len(), |area, n| {
        let (left, right) = area.split_horizontally(WIDTH / 2);
        let title = format!("{}: AUC lost with age", heads[n].head);
        panel(&left, &title, "days since the last day of training", &by_age(&heads[n]))?;
        let title = format!("{}: AUC gained by retraining", heads[n].head);
        panel(&right, &title, &format!("days since {}", report.freeze), &by_day(&heads[n]))
    })
}

fn by_age(head: &HeadReport) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for line in &head.ages {
        let point = (line.age as f64, line.auc);
        match curves.iter_mut().find(|c| c.name == line.arm) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { name: line.arm.clone(), points: vec![point] }),
        }
    }
    curves
}

/// The schedules of the first arm, and daily retraining of the others.
fn by_day(head: &HeadReport) -> Vec<Curve> {
    let first = head.days.first().and_then(|line| line.cells.first()).map(|c| c.arm.clone());
    let mut curves: Vec<Curve> = Vec::new();
    for line in head.days.iter().filter(|line| line.day != "mean") {
        for cell in &line.cells {
            let own = Some(&cell.arm) == first.as_ref();
            let shown = if own { cell.schedule != Schedule::Never } else { cell.schedule == Schedule::Daily };
            if !shown {
                continue;
            }
            let name = format!("{}, {}", cell.arm, cell.schedule.words());
            let point = (line.since as f64, cell.gain.auc);
            match curves.iter_mut().find(|c| c.name == name) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve { name, points: vec![point] }),
            }
        }
    }
    curves
}

fn panel<'a>(area: &Area<'a>, title: &str, x: &str, curves: &[Curve]) -> Result<(), DrawError<'a>> {
    let ((left, right), (low, high)) = limits(curves);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(52)
        .build_cartesian_2d(left..right, low..high)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(x)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .draw()?;
    chart.draw_series([PathElement::new([(left, 0.0), (right, 0.0)], BLACK.stroke_width(1))])?;
    for (at, curve) in curves.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let bounds: Vec<(f64, f64, f64)> =
            curve.points.iter().filter_map(|(x, e)| Some((*x, e.low?, e.high?))).collect();
        let upper = bounds.iter().map(|(x, _, high)| (*x, *high));
        let lower = bounds.iter().rev().map(|(x, low, _)| (*x, *low));
        if bounds.len() > 1 {
            chart.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), colour.mix(0.12))])?;
        }
        let line = curve.points.iter().filter_map(|(x, e)| Some((*x, e.value?)));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(2))?
            .label(curve.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.7))
        .border_style(BLACK.mix(0.3))
        .draw()
}

/// Both axes: all points; values and intervals, always with zero, and room for the legend.
fn limits(curves: &[Curve]) -> ((f64, f64), (f64, f64)) {
    let points = || curves.iter().flat_map(|c| &c.points);
    let span = |numbers: &mut dyn Iterator<Item = f64>, start: (f64, f64)| {
        numbers.fold(start, |(low, high), x| (low.min(x), high.max(x)))
    };
    let (left, right) = span(&mut points().map(|(x, _)| *x), (1.0, 2.0));
    let numbers = points().flat_map(|(_, e)| [e.value, e.low, e.high]).flatten();
    let (low, high) = span(&mut numbers.into_iter(), (-0.001, 0.001));
    ((left, right), (low - 0.05 * (high - low), high + LEGEND * curves.len() as f64 * (high - low)))
}
