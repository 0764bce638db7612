//! Experiments: what the users of a variant are ranked by.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Ask, Candidates, Ranker};
use crate::error::RankError;
use crate::experiment::{Book, ExperimentError, Plan, Reach};
use crate::model_slot::ModelSlot;

impl Ranker {
    /// Goes by this book from the next request on. `models` are the slots of the aliases that variants name; an alias
    /// without a slot, or whose slot is empty, is served by the champion.
    ///
    /// # Errors
    /// [`ExperimentError`] where a variant overrides what cannot be; the former book then stays.
    pub fn set_experiments(
        &self,
        book: &Book,
        models: &HashMap<String, Arc<ModelSlot>>,
    ) -> Result<(), ExperimentError> {
        let plan = Plan::new(book, &self.config, &self.schema, models)?;
        self.experiments.store(Arc::new(plan));
        Ok(())
    }

    /// What the request goes by: its experiments' variants, else the canary's arm and the configuration.
    pub(super) fn assign(&self, ask: &mut Ask) -> Result<(), RankError> {
        let reach = Reach {
            select: ask.rules.spacing,
            retrieve: matches!(ask.candidates, Candidates::Retrieve),
            slate: ask.slate,
        };
        let plan = self.experiments.load();
        let chosen = plan
            .choose(&ask.user, ask.surface.as_deref(), reach, &ask.forced_variants, &self.policy)
            .map_err(|e| RankError::Variant(e.to_string()))?;
        if let Some(policy) = chosen.policy {
            ask.policy = policy;
        }
        for exposure in chosen.exposures.iter().filter(|e| !e.forced) {
            let labels = [("experiment", exposure.experiment.clone()), ("variant", exposure.variant.clone())];
            metrics::counter!("lately_experiment_exposures_total", &labels).increment(1);
        }
        ask.exposures = chosen.exposures;
        (ask.model, ask.variant) = match chosen.model.map(|slot| slot.current()) {
            None if chosen.compares_models => (self.slot.current(), None),
            None => self.arm(&ask.user),
            Some(Some(model)) => (Some(model), None),
            Some(None) => {
                metrics::counter!("lately_experiment_without_model_total").increment(1);
                (self.slot.current(), None)
            }
        };
        Ok(())
    }
}
