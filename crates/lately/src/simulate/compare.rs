//! What is compared between the towns of the suite `headline`.

use std::ops::Range;

use anyhow::Result;
use lately_experiment::{Group, Segment};

use super::lift::{Lift, Measure, paired, split};
use super::person::{Column, Inhabitant};
use super::recipe::Recipe;
use super::report::{Contrast, Headline, Line, Plain, Point, Series};
use super::suite::{CONTROL, FROZEN, GAMMAS, MASKED, TRANSACT};

/// Days of a week.
const WEEK: u32 = 7;

/// Whether somebody is in a group.
type Holds = fn(&Inhabitant) -> bool;
/// People of a town.
type Townsfolk = Vec<Inhabitant>;

/// The towns, each kind in the order of the seeds.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Between all four models.
    pub(super) split: Vec<Townsfolk>,
    pub(super) all_control: Vec<Townsfolk>,
    pub(super) all_transact: Vec<Townsfolk>,
    /// By strength of diversity.
    pub(super) diverse: Vec<Vec<Townsfolk>>,
}

fn measures() -> [Measure; 4] {
    [
        Measure::each(Column::Saves),
        Measure::each(Column::Clicks),
        Measure::each(Column::Hides),
        Measure::per(Column::Topics, Column::Pages),
    ]
}

impl Made {
    pub(super) fn compare(&self, recipe: &Recipe) -> Result<Headline> {
        let whole = 0..recipe.days;
        let second = WEEK.min(recipe.days / 2)..recipe.days;
        let retraining = [FROZEN, TRANSACT];
        Ok(Headline {
            recipe: recipe.clone(),
            contrasts: vec![
                self.contrast("TransAct over no sequence", [CONTROL, TRANSACT], &whole)?,
                self.contrast("retrained twice a week over never", retraining, &whole)?,
                self.contrast("the same, second week", retraining, &second)?,
                self.contrast("time-window mask over none", [TRANSACT, MASKED], &whole)?,
                self.launch("TransAct over no sequence, launched to all", &whole),
            ],
            plain: self.plain(recipe.days),
            frontier: GAMMAS
                .iter()
                .zip(&self.diverse)
                .map(|(g, towns)| self.point(*g, towns, &whole, &second))
                .collect(),
            by_day: vec![
                self.by_day("TransAct over no sequence", [CONTROL, TRANSACT], recipe.days)?,
                self.by_day("retrained over frozen", retraining, recipe.days)?,
            ],
        })
    }

    /// Between variants of the split towns.
    fn contrast(&self, name: &str, pair: [&str; 2], days: &Range<u32>) -> Result<Contrast> {
        let mut lines = Vec::new();
        for measure in measures() {
            for (group, lift) in split(&self.split, pair, measure, days.clone())? {
                lines.push(Line { measure: measure.name(), group: group.name().to_owned(), lift });
            }
        }
        Ok(Contrast { name: name.to_owned(), days: [days.start + 1, days.end], lines })
    }

    /// Between towns in which everybody has the control and those in which everybody has TransAct.
    fn launch(&self, name: &str, days: &Range<u32>) -> Contrast {
        let groups: [(Group, Holds); 3] = [
            (Group::All, |_| true),
            (Group::Core, |p| p.segment == Segment::Core),
            (Group::NonCore, |p| p.segment != Segment::Core),
        ];
        let towns = pairs(&self.all_control, &self.all_transact);
        let line = |measure: Measure, (group, holds): (Group, Holds)| Line {
            measure: measure.name(),
            group: group.name().to_owned(),
            lift: paired(&towns, measure, days.clone(), holds),
        };
        let lines = measures().into_iter().flat_map(|m| groups.map(|group| line(m, group))).collect();
        Contrast { name: name.to_owned(), days: [days.start + 1, days.end], lines }
    }

    fn point(&self, gamma: f32, towns: &[Townsfolk], whole: &Range<u32>, second: &Range<u32>) -> Point {
        let towns = pairs(&self.all_transact, towns);
        let lift = |measure, days: Range<u32>| paired(&towns, measure, days, |_| true);
        let each = |column| lift(Measure::each(column), second.clone());
        Point {
            gamma,
            topics: lift(Measure::per(Column::Topics, Column::Pages), whole.clone()),
            saves_first_day: lift(Measure::each(Column::Saves), 0..1),
            saves_second_week: each(Column::Saves),
            hides_second_week: each(Column::Hides),
            visits_second_week: each(Column::Visits),
        }
    }

    fn plain(&self, days: u32) -> Plain {
        let people = || self.all_transact.iter().flatten();
        let total = |column: Column| people().map(|p| p.during(&(0..days))[column as usize]).sum::<f64>();
        let pages = total(Column::Pages);
        Plain {
            topics_a_page: total(Column::Topics) / pages,
            saves_a_page: total(Column::Saves) / pages,
            pages_a_day: pages / (people().count() as f64 * f64::from(days)),
        }
    }

    fn by_day(&self, name: &str, pair: [&str; 2], days: u32) -> Result<Series> {
        let day = |day: u32| -> Result<Option<Lift>> {
            let groups = split(&self.split, pair, Measure::each(Column::Saves), day..day + 1)?;
            Ok(groups.into_iter().find(|(group, _)| *group == Group::All).and_then(|(_, lift)| lift))
        };
        Ok(Series { name: name.to_owned(), days: (0..days).map(day).collect::<Result<_>>()? })
    }
}

fn pairs<'a>(control: &'a [Townsfolk], other: &'a [Townsfolk]) -> Vec<[&'a [Inhabitant]; 2]> {
    control.iter().zip(other).map(|(a, b)| [a.as_slice(), b.as_slice()]).collect()
}
