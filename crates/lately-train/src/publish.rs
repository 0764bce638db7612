//! From a trained model to a version in the registry, and the name that serving follows.

use lately_model::{Golden, Manifest, Model, checkpoint};
use lately_store::registry::{Registry, RegistryError, Version};

/// The alias that serving follows.
pub const CHAMPION: &str = "champion";

/// The alias that serving scores in the shadow of the champion.
pub const CHALLENGER: &str = "challenger";

/// Why a model could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The model could not be written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// The manifest could not be written.
    #[error("the manifest could not be written as JSON: {0}")]
    Manifest(#[from] serde_json::Error),
    /// The registry refuses or fails.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Publishes a model with its manifest; with `alias`, the alias then names it, which makes serving swap. Returns the
/// version. The same model published again is the same version, and stays vetoed where it was.
pub fn publish(
    registry: &Registry,
    model: &Model,
    manifest: &Manifest,
    alias: Option<&str>,
) -> Result<Version, PublishError> {
    publish_with(registry, model, manifest, None, alias)
}

/// [`publish`], with golden rows where there are any.
pub fn publish_with(
    registry: &Registry,
    model: &Model,
    manifest: &Manifest,
    golden: Option<&Golden>,
    alias: Option<&str>,
) -> Result<Version, PublishError> {
    let bytes = checkpoint::to_bytes_with(model, manifest, golden)?;
    let version = registry.publish(&bytes, &serde_json::to_value(manifest)?)?;
    if let Some(alias) = alias {
        registry.promote(alias, &version)?;
    }
    tracing::info!(%version, alias, "published a model");
    Ok(version)
}
