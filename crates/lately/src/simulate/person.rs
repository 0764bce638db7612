//! One person of a town, and what they did on each day.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use lately_experiment::{PersonSums, Segment};
use lately_features::{Event, UserId};
use rand::RngExt;

use super::profile::Profile;
use super::recipe::Recipe;
use crate::world::{Arrival, Life, World, stream};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Visits,
    Pages,
    Items,
    Clicks,
    Saves,
    Hides,
    /// Different topics of a page, summed over pages.
    Topics,
}

impl Column {
    /// All, in the order of a [`Tally`].
    pub(super) const EACH: [Self; 7] =
        [Self::Visits, Self::Pages, Self::Items, Self::Clicks, Self::Saves, Self::Hides, Self::Topics];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Visits => "visits",
            Self::Pages => "pages",
            Self::Items => "items",
            Self::Clicks => "clicks",
            Self::Saves => "saves",
            Self::Hides => "hides",
            Self::Topics => "topics",
        }
    }

    /// Of an action of the world; `seen` is none.
    pub(super) fn of_action(action: &str) -> Option<Self> {
        match action {
            "click" => Some(Self::Clicks),
            "save" => Some(Self::Saves),
            "hide" => Some(Self::Hides),
            _ => None,
        }
    }
}

/// Counts of a time, in the order of [`Column::EACH`].
pub(super) type Tally = [f64; Column::EACH.len()];

/// One person.
#[derive(Debug, Clone)]
pub(super) struct Inhabitant {
    pub(super) user: UserId,
    pub(super) segment: Segment,
    /// By nature.
    pub(super) visits_per_day: f64,
    /// Days into the simulation until they come, first or again.
    pub(super) arrives: f64,
    pub(super) life: Life,
    /// What the nightly batch job knows.
    pub(super) profile: Profile,
    /// The variant that they were exposed to.
    pub(super) variant: Option<String>,
    /// Of the past.
    pub(super) before: Tally,
    /// Of each day.
    pub(super) days: Vec<Tally>,
}

impl Inhabitant {
    /// Counts on a day, the first one being 0.
    pub(super) fn on(&self, day: u32, column: Column) -> f64 {
        self.days.get(day as usize).map_or(0.0, |tally| tally[column as usize])
    }

    /// Sums over days from `days.start` to before `days.end`.
    pub(super) fn during(&self, days: &std::ops::Range<u32>) -> Tally {
        let mut sum = Tally::default();
        for tally in self.days.iter().take(days.end as usize).skip(days.start as usize) {
            sum.iter_mut().zip(tally).for_each(|(sum, n)| *sum += n);
        }
        sum
    }

    /// For a report; `None` where they were not exposed to one of the `variants`.
    pub(super) fn sums(&self, variants: &[&str], days: &std::ops::Range<u32>) -> Option<PersonSums> {
        let variant = variants.iter().position(|v| Some(*v) == self.variant.as_deref())?;
        let (before, during) = (self.before.to_vec(), self.during(days).to_vec());
        Some(PersonSums { variant, segment: self.segment, before, during })
    }
}

/// All people of a world, with what they did in its past.
pub(super) fn inhabitants(world: &World, recipe: &Recipe, past: &[Event]) -> Result<Vec<Inhabitant>> {
    let seed = world.seed();
    let one = |(number, user): (usize, UserId)| {
        let (core, arrival) = world.kind(&user)?;
        let arrives = match arrival {
            Arrival::Always => 0.0,
            Arrival::New | Arrival::Resurrected => {
                // The last who come have some days left in which to show what they do.
                stream(seed, 0xa441_0001, number as u64).random_range(0.0..0.8 * f64::from(recipe.days))
            }
        };
        let segment = match arrival {
            _ if core => Segment::Core,
            Arrival::Always => Segment::Casual,
            Arrival::New => Segment::New,
            Arrival::Resurrected => Segment::Resurrected,
        };
        Ok(Inhabitant {
            segment,
            visits_per_day: world.visits_per_day(&user)?,
            arrives,
            life: world.life(),
            profile: Profile::default(),
            variant: None,
            before: Tally::default(),
            days: vec![Tally::default(); recipe.days as usize],
            user,
        })
    };
    let mut people: Vec<Inhabitant> =
        world.user_ids().into_iter().enumerate().map(one).collect::<Result<_>>()?;
    let numbers: HashMap<UserId, usize> =
        people.iter().enumerate().map(|(at, p)| (p.user.clone(), at)).collect();
    for event in past {
        let (user, counts) = match event {
            Event::Impression(page) => {
                let topics: HashSet<usize> =
                    page.items.iter().map(|i| world.topic(&i.item)).collect::<Result<_, _>>()?;
                let items = page.items.len() as f64;
                let counts =
                    [(Column::Pages, 1.0), (Column::Items, items), (Column::Topics, topics.len() as f64)];
                (&page.user, counts.to_vec())
            }
            Event::Action(a) => {
                (&a.user, Column::of_action(&a.action).map(|c| (c, 1.0)).into_iter().collect())
            }
            _ => continue,
        };
        let at = *numbers.get(user).context("the past holds somebody who is not of the world")?;
        counts.iter().for_each(|(column, n)| people[at].before[*column as usize] += n);
    }
    Ok(people)
}
