//! One product: its people, its log, its ranker, and the models that serve it.
//!
//! All is real but the people and the clock: pages come from the ranker and are logged with their exposures, actions go into
//! the store, models learn from the join of both. Retrieval is the exception, by design: each page has its candidates drawn
//! at random from the person, the day and the page, so that every variant chooses from the same and no thread's timing
//! matters. Two runs of one seed are the same to the last action.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context, Result};
use lately_features::{Event, ItemId, Schema, UserId};
use lately_model::{Manifest, Model, ModelConfig};
use lately_rank::experiment::{Book, Change, ExperimentDefinition, Overrides, VariantDefinition};
use lately_rank::{LoadedModel, ModelSlot, RankConfig, Ranker, SelectConfig};
use lately_store::Store;
use lately_train::{Dataset, DateRange, JoinOptions, TrainConfig, join_store};
use tempfile::TempDir;

use super::first::FirstModels;
use super::person::{Column, Inhabitant, inhabitants};
use super::profile;
use super::recipe::Recipe;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::device::TrainingDevice;
use crate::learn::{Plan, learn};
use crate::world::{SCHEMA, World, WorldConfig};

/// Name of the experiment in exposures.
pub(super) const EXPERIMENT: &str = "models";
/// When the past ends and the first day begins, ms since 1970 UTC: a midnight.
pub(super) const START_MS: i64 = 1_699_920_000_000;
pub(super) const DAY_MS: i64 = 86_400_000;

/// The world of all suites: quick fashions; core people come mostly for what they always liked, the others for something;
/// a tenth of those is new, a tenth back again.
fn world(people: usize, items: usize, seed: u64) -> WorldConfig {
    WorldConfig {
        users: people,
        items,
        seed,
        drift: 1.0,
        core_stray: 0.45,
        casual_stray: 0.85,
        newcomers: 0.1,
        returners: 0.1,
        ..WorldConfig::default()
    }
}

/// A model that a town serves, under its alias.
#[derive(Debug, Clone)]
pub(super) struct Learner {
    pub(super) alias: &'static str,
    pub(super) model: ModelConfig,
    pub(super) train: TrainConfig,
    /// Whether it learns from what was served; else its first weights stay.
    pub(super) retrained: bool,
}

/// One product.
pub(super) struct Town {
    pub(super) recipe: Recipe,
    pub(super) seed: u64,
    pub(super) world: World,
    pub(super) store: Arc<Store>,
    pub(super) ranker: Ranker,
    /// What the ranker takes for the time.
    pub(super) clock: Arc<AtomicI64>,
    pub(super) items: Vec<ItemId>,
    pub(super) people: Vec<Inhabitant>,
    /// Days lived.
    pub(super) day: u32,
    pub(super) schema: Arc<Schema>,
    /// Of all learners but the first, which is the champion.
    slots: HashMap<String, Arc<ModelSlot>>,
    _folder: TempDir,
}

