//! All experiments, and the changes that there are. Pure: where the book is kept is no matter of it.

use serde::{Deserialize, Serialize};

use super::definition::{ExperimentDefinition, ExperimentError};

/// Most experiments in a book; stopped ones can be removed.
const MAX_EXPERIMENTS: usize = 1_000;
/// Two ends of a stretch that are so near are the same.
const NEAR: f64 = 1e-9;

/// All experiments, in the order in which they were declared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Book {
    /// Changes so far.
    pub revision: u64,
    /// Share of the people who are in no experiment at all, 0 to below 1.
    pub holdout: f64,
    /// The experiments.
    pub experiments: Vec<Entry>,
}

/// An experiment and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it compares.
    pub definition: ExperimentDefinition,
    /// Whether it runs.
    pub state: State,
    /// Its stretch of the layer, from 0 to 1.
    pub places: (f64, f64),
    /// Share of its people for whom it runs by now.
    pub ramp: f64,
    /// When it was started, ms since 1970 UTC.
    #[serde(default)]
    pub started_ms: Option<i64>,
    /// When it was stopped.
    #[serde(default)]
    pub stopped_ms: Option<i64>,
    /// Each ramp: when, and to which share.
    #[serde(default)]
    pub ramps: Vec<(i64, f64)>,
}

/// Whether an experiment runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Declared: it can be forced on a request, and nobody is in it.
    Draft,
    /// It runs.
    Running,
    /// It is over; its people are as everybody else.
    Stopped,
}

impl State {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// A change of the book.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new experiment, or another definition of a draft.
    Declare(ExperimentDefinition),
    /// Puts people in, at first for a share of them.
    Start {
        /// Which.
        name: String,
        /// The share, above 0 to 1.
        ramp: f64,
    },
    /// Another share; a smaller one takes people out, whom the readout still counts.
    Ramp {
        /// Which.
        name: String,
        /// The share, above 0 to 1.
        ramp: f64,
    },
    /// Ends it for all.
    Stop {
        /// Which.
        name: String,
    },
    /// Forgets a draft or a stopped one.
    Remove {
        /// Which.
        name: String,
    },
    /// Another share of the people in no experiment at all.
    Holdout {
        /// The share, 0 to below 1.
        share: f64,
    },
}

impl Book {
    /// The experiment of that name.
    ///
    /// # Errors
    /// [`ExperimentError::Unknown`].
    pub fn get(&self, name: &str) -> Result<&Entry, ExperimentError> {
        let found = self.experiments.iter().find(|e| e.definition.name == name);
        found.ok_or_else(|| ExperimentError::Unknown(name.to_owned()))
    }

    /// Makes a change; refuses it and stays as it is where it cannot be.
    ///
    /// # Errors
    /// [`ExperimentError`].
    pub fn apply(&mut self, change: &Change, now_ms: i64) -> Result<(), ExperimentError> {
        match change {
            Change::Declare(definition) => self.declare(definition)?,
            Change::Start { name, ramp } => self.start(name, *ramp, now_ms)?,
            Change::Ramp { name, ramp } => self.ramp(name, *ramp, now_ms)?,
            Change::Stop { name } => self.stop(name, now_ms)?,
            Change::Remove { name } => self.remove(name)?,
            Change::Holdout { share } => self.hold_out(*share)?,
        }
        self.revision += 1;
        Ok(())
    }

    fn declare(&mut self, definition: &ExperimentDefinition) -> Result<(), ExperimentError> {
        definition.check()?;
        let former = self.experiments.iter().position(|e| e.definition.name == definition.name);
        if former.is_some_and(|at| self.experiments[at].state != State::Draft) {
            return Err(ExperimentError::Taken(definition.name.clone()));
        }
        if former.is_none() && self.experiments.len() >= MAX_EXPERIMENTS {
            return Err(ExperimentError::State {
                name: definition.name.clone(),
                state: "one too many",
                hint: "remove stopped experiments first",
            });
        }
        let places = self.room(definition)?;
        let entry = Entry {
            definition: definition.clone(),
            state: State::Draft,
            places,
            ramp: 0.0,
            started_ms: None,
            stopped_ms: None,
            ramps: Vec::new(),
        };
        match former {
            Some(at) => self.experiments[at] = entry,
            None => self.experiments.push(entry),
        }
        Ok(())
    }

