//! Replays the newest logged rankings through the path of training, each by the version that made it: what `lately
//! replay`, the watch and `lately doctor` share.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use lately_model::{Engine, Manifest, ServingPrecision, checkpoint};
use lately_store::Registry;
use lately_train::replay::{Logged, ReplayReport, replay};
use lately_train::{Dataset, Slice};

/// The newest `requests` that a model ranked.
pub(crate) fn newest<'a>(dataset: &'a Dataset, logged: &HashMap<u64, Logged>, requests: usize) -> Slice<'a> {
    let mut slice = dataset.all();
    slice.requests.retain(|r| logged.contains_key(&dataset.requests[*r as usize].offset));
    slice.requests.drain(..slice.requests.len().saturating_sub(requests));
    slice
}

/// The versions that ranked them, the newest first.
pub(crate) fn versions(slice: &Slice<'_>, logged: &HashMap<u64, Logged>) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for position in slice.requests.iter().rev() {
        let offset = slice.dataset.requests[*position as usize].offset;
        if let Some(l) = logged.get(&offset).filter(|l| !versions.contains(&l.version)) {
            versions.push(l.version.clone());
        }
    }
    versions
}

/// Ranks again what one version ranked; `bound` is the largest difference of a probability that is none.
pub(crate) fn of_version(
    registry: &Registry,
    slice: &Slice<'_>,
    logged: &HashMap<u64, Logged>,
    precision: ServingPrecision,
    version: &str,
    bound: f64,
) -> Result<ReplayReport> {
    let bytes =
        registry.load(&version.parse()?).with_context(|| format!("the model {version} that ranked"))?;
    let (model, manifest): (_, Manifest) = checkpoint::from_bytes(&bytes)?;
    manifest.check_schema(&slice.dataset.schema)?;
    manifest.check_embeddings(&slice.dataset.embedding_version)?;
    let engine = Engine::new(Arc::new(model), precision);
    let mut report = ReplayReport::new(bound);
    replay(slice, logged, &engine, version, &mut report)?;
    Ok(report)
}
