//! How a server makes its slots for models: those of the champion, the challenger and the variants of experiments alike.

use std::sync::Arc;

use lately_features::Schema;
use lately_model::Accelerator;
use lately_rank::{ModelSlot, RankConfig, RankDevice, RankPrecision};

/// What all slots of a server have in common.
#[derive(Debug, Clone)]
pub(crate) struct SlotSettings {
    schema: Arc<Schema>,
    embedding_version: String,
    precision: RankPrecision,
    accelerator: Option<Arc<dyn Accelerator>>,
    device_required: bool,
}

impl SlotSettings {
    pub(crate) fn new(
        schema: &Arc<Schema>,
        embedding_version: &str,
        config: &RankConfig,
        accelerator: Option<Arc<dyn Accelerator>>,
    ) -> Self {
        Self {
            schema: Arc::clone(schema),
            embedding_version: embedding_version.to_owned(),
            precision: config.precision,
            accelerator,
            device_required: config.device == RankDevice::Cuda,
        }
    }

    /// An empty slot for an alias.
    pub(crate) fn make(&self, alias: &str) -> Arc<ModelSlot> {
        let slot = ModelSlot::new(Arc::clone(&self.schema))
            .for_alias(alias)
            .with_embedding_version(&self.embedding_version)
            .with_precision(self.precision);
        Arc::new(match &self.accelerator {
            Some(accelerator) => slot.with_accelerator(Arc::clone(accelerator), self.device_required),
            None => slot,
        })
    }

    /// What models are scored on, as long as they pass the check there.
    pub(crate) fn device(&self) -> &str {
        self.accelerator.as_ref().map_or("cpu", |a| a.name())
    }
}