    /// The first free stretch of the layer that is long enough; with no share asked for the longest.
    fn room(&self, definition: &ExperimentDefinition) -> Result<(f64, f64), ExperimentError> {
        let others = self.experiments.iter().filter(|e| {
            e.definition.layer == definition.layer
                && e.definition.name != definition.name
                && e.state != State::Stopped
        });
        let mut taken: Vec<(f64, f64)> = others.map(|e| e.places).collect();
        taken.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ends = std::iter::once(0.0).chain(taken.iter().map(|t| t.1));
        let starts = taken.iter().map(|t| t.0).chain([1.0]);
        let gaps: Vec<(f64, f64)> = ends.zip(starts).filter(|(from, to)| to - from > NEAR).collect();
        let length = |gap: &(f64, f64)| gap.1 - gap.0;
        let longest = gaps.iter().copied().max_by(|a, b| length(a).total_cmp(&length(b)));
        let fits = definition.share.map_or(longest, |share| {
            let gap = gaps.iter().find(|gap| length(gap) >= share - NEAR)?;
            Some((gap.0, (gap.0 + share).min(gap.1)))
        });
        fits.ok_or_else(|| ExperimentError::Full {
            layer: definition.layer.clone(),
            asked: definition.share.unwrap_or(NEAR),
            free: longest.as_ref().map_or(0.0, length),
        })
    }

    fn start(&mut self, name: &str, ramp: f64, now_ms: i64) -> Result<(), ExperimentError> {
        let entry = self.get(name)?;
        entry.definition.share_of("the ramp", ramp, 1.0)?;
        entry.must_be(State::Draft, "only a draft can be started; declare a new one")?;
        self.may_overlap(&entry.definition)?;
        let entry = self.entry(name)?;
        (entry.state, entry.ramp, entry.started_ms) = (State::Running, ramp, Some(now_ms));
        entry.ramps.push((now_ms, ramp));
        Ok(())
    }

    /// Experiments of other layers that run must override other things.
    fn may_overlap(&self, definition: &ExperimentDefinition) -> Result<(), ExperimentError> {
        let running = self.experiments.iter().filter(|e| e.state == State::Running);
        for other in running.map(|e| &e.definition).filter(|o| o.layer != definition.layer) {
            if let Some(what) = definition.kinds().find(|kind| other.kinds().any(|o| o == *kind)) {
                return Err(ExperimentError::Overlap {
                    experiment: definition.name.clone(),
                    other: other.name.clone(),
                    layer: other.layer.clone(),
                    what,
                });
            }
        }
        Ok(())
    }

    fn ramp(&mut self, name: &str, ramp: f64, now_ms: i64) -> Result<(), ExperimentError> {
        let entry = self.entry(name)?;
        entry.definition.share_of("the ramp", ramp, 1.0)?;
        entry.must_be(State::Running, "start it first")?;
        entry.ramp = ramp;
        entry.ramps.push((now_ms, ramp));
        Ok(())
    }

    fn stop(&mut self, name: &str, now_ms: i64) -> Result<(), ExperimentError> {
        let entry = self.entry(name)?;
        entry.must_be(State::Running, "only one that runs can be stopped; remove a draft")?;
        (entry.state, entry.stopped_ms) = (State::Stopped, Some(now_ms));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), ExperimentError> {
        if self.get(name)?.state == State::Running {
            let (name, state) = (name.to_owned(), State::Running.name());
            return Err(ExperimentError::State { name, state, hint: "stop it first" });
        }
        self.experiments.retain(|e| e.definition.name != name);
        Ok(())
    }

    fn hold_out(&mut self, share: f64) -> Result<(), ExperimentError> {
        if !(0.0..1.0).contains(&share) {
            let (experiment, what) = ("holdout".to_owned(), "people in no experiment".to_owned());
            return Err(ExperimentError::Share { experiment, what, share, most: 1.0 });
        }
        self.holdout = share;
        Ok(())
    }

    fn entry(&mut self, name: &str) -> Result<&mut Entry, ExperimentError> {
        let found = self.experiments.iter_mut().find(|e| e.definition.name == name);
        found.ok_or_else(|| ExperimentError::Unknown(name.to_owned()))
    }
}

