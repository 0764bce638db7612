//! From the log of a running server to reports of its experiments.
//!
//! Of each experiment that somebody asked about the sums of its people are kept, with the offset up to which the log is in
//! them, so that the next report reads only what came since. The log has no index by time: the first report reads all of
//! it, which also tells who was there before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lately_experiment::{Design, DesignError, Experiment, Readout, Report, Settings, Variant};
use lately_features::Schema;
use lately_rank::experiment::{Book, Entry, ExperimentError, State};
use lately_store::{Store, StoreError};

/// Experiments whose sums are kept at a time, those that were asked about last: 136 bytes a person each, with four actions.
const KEPT: usize = 8;
/// Records that are read from the log at once: a few MB.
const PAGE: usize = 4_096;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadoutError {
    /// There is no such experiment, or it was never started.
    #[error(transparent)]
    Refused(#[from] ExperimentError),
    /// The schema's actions cannot be told from what a report counts beside them.
    #[error(transparent)]
    Design(#[from] DesignError),
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server stops.
    #[error("the server is stopping: ask again when it is up")]
    Closed,
}

/// What is compared and how, of an experiment that was started once.
pub(crate) fn design(entry: &Entry, schema: &Schema, settings: &Settings) -> Result<Design, ReadoutError> {
    let definition = &entry.definition;
    let Some(start_ms) = entry.started_ms else {
        let (name, state) = (definition.name.clone(), State::Draft.name());
        let hint = "nobody is in it before it is started; start it, then ask again";
        return Err(ExperimentError::State { name, state, hint }.into());
    };
    let variant =
        |v: &lately_rank::experiment::VariantDefinition| Variant { name: v.name.clone(), share: v.share };
    let experiment = Experiment {
        name: definition.name.clone(),
        start_ms,
        end_ms: entry.stopped_ms,
        variants: definition.variants.iter().map(variant).collect(),
        surfaces: definition.surfaces.clone(),
    };
    Ok(Design::new(experiment, schema, settings.clone())?)
}

/// Reports of a server's experiments.
pub(crate) struct Readouts {
    store: Arc<Store>,
    schema: Arc<Schema>,
    settings: Settings,
    /// By experiment, the one asked about last at the end. This lock is never held while the log is read.
    kept: Mutex<Vec<(String, Slot)>>,
    closed: AtomicBool,
}

/// One experiment's place; whoever asks about it while the log is read waits here.
type Slot = Arc<Mutex<Option<Reading>>>;

/// The log up to an offset.
struct Reading {
    /// Sums of another design are sums of something else.
    design: Design,
    next: u64,
    readout: Readout,
}

impl Readouts {
    pub(crate) fn new(store: &Arc<Store>, schema: &Arc<Schema>, settings: &Settings) -> Self {
        Self {
            store: Arc::clone(store),
            schema: Arc::clone(schema),
            settings: settings.clone(),
            kept: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// How an experiment stands, by all that is in the log when this is called.
    pub(crate) fn report(&self, book: &Book, name: &str) -> Result<Report, ReadoutError> {
        let design = design(book.get(name)?, &self.schema, &self.settings)?;
        let slot = self.slot(book, name);
        let mut place = slot.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out while it is advanced: what ends early, by an error or a panic, is begun anew and not read twice.
        let reading = place.take().filter(|reading| reading.design == design);
        let mut reading = match reading {
            Some(reading) => reading,
            None => Reading { readout: Readout::new(design.clone())?, design, next: 0 },
        };
        self.advance(&mut reading)?;
        let report = reading.readout.report();
        *place = Some(reading);
        Ok(report)
    }

    /// Ends what is in work, and all that is asked from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// The place of an experiment. Lets go of those that are not in the book any more, and of all but [`KEPT`].
    fn slot(&self, book: &Book, name: &str) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(of, _)| of == name);
        let (_, slot) = at.map_or_else(|| (name.to_owned(), Slot::default()), |at| kept.remove(at));
        kept.retain(|(of, _)| book.get(of).is_ok());
        kept.push((name.to_owned(), Arc::clone(&slot)));
        let most = kept.len().saturating_sub(KEPT);
        kept.drain(..most);
        slot
    }

    /// Reads on, up to the end that the log has now: under load it would never come to an end that moves.
    fn advance(&self, reading: &mut Reading) -> Result<(), ReadoutError> {
        let end = self.store.next_offset();
        while reading.next < end {
            if self.closed.load(Ordering::Relaxed) {
                return Err(ReadoutError::Closed);
            }
            let records = self.store.read(reading.next, PAGE.min((end - reading.next) as usize))?;
            // Where the last ones were forgotten there is nothing more.
            let next = records.last().map_or(end, |(offset, _)| offset + 1);
            for (_, event) in records {
                reading.readout.observe(&event);
            }
            reading.next = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Result, ensure};
    use lately_features::{Event, Impression, ImpressionItem, ItemId, RequestId, UserId};
    use lately_rank::experiment::Change;
    use lately_store::StoreLimits;
    use tempfile::TempDir;

    use super::*;
    use crate::world::SCHEMA;

    const START_MS: i64 = 1_760_000_000_000;

    struct House {
        _dir: TempDir,
        store: Arc<Store>,
        book: Book,
        readouts: Readouts,
    }

    impl House {
        /// With experiments of these names, each in a layer of its own.
        fn new(names: &[&str]) -> Result<Self> {
            let dir = tempfile::tempdir()?;
            let schema = Arc::new(Schema::from_toml(SCHEMA)?);
            let store = Arc::new(Store::open(dir.path(), Arc::clone(&schema), StoreLimits::default())?);
            let mut book = Book::default();
            for name in names {
                let text = serde_json::json!({
                    "name": name, "layer": name, "variants": [{"name": "off"}, {"name": "on"}]});
                book.apply(&Change::Declare(serde_json::from_value(text)?), START_MS)?;
            }
            let readouts = Readouts::new(&store, &schema, &Settings::default());
            Ok(Self { _dir: dir, store, book, readouts })
        }

        fn start(&mut self, name: &str) -> Result<()> {
            Ok(self.book.apply(&Change::Start { name: name.to_owned(), ramp: 1.0 }, START_MS)?)
        }

        /// Somebody is shown a list in a variant.
        fn show(&self, user: &str, variant: &str) -> Result<()> {
            let request = RequestId::new(format!("{user}-{}", self.store.next_offset()))?;
            let items = vec![ImpressionItem::unscored(ItemId::new("i")?, 0)];
            let time_ms = START_MS + 1_000 * (1 + self.store.next_offset() as i64);
            let shown = Impression::outside(request, UserId::new(user)?, None, time_ms, items);
            let shown = Impression { variant: Some(variant.to_owned()), ..shown };
            self.store.append(vec![Event::Impression(shown)])?;
            Ok(())
        }

        fn users(&self, name: &str) -> Result<Vec<u64>> {
            let report = self.readouts.report(&self.book, name)?;
            Ok(report.users.iter().map(|u| u.users).collect())
        }

        fn kept(&self) -> Vec<String> {
            let kept = self.readouts.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().map(|(name, _)| name.clone()).collect()
        }
    }

    #[test]
    fn a_later_report_reads_on_and_is_that_of_the_whole_log() -> Result<()> {
        let mut house = House::new(&["a"])?;
        house.start("a")?;
        ensure!(house.users("a")? == [0, 0], "an empty log has a report too");
        for user in ["u1", "u2", "u3"] {
            house.show(user, "a=off")?;
        }
        ensure!(house.users("a")? == [3, 0]);
        house.show("u1", "a=off")?;
        house.show("u4", "a=on;other=on")?;
        let report = house.readouts.report(&house.book, "a")?;
        let anew = Readouts::new(&house.store, &house.readouts.schema, &house.readouts.settings);
        ensure!(report == anew.report(&house.book, "a")?, "read on or read anew");
        ensure!(report.users[0].users == 3 && report.users[1].users == 1, "{report}");
        // What is skipped on purpose is missed: nothing is read twice.
        house.show("u5", "a=on")?;
        let slot = house.readouts.slot(&house.book, "a");
        slot.lock().unwrap().as_mut().context("nothing is kept")?.next = house.store.next_offset();
        ensure!(house.users("a")? == [3, 1]);
        // Another end is another design, which reads anew, up to that end.
        house.book.apply(&Change::Stop { name: "a".into() }, START_MS + 1_000_000)?;
        house.show("u6", "a=on")?;
        ensure!(house.users("a")? == [3, 3]);
        Ok(())
    }

    #[test]
    fn what_cannot_be_read_says_why_and_what_is_gone_is_not_kept() -> Result<()> {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let mut house = House::new(&names)?;
        let draft = house.users("a").unwrap_err().to_string();
        ensure!(draft.contains("`a` is draft: nobody is in it before it is started"), "{draft}");
        ensure!(house.users("z").unwrap_err().to_string().contains("declare it first"));
        for name in names {
            house.start(name)?;
            house.users(name)?;
        }
        ensure!(house.kept() == names[1..], "{:?}", house.kept());
        house.users("b")?;
        for name in ["c", "d"] {
            house.book.apply(&Change::Stop { name: name.into() }, START_MS + 1)?;
            house.book.apply(&Change::Remove { name: name.into() }, START_MS + 1)?;
        }
        house.users("e")?;
        ensure!(house.kept() == ["f", "g", "h", "i", "b", "e"], "{:?}", house.kept());
        house.show("u1", "e=on")?;
        house.readouts.close();
        ensure!(house.users("e").unwrap_err().to_string().contains("stopping"));
        Ok(())
    }
}
