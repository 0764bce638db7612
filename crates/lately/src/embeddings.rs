//! The tables of item vectors of a data directory: `embeddings/`, a registry like that of the models. The alias
//! `active` names the table that training uses; a server loads that of the model which it is to serve.

use std::sync::Arc;

use anyhow::{Context, Result};
use lately_features::ItemVectors;
use lately_store::{Registry, Version};
use lately_train::embed::Table;
use lately_train::embed::artifact::{self, EmbeddingManifest};

use crate::data_dir::DataDir;
use crate::learn::champion;

/// The alias that training follows.
pub const ACTIVE: &str = "active";

/// A table with where it comes from.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// The vectors.
    pub vectors: Arc<ItemVectors>,
    /// Their origin.
    pub manifest: EmbeddingManifest,
}

impl DataDir {
    /// Opens the tables; any number of processes can.
    pub fn embeddings(&self) -> Result<Registry> {
        Registry::open(&self.path.join("embeddings"))
            .with_context(|| format!("cannot open the embeddings of {}", self.path.display()))
    }

    /// The table that training uses; `None` where items have what they were sent with.
    pub fn active_embedding(&self) -> Result<Option<Embedding>> {
        if !self.path.join("embeddings").exists() {
            return Ok(None);
        }
        let version = self.embeddings()?.alias(ACTIVE)?;
        self.embedding(&version.map(|v| v.to_string()).unwrap_or_default())
    }

    /// The table of a version, as a model's manifest names it; `None` for the empty one.
    pub fn embedding(&self, version: &str) -> Result<Option<Embedding>> {
        if version.is_empty() {
            return Ok(None);
        }
        let known: Version = version.parse()?;
        let bytes = self.embeddings()?.load(&known);
        let bytes = bytes.with_context(|| format!("cannot load the item vectors {version}"))?;
        let (vectors, manifest) = artifact::from_bytes(&bytes, version, &self.schema)?;
        Ok(Some(Embedding { vectors: Arc::new(vectors), manifest }))
    }

    /// The table that the champion was trained on, so that a restart can serve it; without a champion, or where its
    /// table cannot be loaded, the active one. A champion of another table is then refused when it is swapped in.
    pub(crate) fn served_embedding(&self, models: &Registry) -> Result<Option<Embedding>> {
        let Some(version) = champion(models)? else { return self.active_embedding() };
        let info = models.versions()?.into_iter().find(|info| info.version == version);
        let named = info.as_ref().and_then(|info| info.manifest.get("embedding_version")?.as_str());
        match self.embedding(named.unwrap_or_default()) {
            Err(error) => {
                tracing::error!(%error, "the champion's item vectors cannot be loaded: taking the active ones");
                self.active_embedding()
            }
            loaded => loaded,
        }
    }

    /// Keeps a table; with `active`, training uses it from now on. Returns its version.
    pub fn publish_embedding(
        &self,
        table: &Table,
        manifest: &EmbeddingManifest,
        active: bool,
    ) -> Result<Version> {
        let bytes = artifact::to_bytes(table, manifest)?;
        // What cannot be read is not kept.
        artifact::from_bytes(&bytes, "", &self.schema)?;
        let registry = self.embeddings()?;
        let version = registry.publish(&bytes, &serde_json::to_value(manifest)?)?;
        if active {
            registry.set_alias(ACTIVE, &version)?;
        }
        Ok(version)
    }
}
