//! What is compared between the towns of the suite `headline`.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Result;
use lately_experiment::{Group, Segment};

use super::lift::{Measure, paired, split};
use super::person::{Column, Inhabitant};
use super::recipe::Recipe;
use super::report::{Contrast, Headline, Line, Plain, Point, Series};
use super::suite::{CONTROL, Kind, Part, TRANSACT, diverse};

/// Days of a week.
const WEEK: u32 = 7;

/// Whether somebody is in a group.
type Holds = fn(&Inhabitant) -> bool;
/// People of a town.
type Townsfolk = Vec<Inhabitant>;

/// The towns, each kind in the order of the seeds.
#[derive(Debug, Default)]
pub(super) struct Made {
    towns: BTreeMap<Kind, Vec<Townsfolk>>,
}

fn measures() -> [Measure; 5] {
    [
        Measure::each(Column::Saves),
        Measure::each(Column::Clicks),
        Measure::each(Column::Hides),
        Measure::each(Column::Visits),
        Measure::per(Column::Topics, Column::Pages),
    ]
}

impl Made {
    pub(super) fn add(&mut self, kind: Kind, town: Townsfolk) {
        self.towns.entry(kind).or_default().push(town);
    }

    fn of(&self, kind: Kind) -> &[Townsfolk] {
        self.towns.get(&kind).map_or(&[], Vec::as_slice)
    }

    pub(super) fn compare(&self, recipe: &Recipe, parts: &[Part]) -> Result<Headline> {
        let whole = 0..recipe.days;
        let second = WEEK.min(recipe.days / 2)..recipe.days;
        let mut headline = Headline {
            recipe: recipe.clone(),
            parts: parts.to_vec(),
            contrasts: Vec::new(),
            plain: self.plain(recipe.days),
            frontier: Vec::new(),
            by_day: Vec::new(),
        };
        for part in parts {
            match part {
                Part::Sequence => {
                    headline.contrasts.push(self.experiment("TransAct over no sequence", &whole)?);
                    let launched = [Kind::Control, Kind::Plain];
                    let name = "TransAct over no sequence, launched to all";
                    headline.contrasts.push(self.twins(name, launched, &whole));
                    headline.by_day.push(self.by_day("TransAct over no sequence", launched, recipe.days));
                }
                Part::Retraining => {
                    let pair = [Kind::Frozen, Kind::Plain];
                    let name = "retrained twice a week over never";
                    headline.contrasts.push(self.twins(name, pair, &whole));
                    headline.contrasts.push(self.twins("the same, second week", pair, &second));
                    headline.by_day.push(self.by_day("retrained over frozen", pair, recipe.days));
                }
                Part::Mask => {
                    let pair = [Kind::Plain, Kind::Masked];
                    headline.contrasts.push(self.twins("time-window mask over none", pair, &whole));
                }
                Part::Diversity => {
                    let point = |(at, (name, _)): (usize, (&str, _))| self.point(name, at, &whole, &second);
                    headline.frontier = diverse().into_iter().enumerate().map(point).collect();
                }
            }
        }
        Ok(headline)
    }

    /// Between variants of the split towns.
    fn experiment(&self, name: &str, days: &Range<u32>) -> Result<Contrast> {
        let mut lines = Vec::new();
        for measure in measures() {
            let lifts = split(self.of(Kind::Split), [CONTROL, TRANSACT], measure, days.clone())?;
            for (group, lift) in lifts {
                lines.push(Line { measure: measure.name(), group: group.name().to_owned(), lift });
            }
        }
        Ok(Contrast { name: name.to_owned(), days: [days.start + 1, days.end], lines })
    }

    /// Between towns in which everybody has the one and those in which everybody has the other.
    fn twins(&self, name: &str, [control, other]: [Kind; 2], days: &Range<u32>) -> Contrast {
        let groups: [(Group, Holds); 3] = [
            (Group::All, |_| true),
            (Group::Core, |p| p.segment == Segment::Core),
            (Group::NonCore, |p| p.segment != Segment::Core),
        ];
        let towns = pairs(self.of(control), self.of(other));
        let line = |measure: Measure, (group, holds): (Group, Holds)| Line {
            measure: measure.name(),
            group: group.name().to_owned(),
            lift: paired(&towns, measure, days.clone(), holds),
        };
        let lines = measures().into_iter().flat_map(|m| groups.map(|group| line(m, group))).collect();
        Contrast { name: name.to_owned(), days: [days.start + 1, days.end], lines }
    }

    fn point(&self, name: &str, at: usize, whole: &Range<u32>, second: &Range<u32>) -> Point {
        let towns = pairs(self.of(Kind::Plain), self.of(Kind::Diverse(at)));
        let first = pairs(self.of(Kind::FirstPlain), self.of(Kind::FirstDiverse(at)));
        let saves = Measure::each(Column::Saves);
        let lift = |measure, days: Range<u32>| paired(&towns, measure, days, |_| true);
        let each = |column| lift(Measure::each(column), second.clone());
        Point {
            name: name.to_owned(),
            topics: lift(Measure::per(Column::Topics, Column::Pages), whole.clone()),
            saves_first_day: paired(&first, saves, 0..1, |_| true),
            saves_second_week: each(Column::Saves),
            hides_second_week: each(Column::Hides),
            visits_second_week: each(Column::Visits),
        }
    }

    fn plain(&self, days: u32) -> Plain {
        let people = || self.of(Kind::Plain).iter().flatten();
        let total = |column: Column| people().map(|p| p.during(&(0..days))[column as usize]).sum::<f64>();
        let pages = total(Column::Pages);
        Plain {
            topics_a_page: total(Column::Topics) / pages,
            saves_a_page: total(Column::Saves) / pages,
            pages_a_day: pages / (people().count() as f64 * f64::from(days)),
        }
    }

    fn by_day(&self, name: &str, [control, other]: [Kind; 2], days: u32) -> Series {
        let towns = pairs(self.of(control), self.of(other));
        let day = |day: u32| paired(&towns, Measure::each(Column::Saves), day..day + 1, |_| true);
        Series { name: name.to_owned(), days: (0..days).map(day).collect() }
    }
}

fn pairs<'a>(control: &'a [Townsfolk], other: &'a [Townsfolk]) -> Vec<[&'a [Inhabitant]; 2]> {
    control.iter().zip(other).map(|(a, b)| [a.as_slice(), b.as_slice()]).collect()
}
