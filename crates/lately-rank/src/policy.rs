//! What a ranking goes by that may differ from request to request: an experiment's variant overrides parts of it.

use lately_features::Schema;

use crate::config::RankConfig;
use crate::error::RankConfigError;
use crate::explore::ExploreConfig;
use crate::retrieve::RetrieveConfig;
use crate::select::Selection;
use crate::value_model::ValueModel;

/// The part of `[rank]` that a request may have its own of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy {
    pub(crate) value_model: ValueModel,
    pub(crate) select: Selection,
    pub(crate) retrieve: RetrieveConfig,
    pub(crate) explore: ExploreConfig,
}

impl Policy {
    /// What the configuration says; refuses what it refuses.
    pub(crate) fn new(config: &RankConfig, schema: &Schema) -> Result<Self, RankConfigError> {
        config.check()?;
        Ok(Self {
            value_model: ValueModel::new(&config.value_model, schema)?,
            select: Selection::new(&config.select, schema)?,
            retrieve: config.retrieve.clone(),
            explore: config.explore.clone(),
        })
    }
}