impl Entry {
    fn must_be(&self, state: State, hint: &'static str) -> Result<(), ExperimentError> {
        if self.state == state {
            return Ok(());
        }
        Err(ExperimentError::State { name: self.definition.name.clone(), state: self.state.name(), hint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, layer: &str, share: Option<f64>) -> ExperimentDefinition {
        let text = format!(
            r#"{{"name":"{name}","layer":"{layer}","variants":[{{"name":"control"}},{{"name":"on","overrides":{{"select":{{"topic_run":1}}}}}}]}}"#
        );
        ExperimentDefinition { share, ..serde_json::from_str(&text).unwrap() }
    }

    fn declare(book: &mut Book, name: &str, layer: &str, share: Option<f64>) -> Result<(f64, f64), String> {
        book.apply(&Change::Declare(definition(name, layer, share)), 0).map_err(|e| e.to_string())?;
        Ok(book.get(name).unwrap().places)
    }

    #[test]
    fn experiments_of_a_layer_have_places_of_their_own_which_a_stopped_one_gives_back() {
        let mut book = Book::default();
        assert_eq!(declare(&mut book, "a", "x", Some(0.5)), Ok((0.0, 0.5)));
        assert_eq!(declare(&mut book, "b", "x", Some(0.3)), Ok((0.5, 0.8)));
        assert_eq!(declare(&mut book, "b", "x", Some(0.4)), Ok((0.5, 0.9)), "a draft is declared anew");
        let full = declare(&mut book, "c", "x", Some(0.2)).unwrap_err();
        assert!(full.contains("the largest one is 0.1"), "{full}");
        assert_eq!(declare(&mut book, "d", "y", None), Ok((0.0, 1.0)), "another layer");
        for change in [
            Change::Start { name: "a".into(), ramp: 0.1 },
            Change::Ramp { name: "a".into(), ramp: 1.0 },
            Change::Stop { name: "a".into() },
        ] {
            book.apply(&change, 7).unwrap();
        }
        assert_eq!(declare(&mut book, "c", "x", Some(0.2)), Ok((0.0, 0.2)));
        let a = book.get("a").unwrap();
        assert_eq!((a.started_ms, a.stopped_ms, &a.ramps[..]), (Some(7), Some(7), &[(7, 0.1), (7, 1.0)][..]));
        let revision = book.revision;
        assert!(declare(&mut book, "a", "x", None).unwrap_err().contains("another name"));
        assert_eq!(book.revision, revision, "what is refused changes nothing");
    }

    #[test]
    fn changes_that_make_no_sense_are_refused_with_what_to_do() {
        let mut book = Book::default();
        declare(&mut book, "a", "x", Some(0.5)).unwrap();
        declare(&mut book, "b", "y", None).unwrap();
        let mut no = |change| book.apply(&change, 0).unwrap_err().to_string();
        assert!(no(Change::Stop { name: "a".into() }).contains("only one that runs"));
        assert!(no(Change::Ramp { name: "a".into(), ramp: 0.5 }).contains("start it first"));
        assert!(no(Change::Start { name: "a".into(), ramp: 0.0 }).contains("above 0"));
        assert!(no(Change::Start { name: "a".into(), ramp: f64::NAN }).contains("above 0"));
        assert!(no(Change::Start { name: "z".into(), ramp: 1.0 }).contains("declare it first"));
        assert!(no(Change::Holdout { share: 1.0 }).contains("at most 1"));
        assert!(no(Change::Declare(definition("Bad", "x", None))).contains("is not a name"));
        let mut twins = definition("c", "x", None);
        twins.variants[1].name = "control".into();
        assert!(no(Change::Declare(twins)).contains("different names"));
        book.apply(&Change::Start { name: "a".into(), ramp: 1.0 }, 0).unwrap();
        let mut no = |change| book.apply(&change, 0).unwrap_err().to_string();
        let overlap = no(Change::Start { name: "b".into(), ramp: 1.0 });
        assert!(overlap.contains("overrides `select`") && overlap.contains("one layer"), "{overlap}");
        assert!(no(Change::Start { name: "a".into(), ramp: 1.0 }).contains("declare a new one"));
        assert!(no(Change::Remove { name: "a".into() }).contains("stop it first"));
        book.apply(&Change::Remove { name: "b".into() }, 0).unwrap();
        assert!(book.get("b").is_err());
    }
}
