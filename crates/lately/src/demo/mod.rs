//! `lately demo`: the whole loop in one process, on a synthetic world.
//!
//! [`Demo::start`] makes the world, writes what its people did before there was a model, trains the first model and
//! serves it: the composition that `lately serve` uses, and that the end-to-end tests drive over HTTP. [`crowd`] lets
//! people act, [`crate::retrain`] learns from what was served, and [`summary`] tells how it went.

pub mod crowd;
pub mod learning;
pub mod page;
pub mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use lately_train::{JoinOptions, join_store};
use tempfile::TempDir;

use crate::data_dir::DataDir;
use crate::device::TrainingDevice;
use crate::learn::{Plan, champion, learn};
use crate::wire_up::{Server, now_ms};
use crate::world::{SCHEMA, World, WorldConfig};

/// What a demo is made of.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Where the data goes; `None`: a temporary directory that is removed at the end.
    pub dir: Option<PathBuf>,
    /// The world.
    pub world: WorldConfig,
    /// Days of its past.
    pub days: u32,
    /// Address of the data port; port 0 takes a free one.
    pub bind: String,
    /// Address of the admin port.
    pub admin_bind: String,
    /// Whether to draw progress bars.
    pub bars: bool,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            dir: None,
            world: WorldConfig::default(),
            days: 3,
            bind: "127.0.0.1:7000".to_owned(),
            admin_bind: "127.0.0.1:7001".to_owned(),
            bars: true,
        }
    }
}

/// A running demo. Dropping it stops the server and removes a temporary directory.
pub struct Demo {
    /// The world.
    pub world: Arc<World>,
    /// The data directory.
    pub dir: DataDir,
    /// The served composition.
    pub server: Server,
    /// First log record that the first model has not seen.
    pub trained_to: u64,
    _temporary: Option<TempDir>,
}

impl Demo {
    /// Makes the world, trains the first model and serves it. `say` is told what is being done.
    pub fn start(options: &DemoOptions, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let (path, temporary) = match &options.dir {
            Some(path) => (path.clone(), None),
            None => {
                let made = tempfile::Builder::new().prefix("lately-demo-").tempdir()?;
                (made.path().to_owned(), Some(made))
            }
        };
        let world = Arc::new(World::new(options.world)?);
        let dir = DataDir::create(&path, &demo_toml())?;
        let mut trained_to = 0;
        if champion(&dir.registry()?)?.is_none() {
            trained_to = first_model(&dir, &world, options, say)?;
        } else {
            say("the directory holds a model: going on with it");
        }
        let page = page::Page::new(world.user_ids());
        let server = Server::start(&dir, &options.bind, &options.admin_bind, Some(page.routes()))?;
        page.attach(&server.store);
        if trained_to == 0 {
            trained_to = server.store.next_offset();
        }
        say(&format!("serving {:.12} on http://{}/", server.model_version(), server.address));
        Ok(Self { world, dir, server, trained_to, _temporary: temporary })
    }

    /// Where the data is.
    pub fn path(&self) -> &Path {
        &self.dir.path
    }
}

/// The demo's `lately.toml`.
pub fn demo_toml() -> String {
    format!("{}\n[schema]\n{SCHEMA}", include_str!("lately.toml"))
}

/// Writes the world's past and trains on it; returns the first log record that the model has not seen.
fn first_model(
    dir: &DataDir,
    world: &World,
    options: &DemoOptions,
    say: &mut dyn FnMut(&str),
) -> Result<u64> {
    let start = Instant::now();
    let store = dir.store()?;
    if store.next_offset() == 0 {
        let now = now_ms();
        let before = now - i64::from(options.days) * 86_400_000;
        for events in [world.items(before), world.users(before), world.bootstrap(options.days, now)?] {
            store.append(events).context("writing the world's past")?;
        }
    }
    let trained_to = store.next_offset();
    let dataset = join_store(&store, &dir.schema, JoinOptions::default())?;
    say(&format!(
        "the world: {} people, {} things, {} log records of {} days ({:.1} s)",
        world.user_ids().len(),
        world.item_ids().len(),
        trained_to,
        options.days,
        start.elapsed().as_secs_f64(),
    ));
    let plan = Plan {
        model: dir.config.model.clone(),
        train: dir.config.train.clone(),
        device: TrainingDevice::default(),
        start: None,
        parent: None,
        state: None,
    };
    let trained = learn(&dataset.all(), &plan, options.bars)?;
    let version = trained.publish(&dir.registry()?, Some(lately_train::publish::CHAMPION))?;
    say(&format!(
        "trained {:.12} on {} rows in {:.1} s ({:.0} rows/s)",
        version.to_string(),
        dataset.stats.rows,
        trained.report.seconds,
        trained.report.rows as f64 / trained.report.seconds,
    ));
    Ok(trained_to)
}
