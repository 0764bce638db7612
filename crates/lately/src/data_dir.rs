//! A data directory: `lately.toml`, `store/` (the log and what is projected from it), `lake/` (training rows) and `registry/`
//! (models), unless these two are kept elsewhere, and `embeddings/` (tables of item vectors).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use lately_features::{ItemVectors, Schema};
use lately_store::objects::{self, Objects};
use lately_store::{Registry, Store, StoreError};
use lately_train::{Lake, LakeReader};

use crate::config::Config;

/// Where a project's log, sequences and models live.
#[derive(Debug, Clone)]
pub struct DataDir {
    /// The directory.
    pub path: PathBuf,
    /// What its `lately.toml` says.
    pub config: Config,
    /// The schema in it.
    pub schema: Arc<Schema>,
}

impl DataDir {
    /// Opens an existing directory.
    pub fn open(path: &Path) -> Result<Self> {
        let config = Config::read(&path.join("lately.toml"))?;
        Ok(Self { path: path.to_owned(), schema: Arc::new(config.schema.clone()), config })
    }

    /// Makes a directory with the given `lately.toml`; one that is there already must hold the same schema.
    pub fn create(path: &Path, toml: &str) -> Result<Self> {
        let file = path.join("lately.toml");
        let config = Config::parse(toml, &file)?;
        if file.exists() {
            let there = Self::open(path)?;
            if there.schema.hash() != config.schema.hash() {
                bail!("{} holds another schema: choose an empty directory", file.display());
            }
            return Ok(there);
        }
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        fs::write(&file, toml).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { path: path.to_owned(), schema: Arc::new(config.schema.clone()), config })
    }

    /// Opens the log and what is projected from it; one process at a time can. Items have what they were sent with.
    pub fn store(&self) -> Result<Store> {
        self.store_with(None)
    }

    /// As [`DataDir::store`], with the item vectors of a table.
    pub(crate) fn store_with(&self, vectors: Option<Arc<ItemVectors>>) -> Result<Store> {
        self.open_store(vectors).with_context(|| format!("cannot open the store of {}", self.path.display()))
    }

    /// As [`DataDir::store_with`], with the store's own error.
    pub(crate) fn open_store(&self, vectors: Option<Arc<ItemVectors>>) -> Result<Store, StoreError> {
        let (path, schema) = (self.path.join("store"), Arc::clone(&self.schema));
        Store::open_with_vectors(&path, schema, self.config.store.clone(), vectors)
    }

    /// Where the lake's objects are: `lake/` in the directory, or where `[lake] uri` says.
    pub fn lake_objects(&self) -> Result<Arc<dyn Objects>> {
        let uri = match self.config.lake.uri.as_str() {
            "" => self.path.join("lake").to_string_lossy().into_owned(),
            uri if uri.contains("://") => uri.to_owned(),
            path => self.path.join(path).to_string_lossy().into_owned(),
        };
        objects::open(&uri).with_context(|| format!("cannot open the lake of {}", self.path.display()))
    }

    /// Opens the lake to advance it; one process at a time should.
    pub fn lake(&self) -> Result<Lake> {
        Ok(Lake::open(self.lake_objects()?, &self.schema, &self.config.lake)?)
    }

    /// Opens the lake to read it; any number of processes can.
    pub fn lake_reader(&self) -> Result<LakeReader> {
        Ok(LakeReader::new(self.lake_objects()?, &self.schema, &self.config.lake))
    }

    /// Where the registry's objects are, and the book of experiments beside them.
    pub(crate) fn registry_objects(&self) -> Result<Arc<dyn Objects>> {
        let uri = &self.config.registry.uri;
        let opened = match uri.contains("://") {
            true => objects::open(uri),
            false => objects::open(&self.path.join(uri).to_string_lossy()),
        };
        opened.with_context(|| format!("cannot open the registry of {}", self.path.display()))
    }

    /// Opens the models, where `[registry] uri` says; any number of processes can.
    pub fn registry(&self) -> Result<Registry> {
        let uri = &self.config.registry.uri;
        let opened = match uri.contains("://") {
            true => Registry::open_uri(uri),
            false => Registry::open(&self.path.join(uri)),
        };
        opened.with_context(|| format!("cannot open the registry of {}", self.path.display()))
    }
}
