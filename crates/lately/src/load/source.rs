//! What is loaded: a made data directory, a copy of a real one, or a server that runs already.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lately_model::checkpoint;
use lately_store::{Registry, Version};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rustix::process::{Signal, kill_process};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use super::made;
use super::preset::{Preset, apply};
use super::server::Server;
use super::swaps::Promoter;
use super::users::History;
use super::workload::{Names, Workload, made_names};
use crate::data_dir::DataDir;
use crate::interrupt::Interrupt;

/// Entries of a data directory that a server does not need.
const LEFT_OUT: [&str; 3] = ["admin.address", "training", "ablate"];

/// Exit status of shells for SIGINT.
const INTERRUPTED: i32 = 130;
/// How often and how far apart the directory of a killed server is tried to be removed.
const REMOVALS: usize = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);

/// What to load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SubjectOptions {
    /// A running server; then `data` is its directory, or a copy, whose names are used.
    pub(crate) url: Option<String>,
    /// A data directory, of which a copy is served; without it one is made.
    pub(crate) data: Option<PathBuf>,
    /// What is made.
    pub(crate) preset: Preset,
    /// `KEY=VALUE` over its lately.toml.
    pub(crate) set: Vec<String>,
    pub(crate) users: usize,
    pub(crate) items: usize,
    pub(crate) history: History,
    /// Exponent of Zipf's law over users.
    pub(crate) zipf: f64,
    /// Candidates of a ranking.
    pub(crate) candidates: usize,
    /// Named in requests; without it the server's own holds.
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) seed: u64,
}

/// What is loaded, ready.
pub(crate) struct Subject {
    /// `None` where it is not ours.
    pub(crate) server: Option<Server>,
    /// `http://host:port` of the data door.
    pub(crate) data: String,
    pub(crate) workload: Arc<Workload>,
    pub(crate) deadline: Duration,
    /// Registry and two models of a server of ours.
    models: Option<(Registry, [Version; 2])>,
    /// `[model]`, of the first model where the server is ours.
    pub(crate) model: Value,
    /// Removed at the end.
    there: Option<TempDir>,
}

impl Subject {
    /// From now on Ctrl-C and SIGTERM end the server, remove its directory and then end this program.
    pub(crate) fn clear_up_when_interrupted(&self) -> Result<()> {
        let (Some(server), Some(there)) = (&self.server, &self.there) else { return Ok(()) };
        let (server, there, interrupt) = (server.id()?, there.path().to_owned(), Interrupt::install()?);
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
            interrupt.wait(None);
            // Nothing of it is kept: it need not drain.
            if let Err(error) = kill_process(server, Signal::KILL) {
                tracing::debug!(%error, "the server has ended before");
            }
            // It may write until it is gone.
            let removed = (0..REMOVALS).any(|_| {
                std::thread::sleep(REMOVAL_PAUSE);
                fs::remove_dir_all(&there).is_ok()
            });
            if !removed {
                eprintln!("{} stays: remove it", there.display());
            }
            std::process::exit(INTERRUPTED);
        })?;
        Ok(())
    }

    /// Makes or copies what is to be served and starts `program serve` on it, or takes the server that runs.
    pub(crate) fn open(options: &SubjectOptions, program: &Path, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        if let (Some(url), Some(data)) = (&options.url, &options.data) {
            let dir = DataDir::open(data)?;
            return Self::of(options, &dir, &Names::of_log(&dir)?, url.clone());
        }
        let there = tempfile::Builder::new().prefix("lately-bench-").tempdir()?;
        let (dir, names) = match &options.data {
            Some(data) => copied(data, there.path(), &options.set)?,
            None => {
                let dir = DataDir::create(there.path(), &options.preset.toml(&options.set)?)?;
                let names = made_names(options.users, options.items)?;
                made::fill(&dir, &names, options.history, &mut random)?;
                (dir, names)
            }
        };
        made::add_probe(&dir, &names.items, &mut random)?;
        let models = made::two_models(&dir)?;
        say(&format!("{} users, {} items; starting the server", names.users.len(), names.items.len()));
        let server = Server::start(program, &dir.path)?;
        let mut subject = Self::of(options, &dir, &names, server.data.clone())?;
        subject.server = Some(server);
        subject.model = model_config(&dir.registry()?, &models[0])?;
        subject.models = Some((dir.registry()?, models));
        subject.there = Some(there);
        Ok(subject)
    }

    fn of(options: &SubjectOptions, dir: &DataDir, names: &Names, data: String) -> Result<Self> {
        ensure!(!names.users.is_empty(), "the log of {} names no users", dir.path.display());
        let SubjectOptions { zipf, candidates, deadline_ms, .. } = *options;
        let workload = Workload::new(names, &dir.schema, zipf, candidates, deadline_ms)?;
        let deadline = Duration::from_millis(deadline_ms.unwrap_or(dir.config.rank.deadline_ms));
        Ok(Self {
            server: None,
            data,
            workload: Arc::new(workload),
            deadline,
            models: None,
            model: serde_json::to_value(&dir.config.model)?,
            there: None,
        })
    }

    /// What swaps the two models.
    pub(crate) fn promoter(&self, admin: &str) -> Result<Promoter> {
        let Some((registry, versions)) = &self.models else {
            bail!("models are swapped on a server that this command starts: leave out --url");
        };
        for version in versions {
            let config = model_config(registry, version)?;
            ensure!(
                config["age_buckets"] == 0,
                "scores of a model with age_buckets change with time, so that swaps cannot be checked: set \
                 model.age_buckets=0"
            );
        }
        Ok(Promoter::new(registry.clone(), versions.clone(), &self.data, admin))
    }
}

