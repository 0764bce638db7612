//! The suite as a picture: saves by day, and what diversity costs and brings.

use lately_train::plot::{Area, COLOURS, DrawError, PlotError, panels};
use plotters::prelude::*;

use super::lift::Lift;
use super::report::{Headline, Point};

const SIZE: (u32, u32) = (900, 760);

/// A curve with its intervals: (x, lift) and a name.
struct Curve {
    name: String,
    points: Vec<(f64, Lift)>,
}

/// What a means of diversity does to saves.
struct Mark {
    name: String,
    /// How many more topics a page, %.
    topics: f64,
    first_day: Lift,
    second_week: Lift,
}

/// SVG text with two panels: lifts of saves by day; lifts of saves against that of topics a page, a mark a means of
/// diversity.
pub fn draw(headline: &Headline) -> Result<String, PlotError> {
    let by_day: Vec<Curve> = headline
        .by_day
        .iter()
        .map(|series| {
            let days = series.days.iter().enumerate();
            let points = days.filter_map(|(day, lift)| Some((day as f64 + 1.0, (*lift)?))).collect();
            Curve { name: series.name.clone(), points }
        })
        .collect();
    let mark = |p: &Point| {
        let (first_day, second_week) = (p.saves_first_day?, p.saves_second_week?);
        Some(Mark { name: p.name.clone(), topics: 100.0 * p.topics?.value, first_day, second_week })
    };
    let frontier: Vec<Mark> = headline.frontier.iter().filter_map(mark).collect();
    panels(SIZE, 2, |area, n| match n {
        0 => panel(area, "synthetic world: saves a person, by day, %", "day", &by_day),
        _ => scatter(area, &frontier),
    })
}

/// Two marks a means of diversity: a dot for the first day, a cross for the second week.
fn scatter<'a>(area: &Area<'a>, marks: &[Mark]) -> Result<(), DrawError<'a>> {
    let lifts = || marks.iter().flat_map(|m| [m.first_day, m.second_week]);
    let (left, right) = marks.iter().fold((0.0f64, 1.0f64), |(l, r), m| (l.min(m.topics), r.max(m.topics)));
    let (low, high) = lifts().fold((-0.01f64, 0.01f64), |(l, h), lift| (l.min(lift.low), h.max(lift.high)));
    let (low, high) = (100.0 * (low - 0.05 * (high - low)), 100.0 * (high + 0.45 * (high - low)));
    // The second week's mark stands a little to the right of the first day's.
    let (edge, aside) = (right + 0.05 * (right - left), 0.006 * (right - left));
    let mut chart = ChartBuilder::on(area)
        .caption(
            "what diversity does to saves a person, %: dots the first day, crosses the second week",
            ("sans-serif", 16),
        )
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(left..edge, low..high)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("more topics a page, %")
        .x_label_formatter(&whole)
        .draw()?;
    chart.draw_series([PathElement::new([(left, 0.0), (edge, 0.0)], BLACK.stroke_width(1))])?;
    for (at, mark) in marks.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let whisker = |x: f64, lift: Lift| {
            PathElement::new([(x, 100.0 * lift.low), (x, 100.0 * lift.high)], colour.mix(0.5).stroke_width(2))
        };
        let (x, later) = (mark.topics, mark.topics + aside);
        chart.draw_series([whisker(x, mark.first_day), whisker(later, mark.second_week)])?;
        chart.draw_series([Cross::new(
            (later, 100.0 * mark.second_week.value),
            4,
            colour.stroke_width(2),
        )])?;
        chart
            .draw_series([Circle::new((x, 100.0 * mark.first_day.value), 4, colour.filled())])?
            .label(mark.name.clone())
            .legend(move |(x, y)| Circle::new((x + 7, y), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.7))
        .border_style(BLACK.mix(0.3))
        .draw()
}

/// A label of an axis.
fn whole(x: &f64) -> String {
    format!("{x:.0}")
}

fn panel<'a>(area: &Area<'a>, title: &str, x: &str, curves: &[Curve]) -> Result<(), DrawError<'a>> {
    let all = || curves.iter().flat_map(|c| &c.points);
    let (left, right) = all().fold((0.0f64, 1.0f64), |(l, r), (x, _)| (l.min(*x), r.max(*x)));
    let (low, high) =
        all().fold((-0.01f64, 0.01f64), |(l, h), (_, lift)| (l.min(lift.low), h.max(lift.high)));
    let (low, high) = (100.0 * (low - 0.05 * (high - low)), 100.0 * (high + 0.25 * (high - low)));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(left..right * 1.03, low..high)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc(x).x_label_formatter(&whole).draw()?;
    chart.draw_series([PathElement::new([(left, 0.0), (right * 1.03, 0.0)], BLACK.stroke_width(1))])?;
    for (at, curve) in curves.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let whisker = |(x, lift): &(f64, Lift)| {
            PathElement::new(
                [(*x, 100.0 * lift.low), (*x, 100.0 * lift.high)],
                colour.mix(0.5).stroke_width(2),
            )
        };
        chart.draw_series(curve.points.iter().map(whisker))?;
        let line = curve.points.iter().map(|(x, lift)| (*x, 100.0 * lift.value));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(3))?
            .label(curve.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.7))
        .border_style(BLACK.mix(0.3))
        .draw()
}
