//! What a suite found, as a table beside what the article reports.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::lift::Lift;
use super::recipe::Recipe;
use super::suite::Part;

/// A relative effect on some people.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// What is counted, such as `saves a person`.
    pub measure: String,
    /// `all`, `core`, `non-core`, `new` or `resurrected`.
    pub group: String,
    /// `None` where there is too little to tell.
    pub lift: Option<Lift>,
}

/// One thing over another.
#[derive(Debug, Clone, Serialize)]
pub struct Contrast {
    /// What over what.
    pub name: String,
    /// First and last day.
    pub days: [u32; 2],
    /// By measure and group.
    pub lines: Vec<Line>,
}

/// A means of diversity, launched to all, over none.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Which, and how strong.
    pub name: String,
    /// Different topics a page, all days.
    pub topics: Option<Lift>,
    /// Saves a person on the first day, in larger towns.
    pub saves_first_day: Option<Lift>,
    /// Saves a person in the second week.
    pub saves_second_week: Option<Lift>,
    /// Hides a person in the second week.
    pub hides_second_week: Option<Lift>,
    /// Visits a person in the second week.
    pub visits_second_week: Option<Lift>,
}

/// What the towns without diversity are like, whose policy is TransAct for all.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plain {
    /// Different topics a page.
    pub topics_a_page: f64,
    /// Saves a page.
    pub saves_a_page: f64,
    /// Pages a person and day.
    pub pages_a_day: f64,
}

/// Saves a person by day.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// What over what.
    pub name: String,
    /// One a day.
    pub days: Vec<Option<Lift>>,
}

/// What the suite `headline` found.
#[derive(Debug, Clone, Serialize)]
pub struct Headline {
    /// Sizes and seeds.
    pub recipe: Recipe,
    /// What was simulated.
    pub parts: Vec<Part>,
    /// Comparisons of models.
    pub contrasts: Vec<Contrast>,
    /// Towns without diversity.
    pub plain: Plain,
    /// What diversity costs and brings.
    pub frontier: Vec<Point>,
    /// For the plot.
    pub by_day: Vec<Series>,
}

/// What the article and its paper report of their A/B experiment, by contrast, measure and group.
const ARTICLE: [(&str, &str, &str, &str); 5] = [
    ("TransAct over no sequence", "saves a person", "all", "+6 %"),
    ("TransAct over no sequence", "saves a person", "non-core", "+11 %"),
    ("TransAct over no sequence", "hides a person", "all", "-10 %"),
    ("the same, second week", "saves a person", "all", "decays within two weeks"),
    ("time-window mask over none", "topics a page", "all", "more diverse"),
];
/// What is shown of each contrast; the JSON has all.
const SHOWN: [(&str, &str); 7] = [
    ("saves a person", "all"),
    ("saves a person", "core"),
    ("saves a person", "non-core"),
    ("clicks a person", "all"),
    ("hides a person", "all"),
    ("visits a person", "all"),
    ("topics a page", "all"),
];

impl Contrast {
    /// The effect on a measure among a group.
    pub fn lift(&self, measure: &str, group: &str) -> Option<Lift> {
        self.lines.iter().find(|l| l.measure == measure && l.group == group)?.lift
    }
}

impl Headline {
    /// The contrast of a name.
    pub fn contrast(&self, name: &str) -> Option<&Contrast> {
        self.contrasts.iter().find(|c| c.name == name)
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut table = plain(&["synthetic world", "days", "", "", "Lately", "", "the article"]);
        for contrast in &self.contrasts {
            let days = format!("{}-{}", contrast.days[0], contrast.days[1]);
            let mut head = [contrast.name.clone(), days];
            for (measure, group) in SHOWN {
                let article = ARTICLE.iter().find(|a| (a.0, a.1, a.2) == (&contrast.name, measure, group));
                let [value, interval] = cells(contrast.lift(measure, group));
                let [name, days] = std::mem::take(&mut head);
                let article = article.map_or("", |a| a.3).to_owned();
                table.add_row([name, days, measure.to_owned(), group.to_owned(), value, interval, article]);
            }
        }
        let tables = [
            (!self.contrasts.is_empty(), table.trim_fmt()),
            (!self.frontier.is_empty(), self.frontier_table()),
        ];
        let tables: Vec<String> = tables.into_iter().filter_map(|(is, table)| is.then_some(table)).collect();
        format!("{}\n\n{}", tables.join("\n\n"), self.words())
    }

    fn frontier_table(&self) -> String {
        let mut table = plain(&[
            "diversity, launched to all",
            "topics a page",
            "saves, day 1",
            "saves, second week",
            "hides, second week",
            "visits, second week",
        ]);
        for point in &self.frontier {
            let all = [
                point.topics,
                point.saves_first_day,
                point.saves_second_week,
                point.hides_second_week,
                point.visits_second_week,
            ];
            let cell = |lift| cells(lift).join(" ").trim().to_owned();
            table.add_row(std::iter::once(point.name.clone()).chain(all.map(cell)));
        }
        let Plain { topics_a_page, saves_a_page, pages_a_day } = self.plain;
        format!(
            "{}\nWithout diversity a page has {topics_a_page:.2} topics among its 12 items and {saves_a_page:.2} saves, and a \
             person sees {pages_a_day:.1} pages a day.",
            table.trim_fmt()
        )
    }

    fn words(&self) -> String {
        let Recipe { seeds, people, twins, first_day, days, past_days, candidates, .. } = &self.recipe;
        format!(
            "Synthetic: people of an invented world, not the article's. {} seeds; {people} people in two variants, and towns \
             of {twins} with one policy for all (diversity on day 1: {first_day}); {past_days} days of past, {days} simulated; {candidates} candidates a page. \
             Intervals are 95 %; * leaves out 0.",
            seeds.len()
        )
    }
}

fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for column in table.column_iter_mut().skip(header.len().saturating_sub(3)) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

/// `+5.0 %*` and `[1.2, 8.8]`.
fn cells(lift: Option<Lift>) -> [String; 2] {
    let Some(lift) = lift else { return ["-".to_owned(), String::new()] };
    let Lift { value, low, high } = lift;
    let mark = if lift.is_proven() { "*" } else { "" };
    [format!("{:+.1} %{mark}", 100.0 * value), format!("[{:+.1}, {:+.1}]", 100.0 * low, 100.0 * high)]
}
