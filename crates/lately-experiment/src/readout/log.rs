//! The log, read into sums of each person.

use lately_features::{Event, Impression, UserId};

use super::DAY_MS;
use super::design::{Design, DesignError, IMPRESSIONS, SECONDS};
use super::facts::Facts;
use super::people::{Exposed, People};
use super::report::Report;
use super::segment::segment;
use super::series::Day;
use super::tallies::Tallies;

/// The variant of an experiment that an impression was an exposure to. Its `variant` holds parts parted by `;`: a bare
/// one is a canary's arm, `EXPERIMENT=VARIANT` an exposure.
pub fn exposed<'a>(variant: &'a str, experiment: &str) -> Option<&'a str> {
    variant.split(';').find_map(|part| part.strip_prefix(experiment)?.strip_prefix('='))
}

/// Reads a log in its order; it should begin `window_days` before the experiment.
#[derive(Debug)]
pub struct Readout {
    design: Design,
    people: People,
    facts: Facts,
    /// Time of the first event and the newest so far: in a log that is read again it stands for now.
    first_ms: Option<i64>,
    now_ms: i64,
    /// The next end of a day of the experiment.
    day_end_ms: i64,
    last: Option<Report>,
    days: Vec<Day>,
}

impl Readout {
    /// Of an empty log.
    pub fn new(design: Design) -> Result<Self, DesignError> {
        design.check()?;
        let served = vec![[0; 2]; design.experiment.variants.len()];
        Ok(Self {
            people: People::new(design.columns.len()),
            facts: Facts { served, ..Facts::default() },
            first_ms: None,
            now_ms: i64::MIN,
            day_end_ms: design.experiment.start_ms.saturating_add(DAY_MS),
            last: None,
            days: Vec::new(),
            design,
        })
    }

    /// The next event of the log.
    pub fn observe(&mut self, event: &Event) {
        match event {
            Event::Action(action) => {
                let column = self.design.column(&action.action);
                self.did(&action.user, action.time_ms, column, None);
            }
            Event::Impression(impression) => {
                let column = self.design.column(IMPRESSIONS);
                self.did(&impression.user, impression.time_ms, column, Some(impression));
            }
            Event::Forget(forget) => self.people.forget(forget.user.hash64()),
            Event::Item(_) | Event::User(_) => {}
        }
    }

    fn did(&mut self, user: &UserId, time_ms: i64, column: Option<usize>, shown: Option<&Impression>) {
        self.pass(time_ms);
        let Some((at, known)) = self.people.place(user.hash64(), time_ms, &self.design.settings) else {
            self.facts.not_kept += 1;
            return;
        };
        if let Some(impression) = shown {
            self.expose(at, known, impression);
        }
        let person = self.people.person(at);
        let seconds = person.touch(&self.design, time_ms);
        let (period, exposed) = (person.period(&self.design, time_ms), person.exposed);
        let Some(period) = period else { return };
        let amount = shown.map_or(1.0, |impression| impression.items.len() as f32);
        if let Some(column) = column {
            self.people.add(at, period, column, amount);
        }
        if let Some(column) = self.design.column(SECONDS) {
            self.people.add(at, period, column, seconds);
        }
        if let (Some(impression), Some(exposed)) = (shown, exposed) {
            let served = &mut self.facts.served[usize::from(exposed.variant)];
            served[0] += 1;
            served[1] += u64::from(!impression.degraded.is_empty());
        }
    }

    /// A list may be a person's first exposure, or one to a second variant.
    fn expose(&mut self, at: u32, known: bool, shown: &Impression) {
        let experiment = &self.design.experiment;
        let running = experiment.start_ms..experiment.end_ms.unwrap_or(i64::MAX);
        let here = |name: &String| shown.surface.as_ref() == Some(name);
        if !running.contains(&shown.time_ms)
            || !(experiment.surfaces.is_empty() || experiment.surfaces.iter().any(here))
        {
            return;
        }
        let Some(name) = shown.variant.as_deref().and_then(|text| exposed(text, &experiment.name)) else {
            return;
        };
        let Some(variant) = experiment.variants.iter().position(|v| v.name == name) else {
            self.facts.unknown += 1;
            return;
        };
        let (log_ms, person) = (self.first_ms.unwrap_or(shown.time_ms), self.people.person(at));
        match &mut person.exposed {
            Some(exposed) => exposed.crossed |= usize::from(exposed.variant) != variant,
            None => {
                let seen_ms = known.then_some(person.seen_ms);
                let segment = segment(&self.design.settings, person.days, seen_ms, log_ms, shown.time_ms);
                let variant = variant as u8;
                person.exposed = Some(Exposed { time_ms: shown.time_ms, variant, segment, crossed: false });
            }
        }
    }

    /// Time goes on: a look at the end of each day, so that a report has a past and the sequential clock its anchor.
    fn pass(&mut self, time_ms: i64) {
        self.first_ms = Some(self.first_ms.map_or(time_ms, |first| first.min(time_ms)));
        self.now_ms = self.now_ms.max(time_ms);
        let end_ms = self.design.experiment.end_ms.unwrap_or(i64::MAX);
        while self.day_end_ms <= self.now_ms.min(end_ms) {
            let report = self.at(self.day_end_ms);
            self.days.push(Day::of(&report));
            self.last = Some(report);
            self.day_end_ms += DAY_MS;
        }
    }

    /// How it stands now; where nothing came yet, at the start.
    pub fn report(&self) -> Report {
        let mut report = self.at(self.now_ms.max(self.design.experiment.start_ms));
        report.series = self.days.clone();
        if report.days > self.days.last().map_or(0.0, |day| day.days) {
            report.series.push(Day::of(&report));
        }
        report
    }

    fn at(&self, now_ms: i64) -> Report {
        let mut tallies = Tallies::new(&self.design);
        self.people.exposed().for_each(|person| tallies.add(&person));
        let history_ms = self.first_ms.map_or(0, |first| self.design.experiment.start_ms - first);
        let facts = Facts {
            crossovers: self.people.crossovers(),
            history_days: Some(history_ms.max(0) as f64 / DAY_MS as f64),
            ..self.facts.clone()
        };
        Report::new(&self.design, &tallies, &facts, now_ms, self.last.as_ref())
    }
}
