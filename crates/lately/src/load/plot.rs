//! Latency over throughput as a picture.

use lately_train::plot::{Area, COLOURS, DrawError, PlotError, panels};
use plotters::prelude::*;

use super::report::{Latency, Phase};

const SIZE: (u32, u32) = (800, 420);
/// What is drawn, by name.
type Line = (&'static str, fn(&Latency) -> f64);
const LINES: [Line; 4] = [("p50", |l| l.p50), ("p90", |l| l.p90), ("p99", |l| l.p99), ("p99.9", |l| l.p999)];

/// Draws the phases of a curve, by rising rate, as SVG text: latency against goodput, with the deadline.
pub(crate) fn curve(phases: &[&Phase], title: &str, deadline_ms: f64) -> Result<String, PlotError> {
    panels(SIZE, 1, |area, _| draw(area, phases, title, deadline_ms))
}

fn draw<'a>(area: &Area<'a>, phases: &[&Phase], title: &str, deadline_ms: f64) -> Result<(), DrawError<'a>> {
    let most = |f: fn(&Phase) -> f64| phases.iter().map(|p| f(p)).fold(1e-3, f64::max);
    let (right, top) = (most(|p| p.rankings.goodput), most(|p| p.rankings.latency.p999));
    let lowest = phases.iter().map(|p| p.rankings.latency.p50).filter(|ms| *ms > 0.0).fold(top, f64::min);
    let top = top.max(deadline_ms);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..right * 1.05, (lowest * 0.7..top * 1.5).log_scale())?;
    chart.configure_mesh().x_desc("rankings/s answered in time").y_desc("ms").draw()?;
    let limit = PathElement::new([(0.0, deadline_ms), (right * 1.05, deadline_ms)], BLACK.stroke_width(1));
    chart.draw_series([limit])?.label("deadline").legend(key(BLACK));
    for ((name, of), colour) in LINES.iter().zip(COLOURS) {
        let points = || phases.iter().map(|p| (p.rankings.goodput, of(&p.rankings.latency)));
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
            .label(*name)
            .legend(key(colour));
        chart.draw_series(points().map(|at| Circle::new(at, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
}

fn key(colour: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(2))
}
