//! The book as a ranker uses it: every variant's overrides made ready, so that a request only picks.

use std::collections::HashMap;
use std::sync::Arc;

use lately_features::{Schema, UserId};

use super::assign;
use super::book::{Book, Entry, State};
use super::definition::{ExperimentError, Overrides, VariantDefinition};
use super::exposure::Exposure;
use crate::config::RankConfig;
use crate::explore::ExploreConfig;
use crate::model_slot::ModelSlot;
use crate::policy::Policy;
use crate::retrieve::RetrieveConfig;
use crate::select::Selection;
use crate::value_model::ValueModel;

/// The experiments that a request can be in.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    holdout: f64,
    experiments: Vec<Experiment>,
}

#[derive(Debug)]
struct Experiment {
    entry: Entry,
    shares: Vec<f64>,
    /// What any variant overrides, the same for all: who would have been exposed must not depend on the variant.
    touches: Touches,
    variants: Vec<Parts>,
}

/// What of a request an experiment can change.
#[derive(Debug, Clone, Copy, Default)]
struct Touches {
    model: bool,
    order: bool,
    select: bool,
    retrieve: bool,
    explore: bool,
}

/// What a request goes through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Its slate is spaced.
    pub(crate) select: bool,
    /// Its candidates are retrieved.
    pub(crate) retrieve: bool,
    /// It is what the user sees.
    pub(crate) slate: bool,
}

/// A variant's parts of a policy; `None`: as for everybody.
#[derive(Debug, Default)]
struct Parts {
    name: String,
    model: Option<Arc<ModelSlot>>,
    value_model: Option<ValueModel>,
    select: Option<Selection>,
    retrieve: Option<RetrieveConfig>,
    explore: Option<ExploreConfig>,
}

/// What a request's variants come to.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// `None`: as for everybody.
    pub(crate) policy: Option<Arc<Policy>>,
    pub(crate) model: Option<Arc<ModelSlot>>,
    /// Whether models are compared: a canary beside it would be in both variants.
    pub(crate) compares_models: bool,
    pub(crate) exposures: Vec<Exposure>,
}

/// Whether a ranker of this configuration and schema can go by a book.
///
/// # Errors
/// [`ExperimentError`]: what a variant overrides that cannot be.
pub fn check(book: &Book, config: &RankConfig, schema: &Schema) -> Result<(), ExperimentError> {
    Plan::new(book, config, schema, &HashMap::new()).map(drop)
}

impl Plan {
    /// Makes the book's experiments ready that run or can be forced. An alias without a slot in `models` is served by
    /// the champion.
    pub(crate) fn new(
        book: &Book,
        config: &RankConfig,
        schema: &Schema,
        models: &HashMap<String, Arc<ModelSlot>>,
    ) -> Result<Self, ExperimentError> {
        let usable = book.experiments.iter().filter(|e| e.state != State::Stopped);
        let experiments = usable.map(|e| Experiment::new(e, config, schema, models));
        Ok(Self { holdout: book.holdout, experiments: experiments.collect::<Result<_, _>>()? })
    }

    /// What a request goes by: the variants of the user, and those that are forced on it.
    pub(crate) fn choose(
        &self,
        user: &UserId,
        surface: Option<&str>,
        reach: Reach,
        forced: &[(String, String)],
        base: &Arc<Policy>,
    ) -> Result<Chosen, ExperimentError> {
        let mut chosen = Chosen::default();
        if self.experiments.is_empty() && forced.is_empty() {
            return Ok(chosen);
        }
        let mut forced_on = Vec::with_capacity(forced.len());
        for (experiment, variant) in forced {
            forced_on.push(self.find(experiment, variant)?);
        }
        let held_out = assign::held_out(user, self.holdout);
        for (at, experiment) in self.experiments.iter().enumerate() {
            let forced = forced_on.iter().find(|f| f.0 == at).map(|f| f.1);
            let drawn = || experiment.of(user, surface).filter(|_| !held_out);
            let Some(variant) = forced.or_else(drawn) else { continue };
            if !experiment.touches.reaches(reach) {
                continue;
            }
            experiment.variants[variant].add_to(&mut chosen, base);
            chosen.compares_models |= experiment.touches.model;
            chosen.exposures.push(Exposure {
                experiment: experiment.entry.definition.name.clone(),
                variant: experiment.variants[variant].name.clone(),
                forced: forced.is_some(),
            });
        }
        Ok(chosen)
    }

