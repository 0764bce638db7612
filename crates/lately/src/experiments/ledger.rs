//! The book of experiments as one object beside the models, which changes by compare-and-swap: of two changes at once, from
//! whatever server or command, the later one is made to the book after the earlier one.

use std::sync::Arc;

use lately_features::Schema;
use lately_rank::RankConfig;
use lately_rank::experiment::{Book, Change, Entry, ExperimentDefinition, ExperimentError, State, check};
use lately_store::objects::{ObjectError, Objects};
use lately_store::{Registry, RegistryError};

use crate::data_dir::DataDir;
use crate::wire_up::now_ms;

/// Name of the object.
const BOOK: &str = "experiments/book.json";
/// How often a change is tried when others are faster.
const TURNS: usize = 50;

/// Keeps the book.
#[derive(Debug, Clone)]
pub struct Ledger {
    objects: Arc<dyn Objects>,
    registry: Registry,
    rank: RankConfig,
    schema: Arc<Schema>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It makes no sense.
    #[error(transparent)]
    Refused(#[from] ExperimentError),
    /// A variant's model is not there.
    #[error(
        "the variant `{variant}` of `{experiment}` has the model `{alias}`, and no version has that alias: give it to one, \
         with `lately model promote VERSION --alias {alias}`"
    )]
    NoModel {
        /// The experiment.
        experiment: String,
        /// The variant.
        variant: String,
        /// The alias.
        alias: String,
    },
    /// What is kept is no book.
    #[error("{BOOK} is damaged ({0}): put back a copy, or remove it to begin anew")]
    Damaged(serde_json::Error),
    /// Others changed it all the time.
    #[error("the book of experiments changed {TURNS} times while it was to be changed: try again")]
    Busy,
    /// Storage failed.
    #[error("the book of experiments: {0}")]
    Objects(#[from] ObjectError),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Ledger {
    /// That of a data directory, with its registry.
    ///
    /// # Errors
    /// Where neither can be opened.
    pub fn open(dir: &DataDir) -> anyhow::Result<Self> {
        Ok(Self {
            objects: dir.registry_objects()?,
            registry: dir.registry()?,
            rank: dir.config.rank.clone(),
            schema: Arc::clone(&dir.schema),
        })
    }

    /// The book as it stands; an empty one where there is none yet.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn read(&self) -> Result<Book, LedgerError> {
        Ok(self.read_raw()?.1)
    }

    /// Makes a change, after all that were made before; returns the book with it.
    ///
    /// # Errors
    /// [`LedgerError`]; the book then stays as it was.
    pub fn change(&self, change: &Change) -> Result<Book, LedgerError> {
        for _ in 0..TURNS {
            let (raw, mut book) = self.read_raw()?;
            book.apply(change, now_ms())?;
            check(&book, &self.rank, &self.schema)?;
            if let Change::Start { name, .. } = change {
                self.has_models(book.get(name)?)?;
            }
            let text = serde_json::to_vec_pretty(&book).map_err(LedgerError::Damaged)?;
            if self.objects.swap(BOOK, raw.as_deref(), &text)? {
                return Ok(book);
            }
        }
        Err(LedgerError::Busy)
    }

    /// Declares what the configuration lists and the book has not, or has otherwise as a draft. Says which were started
    /// with another definition and stay as they were.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn declare_all(&self, definitions: &[ExperimentDefinition]) -> Result<Vec<String>, LedgerError> {
        let mut other = Vec::new();
        for definition in definitions {
            let book = self.read()?;
            match book.experiments.iter().find(|e| e.definition.name == definition.name) {
                Some(entry) if entry.definition == *definition => {}
                Some(entry) if entry.state != State::Draft => other.push(definition.name.clone()),
                _ => drop(self.change(&Change::Declare(definition.clone()))?),
            }
        }
        Ok(other)
    }

    fn read_raw(&self) -> Result<(Option<Vec<u8>>, Book), LedgerError> {
        let raw = self.objects.get(BOOK)?;
        let book = raw.as_deref().map(serde_json::from_slice).transpose().map_err(LedgerError::Damaged)?;
        Ok((raw, book.unwrap_or_default()))
    }

    fn has_models(&self, entry: &Entry) -> Result<(), LedgerError> {
        let definition = &entry.definition;
        for variant in &definition.variants {
            let Some(alias) = &variant.overrides.model else { continue };
            if self.registry.alias(alias)?.is_none() {
                return Err(LedgerError::NoModel {
                    experiment: definition.name.clone(),
                    variant: variant.name.clone(),
                    alias: alias.clone(),
                });
            }
        }
        Ok(())
    }
}