fn model_config(registry: &Registry, version: &Version) -> Result<Value> {
    let (_, manifest) = checkpoint::from_bytes(&registry.load(version)?)?;
    Ok(serde_json::to_value(manifest.config)?)
}

/// A copy of a directory that nobody serves, with settings over its lately.toml: a load must not be in the real log.
fn copied(from: &Path, to: &Path, set: &[String]) -> Result<(DataDir, Names)> {
    let original = DataDir::open(from)?;
    // Held while it is copied, so that no server writes to it.
    let held = original
        .store()
        .context("a copy of the directory is loaded: stop its server, or aim at it with --url")?;
    copy(from, to)?;
    drop(held);
    let path = to.join("lately.toml");
    let toml = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    fs::write(&path, apply(toml.parse()?, set)?)?;
    let dir = DataDir::open(to)?;
    let names = Names::of_log(&dir)?;
    Ok((dir, names))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let at = |path: &Path| format!("cannot copy {}", path.display());
    fs::create_dir_all(to).with_context(|| at(from))?;
    for entry in fs::read_dir(from).with_context(|| at(from))? {
        let entry = entry.with_context(|| at(from))?;
        let (path, name) = (entry.path(), entry.file_name());
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        if entry.file_type().with_context(|| at(&path))?.is_dir() {
            copy(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).with_context(|| at(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_directory_is_copied_and_stays_as_it_was() {
        let (real, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = DataDir::create(real.path(), &Preset::Nano.toml(&[]).unwrap()).unwrap();
        let names = made_names(4, 20).unwrap();
        made::fill(&dir, &names, History::Fixed(3), &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        fs::write(real.path().join("admin.address"), "127.0.0.1:1").unwrap();
        let before = dir.store().unwrap().next_offset();

        let set = ["rank.deadline_ms=77".to_owned()];
        let (copy, known) = copied(real.path(), there.path(), &set).unwrap();
        assert_eq!((known.users.len(), known.items.len()), (4, 20));
        assert_eq!((copy.config.rank.deadline_ms, dir.config.rank.deadline_ms), (77, 200));
        assert!(!there.path().join("admin.address").exists());
        made::add_probe(&copy, &known.items, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        assert!(copy.store().unwrap().next_offset() > before);
        assert_eq!(dir.store().unwrap().next_offset(), before);

        let served = dir.store().unwrap();
        let (again, twice) = (tempfile::tempdir().unwrap(), real.path());
        let error = format!("{:#}", copied(twice, again.path(), &set).unwrap_err());
        assert!(error.contains("aim at it with --url") && error.contains("in use"), "{error}");
        drop(served);
    }
}