    fn find(&self, name: &str, variant: &str) -> Result<(usize, usize), ExperimentError> {
        let at = self.experiments.iter().position(|e| e.entry.definition.name == name);
        let at = at.ok_or_else(|| ExperimentError::Unknown(name.to_owned()))?;
        let variants = &self.experiments[at].variants;
        let found = variants.iter().position(|v| v.name == variant).ok_or_else(|| {
            let names: Vec<_> = variants.iter().map(|v| v.name.as_str()).collect();
            ExperimentError::UnknownVariant {
                experiment: name.to_owned(),
                variant: variant.to_owned(),
                variants: names.join(", "),
            }
        })?;
        Ok((at, found))
    }
}

impl Experiment {
    fn new(
        entry: &Entry,
        config: &RankConfig,
        schema: &Schema,
        models: &HashMap<String, Arc<ModelSlot>>,
    ) -> Result<Self, ExperimentError> {
        let definition = &entry.definition;
        for surface in &definition.surfaces {
            if schema.surface(surface).is_none() {
                let (experiment, surface) = (definition.name.clone(), surface.clone());
                return Err(ExperimentError::Surface { experiment, surface });
            }
        }
        let parts = definition.variants.iter().map(|v| {
            Parts::new(v, config, schema, models).map_err(|reason| ExperimentError::Override {
                experiment: definition.name.clone(),
                variant: v.name.clone(),
                reason,
            })
        });
        let mut touches = Touches::default();
        definition.variants.iter().for_each(|v| touches.add(&v.overrides));
        Ok(Self {
            shares: definition.variants.iter().map(|v| v.share).collect(),
            touches,
            variants: parts.collect::<Result<_, _>>()?,
            entry: entry.clone(),
        })
    }

    /// The user's variant, if they are in it.
    fn of(&self, user: &UserId, surface: Option<&str>) -> Option<usize> {
        let Entry { definition, state, places, ramp, .. } = &self.entry;
        let surfaces = &definition.surfaces;
        let here = surfaces.is_empty() || surface.is_some_and(|s| surfaces.iter().any(|x| x == s));
        if *state != State::Running || !here {
            return None;
        }
        let place = assign::place(user, &definition.layer);
        let within = (places.0..places.1).contains(&place) && assign::ramped(user, &definition.name, *ramp);
        within.then(|| assign::variant(user, &definition.name, &self.shares))
    }
}

impl Touches {
    fn add(&mut self, overrides: &Overrides) {
        self.model |= overrides.model.is_some();
        self.order |= overrides.model.is_some() || overrides.value_model.is_some();
        self.select |= overrides.select.is_some();
        self.retrieve |= overrides.retrieve.is_some();
        self.explore |= overrides.explore.is_some();
    }

    fn reaches(self, reach: Reach) -> bool {
        // Without any override it is an A/A test, which all see.
        let none = !(self.order || self.select || self.retrieve || self.explore);
        none || self.order
            || (self.select && reach.select)
            || (self.retrieve && reach.retrieve)
            || (self.explore && reach.slate)
    }
}

impl Parts {
    fn new(
        variant: &VariantDefinition,
        config: &RankConfig,
        schema: &Schema,
        models: &HashMap<String, Arc<ModelSlot>>,
    ) -> Result<Self, String> {
        let o = &variant.overrides;
        let config = o.over(config)?;
        let policy = Policy::new(&config, schema).map_err(|e| e.to_string())?;
        Ok(Self {
            name: variant.name.clone(),
            model: o.model.as_ref().and_then(|alias| models.get(alias).cloned()),
            value_model: o.value_model.is_some().then_some(policy.value_model),
            select: o.select.is_some().then_some(policy.select),
            retrieve: o.retrieve.is_some().then_some(policy.retrieve),
            explore: o.explore.is_some().then_some(policy.explore),
        })
    }

    fn add_to(&self, chosen: &mut Chosen, base: &Arc<Policy>) {
        if let Some(model) = &self.model {
            chosen.model = Some(Arc::clone(model));
        }
        let Self { value_model, select, retrieve, explore, .. } = self;
        if value_model.is_none() && select.is_none() && retrieve.is_none() && explore.is_none() {
            return;
        }
        let policy = Arc::make_mut(chosen.policy.get_or_insert_with(|| Arc::clone(base)));
        put(&mut policy.value_model, value_model);
        put(&mut policy.select, select);
        put(&mut policy.retrieve, retrieve);
        put(&mut policy.explore, explore);
    }
}

fn put<T: Clone>(place: &mut T, part: &Option<T>) {
    if let Some(part) = part {
        place.clone_from(part);
    }
}