impl Town {
    /// A town with its past, in a temporary directory, without a model.
    pub(super) fn found(recipe: &Recipe, people: usize, seed: u64, select: SelectConfig) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("lately-town-").tempdir()?;
        let dir = DataDir::create(folder.path(), &settings(recipe))?;
        let world = World::new(world(people, recipe.items, seed))?;
        let store = Arc::new(dir.store()?);
        let began_ms = START_MS - i64::from(recipe.past_days) * DAY_MS;
        let past = world.bootstrap(recipe.past_days, START_MS)?;
        let mut people = inhabitants(&world, recipe, &past)?;
        store.append(world.items(began_ms)).context("writing the town's items")?;
        write_past(&store, &world, &mut people, past, began_ms)?;
        let clock = Arc::new(AtomicI64::new(START_MS));
        let its = Arc::clone(&clock);
        let champion = Arc::new(ModelSlot::new(Arc::clone(&dir.schema)));
        let rank = RankConfig { select, ..dir.config.rank.clone() };
        let ranker = Ranker::new(Arc::clone(&store), champion, Arc::clone(&dir.schema), rank)?
            .with_clock(Arc::new(move || its.load(Ordering::Relaxed)));
        Ok(Self {
            recipe: recipe.clone(),
            seed,
            items: world.item_ids(),
            world,
            store,
            ranker,
            clock,
            people,
            day: 0,
            schema: dir.schema,
            slots: HashMap::new(),
            _folder: folder,
        })
    }

    /// Teaches all learners from the past, and again twice a week; the people live their days meanwhile. With several
    /// learners each person has the one of their variant, with one all have that.
    pub(super) fn live(
        mut self,
        learners: &[Learner],
        first: &FirstModels,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<Vec<Inhabitant>> {
        let names: Vec<_> = learners.iter().map(|l| l.alias).collect();
        for learner in learners.iter().skip(1) {
            let slot = ModelSlot::new(Arc::clone(&self.schema)).for_alias(learner.alias);
            self.slots.insert(learner.alias.to_owned(), Arc::new(slot));
        }
        for learner in learners {
            let key =
                (self.seed, self.people.len(), serde_json::to_string(&(&learner.model, &learner.train))?);
            let (model, manifest) = first.get(key, || self.learn(&self.rows()?, learner))?;
            self.serve(learner, model, manifest)?;
        }
        if learners.len() > 1 {
            self.split(learners)?;
        }
        while self.day < self.recipe.days {
            self.store.append(profile::tonight(&self.world, &self.people, self.midnight()))?;
            self.one_day()?;
            self.people.iter_mut().for_each(|p| p.profile.age());
            if Recipe::retrains_after(self.day) && self.day < self.recipe.days {
                self.teach(learners.iter().filter(|l| l.retrained))?;
            }
            let saves: f64 = self.people.iter().map(|p| p.on(self.day - 1, Column::Saves)).sum();
            say(&format!("seed {}, {}: day {}, {saves} saves", self.seed, names.join("/"), self.day));
        }
        Ok(self.people)
    }

    /// Trains each on the last days and swaps it in.
    fn teach<'a>(&self, learners: impl Iterator<Item = &'a Learner>) -> Result<()> {
        let rows = self.rows()?;
        for learner in learners {
            let (model, manifest) = self.learn(&rows, learner)?;
            self.serve(learner, model, manifest)?;
        }
        Ok(())
    }

    /// What was served in the last days, and what followed.
    fn rows(&self) -> Result<Dataset> {
        let end_ms = self.midnight();
        let start_ms = end_ms - i64::from(self.recipe.window_days) * DAY_MS;
        let options = JoinOptions { range: DateRange { start_ms, end_ms }, ..JoinOptions::default() };
        Ok(join_store(&self.store, &self.schema, options)?)
    }

    fn learn(&self, rows: &Dataset, learner: &Learner) -> Result<(Model, Manifest)> {
        let train = TrainConfig { seed: self.seed, ..learner.train.clone() };
        let (model, device) = (learner.model.clone(), TrainingDevice::default());
        let plan = Plan { model, train, device, start: None, parent: None, state: None };
        let trained = learn(&rows.all(), &plan, false)?;
        Ok((*trained.model, trained.manifest))
    }

    fn serve(&self, learner: &Learner, model: Model, manifest: Manifest) -> Result<()> {
        let version = format!("{}-{}", learner.alias, self.day);
        let slot = self.slots.get(learner.alias).unwrap_or_else(|| self.ranker.slot());
        slot.swap(LoadedModel::new(model, manifest, version))?;
        Ok(())
    }

    /// Puts everybody into an experiment with a variant for each learner, named like it; the first is the control.
    fn split(&self, learners: &[Learner]) -> Result<()> {
        let variant = |(at, learner): (usize, &Learner)| VariantDefinition {
            name: learner.alias.to_owned(),
            share: 1.0,
            overrides: Overrides {
                model: (at > 0).then(|| learner.alias.to_owned()),
                ..Overrides::default()
            },
        };
        let definition = ExperimentDefinition {
            name: EXPERIMENT.to_owned(),
            layer: "models".to_owned(),
            share: None,
            surfaces: Vec::new(),
            variants: learners.iter().enumerate().map(variant).collect(),
            hypothesis: String::new(),
        };
        let mut book = Book::default();
        book.apply(&Change::Declare(definition), START_MS)?;
        book.apply(&Change::Start { name: EXPERIMENT.to_owned(), ramp: 1.0 }, START_MS)?;
        Ok(self.ranker.set_experiments(&book, &self.slots)?)
    }

    /// When the days lived so far end.
    pub(super) fn midnight(&self) -> i64 {
        START_MS + i64::from(self.day) * DAY_MS
    }
}

/// Day by day, each after what its night's batch job made of those before.
fn write_past(
    store: &Store,
    world: &World,
    people: &mut [Inhabitant],
    mut past: Vec<Event>,
    began_ms: i64,
) -> Result<()> {
    let numbers: HashMap<UserId, usize> =
        people.iter().enumerate().map(|(at, p)| (p.user.clone(), at)).collect();
    let mut midnight = began_ms;
    while !past.is_empty() {
        store.append(profile::tonight(world, people, midnight)).context("writing the town's people")?;
        midnight += DAY_MS;
        let later = past.split_off(past.partition_point(|event| event.time_ms() < midnight));
        for event in &past {
            if let Event::Action(action) = event
                && action.action == "save"
            {
                people[numbers[&action.user]].profile.saved(world.topic(&action.item)?);
            }
        }
        people.iter_mut().for_each(|p| p.profile.age());
        store.append(std::mem::replace(&mut past, later)).context("writing the town's past")?;
    }
    Ok(())
}

/// `lately.toml` of all towns.
fn settings(recipe: &Recipe) -> String {
    format!("{}\n[schema]\n{}", recipe.settings, profile::schema(SCHEMA))
}

/// Model and training that `lately.toml` describes.
pub(super) fn base(recipe: &Recipe) -> Result<(ModelConfig, TrainConfig)> {
    let config = Config::parse(&settings(recipe), Path::new("simulate/lately.toml"))?;
    Ok((config.model, config.train))
}
