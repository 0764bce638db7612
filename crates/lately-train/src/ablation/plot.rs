//! A comparison as a picture: lift of HIT@3, a panel a head, configurations from left to right, with 95 % intervals.

use plotters::prelude::*;

use super::claim::Claim;
use super::compare::{CellReport, Line, heads, of_head};
use crate::plot::{Area, COLOURS, DrawError, PlotError, panels};

/// Height of a panel and width of a configuration, px.
const HEIGHT: u32 = 280;
const COLUMN: u32 = 150;

/// Draws the lifts as SVG text. A circle is a lift, its line the interval over users, a cross the paper's figure.
pub fn lifts(cells: &[CellReport]) -> Result<String, PlotError> {
    let all: Vec<(&str, Vec<&CellReport>)> =
        heads(cells).into_iter().map(|head| (head, of_head(cells, head))).collect();
    let columns = cells.first().map_or(1, |c| c.lines.len()) as u32;
    let size = ((80 + COLUMN * columns).max(700), HEIGHT * all.len().max(1) as u32);
    panels(size, all.len(), |area, n| panel(area, all[n].0, &all[n].1))
}

fn panel<'a>(area: &Area<'a>, head: &str, groups: &[&CellReport]) -> Result<(), DrawError<'a>> {
    let names: Vec<&str> =
        groups.first().map_or(Vec::new(), |c| c.lines.iter().map(|l| l.name.as_str()).collect());
    let base = groups.first().and_then(|c| c.lines.iter().find(|l| l.lift.is_none()));
    let (low, high) = limits(groups);
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("lift of HIT@3 over {}, %, {head}", base.map_or("the baseline", |l| &l.name)),
            ("sans-serif", 16),
        )
        .margin(8)
        .x_label_area_size(30)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..names.len().max(1) as f64, low..high)?;
    let label = |x: &f64| {
        let name = names.get(x.floor() as usize).filter(|_| (x.fract() - 0.5).abs() < 0.01);
        name.map_or(String::new(), |name| (*name).to_owned())
    };
    chart.configure_mesh().disable_x_mesh().x_labels(2 * names.len() + 1).x_label_formatter(&label).draw()?;
    let zero = PathElement::new([(0.0, 0.0), (names.len() as f64, 0.0)], BLACK.stroke_width(1));
    chart.draw_series([zero])?;
    for (at, cell) in groups.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let place = |column: usize| column as f64 + (at + 1) as f64 / (groups.len() + 1) as f64;
        let points = || cell.lines.iter().enumerate().map(|(column, line)| (place(column), line));
        let intervals = points().filter_map(|(x, line)| {
            let lift = &line.lift.as_ref()?.mean;
            Some(PathElement::new([(x, lift.low?), (x, lift.high?)], colour.stroke_width(2)))
        });
        chart.draw_series(intervals)?;
        let circles = points().filter_map(|(x, line)| {
            Some(Circle::new((x, line.lift.as_ref()?.mean.value?), 4, colour.filled()))
        });
        chart
            .draw_series(circles)?
            .label(cell.group.words())
            .legend(move |(x, y)| Circle::new((x + 6, y), 4, colour.filled()));
        let crosses = points().filter_map(|(x, line)| Some(Cross::new((x + 0.08, claimed(line)?), 4, BLACK)));
        let series = chart.draw_series(crosses)?;
        if at == 0 && cell.lines.iter().any(|line| line.claim.is_some()) {
            series.label("paper").legend(|(x, y)| Cross::new((x + 6, y), 4, BLACK));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
}

fn claimed(line: &Line) -> Option<f64> {
    match line.claim? {
        Claim::Lift(percent) => Some(percent),
        Claim::None(_) => Some(0.0),
    }
}

/// The axis: all lifts, intervals and claims, always with zero, and some air.
fn limits(groups: &[&CellReport]) -> (f64, f64) {
    let lines = || groups.iter().flat_map(|c| &c.lines);
    let lifts = lines().filter_map(|l| l.lift.as_ref()).flat_map(|l| [l.mean.value, l.mean.low, l.mean.high]);
    let numbers = lifts.flatten().chain(lines().filter_map(claimed));
    let (low, high) = numbers.fold((-1.0f64, 1.0f64), |(low, high), x| (low.min(x), high.max(x)));
    let air = 0.08 * (high - low);
    (low - air, high + air)
}
