//! A server's part: it goes by the book, with a slot for each alias that a variant names, and makes changes to it.

use std::collections::HashMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use lately_rank::experiment::{Book, Change, State};
use lately_rank::{ModelSlot, Ranker};
use lately_server::{DeskError, ExperimentDesk, ExperimentReport};

use super::ledger::{Ledger, LedgerError};
use super::readout::{ReadoutError, Readouts};
use crate::follow::Follower;
use crate::slots::SlotSettings;

/// Makes a server go by the book.
pub(crate) struct Desk {
    ledger: Ledger,
    ranker: Arc<Ranker>,
    follower: Arc<Follower>,
    slots: Slots,
    readouts: Readouts,
    /// What the ranker goes by. Held from the look at the book until the ranker has it: an older book must not come last.
    current: Mutex<Option<Book>>,
}

/// The slots of aliases that are neither the champion's nor the challenger's.
struct Slots {
    settings: SlotSettings,
    by_alias: Mutex<HashMap<String, Arc<ModelSlot>>>,
}

impl Desk {
    pub(crate) fn new(
        ledger: Ledger,
        ranker: &Arc<Ranker>,
        follower: &Arc<Follower>,
        settings: &SlotSettings,
        readouts: Readouts,
    ) -> Self {
        let slots = Slots { settings: settings.clone(), by_alias: Mutex::default() };
        let (ranker, follower) = (Arc::clone(ranker), Arc::clone(follower));
        Self { ledger, ranker, follower, slots, readouts, current: Mutex::default() }
    }

    /// Goes by the book as it is kept now, and serves what its aliases name now.
    pub(crate) fn refresh(&self) -> Result<()> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let book = self.ledger.read()?;
        let slots = self.slots.of(&book, &self.follower);
        if current.as_ref() == Some(&book) {
            return Ok(());
        }
        self.ranker.set_experiments(&book, &slots).context("the experiments stay as they were")?;
        let running = book.experiments.iter().filter(|e| e.state == State::Running).count();
        metrics::gauge!("lately_experiments_running").set(running as f64);
        tracing::info!(revision = book.revision, running, "going by the book of experiments");
        *current = Some(book);
        Ok(())
    }

    fn change(&self, change: &Change) -> Result<Book, DeskError> {
        let book = self.ledger.change(change)?;
        tracing::info!(change = ?change, "an experiment was changed");
        // The change is made, whoever cannot go by it yet: the next look tries again.
        if let Err(error) = self.refresh() {
            tracing::error!(error = format!("{error:#}"), "this server does not go by the experiments yet");
        }
        Ok(book)
    }

    fn report(&self, name: &str) -> Result<ExperimentReport, DeskError> {
        let report = self.readouts.report(&self.ledger.read()?, name)?;
        let json = serde_json::to_value(&report).map_err(|error| DeskError::Failed(error.to_string()))?;
        Ok(ExperimentReport { json, text: report.to_string() })
    }

    /// Ends reports in work: the first one of a long log may take minutes, and a server waits for it when it stops.
    pub(crate) fn close(&self) {
        self.readouts.close();
    }

    /// What the admin door calls.
    pub(crate) fn door(self: &Arc<Self>) -> ExperimentDesk {
        let (read, change, report) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        ExperimentDesk {
            book: Arc::new(move |()| Ok(read.ledger.read()?)),
            change: Arc::new(move |what| change.change(&what)),
            report: Arc::new(move |name: String| report.report(&name)),
        }
    }
}

impl Slots {
    /// The slots of all aliases that the book's experiments name, with what the aliases name now. A model that is refused
    /// is told; its variant is served by what its slot last held, or by the champion.
    fn of(&self, book: &Book, follower: &Follower) -> HashMap<String, Arc<ModelSlot>> {
        let open = book.experiments.iter().filter(|e| e.state != State::Stopped);
        let named = open.flat_map(|e| &e.definition.variants).filter_map(|v| v.overrides.model.as_deref());
        let mut by_alias = self.by_alias.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = HashMap::new();
        for alias in named {
            let slot = match follower.slot_of(alias) {
                Some(followed) => followed,
                None => by_alias.entry(alias.to_owned()).or_insert_with(|| self.settings.make(alias)).clone(),
            };
            if let Err(error) = follower.swap(alias, &slot) {
                tracing::error!(alias, error = format!("{error:#}"), "the model of a variant is refused");
            }
            all.insert(alias.to_owned(), slot);
        }
        by_alias.retain(|alias, _| all.contains_key(alias));
        all
    }
}

impl From<LedgerError> for DeskError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Refused(error) => Self::Refused(error),
            LedgerError::NoModel { .. } | LedgerError::Busy => Self::Conflict(error.to_string()),
            LedgerError::Damaged(_) | LedgerError::Objects(_) | LedgerError::Registry(_) => {
                Self::Failed(error.to_string())
            }
        }
    }
}

impl From<ReadoutError> for DeskError {
    fn from(error: ReadoutError) -> Self {
        match error {
            ReadoutError::Refused(error) => Self::Refused(error),
            ReadoutError::Design(_) | ReadoutError::Closed => Self::Conflict(error.to_string()),
            ReadoutError::Store(_) => Self::Failed(error.to_string()),
        }
    }
}

/// Looks at the book every `interval` until the sender is dropped.
pub(crate) fn watch(desk: &Arc<Desk>, interval: Duration) -> Result<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel();
    let desk = Arc::clone(desk);
    let thread = std::thread::Builder::new().name("experiments".to_owned()).spawn(move || {
        while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            if let Err(error) = desk.refresh() {
                tracing::error!(error = format!("{error:#}"), "the book of experiments cannot be gone by");
            }
        }
    })?;
    Ok((stop, thread))
}
