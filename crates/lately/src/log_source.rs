//! Where training and evaluation read the log: from the data directory, or, while a server has it open, from that
//! server's admin port.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lately_features::Event;
use lately_server::read_page;
use lately_store::{Store, StoreError};
use lately_train::join::Joiner;
use lately_train::{Dataset, JoinOptions};

use crate::data_dir::DataDir;

/// Longest wait for other processes to have read the log: each of 16 may take minutes.
const TURN_TIMEOUT: Duration = Duration::from_secs(3600);
/// Between looks at whether it is this process's turn.
const TURN_LOOK: Duration = Duration::from_millis(200);
/// Name of the file in which a server leaves its admin address.
const ADMIN: &str = "admin.address";
/// Longest time for one page of the log.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of one page: 4,096 records of impressions with hundreds of items.
const PAGE_BYTES: u64 = 1 << 30;
/// Records that are read from the store at once: a few MB.
const PAGE: usize = 4_096;

/// Takes a record of the log, in order.
pub type OnRecord<'a> = dyn FnMut(u64, Event) -> Result<()> + 'a;

/// Joins the log of a data directory, whoever has it open.
pub fn dataset(dir: &DataDir, options: JoinOptions) -> Result<Dataset> {
    let mut joiner = Joiner::new(&dir.schema, options)?;
    each(dir, &mut |offset, event| Ok(joiner.push(offset, event)?))?;
    Ok(joiner.finish())
}

/// Joins the log of a data directory in one of several processes that train together on the same rows: each waits until no
/// other has it open.
///
/// # Errors
/// Where a server has it open: its log grows while one process after another reads it.
pub(crate) fn dataset_in_turn(dir: &DataDir, options: JoinOptions) -> Result<Dataset> {
    let begun = Instant::now();
    let store = loop {
        match dir.open_store(None) {
            Err(StoreError::Locked(_)) if is_served(dir) => bail!(
                "{} is being served, and its log grows: several processes must train on the same rows; stop the server, or \
                 train on a copy of the directory",
                dir.path.display()
            ),
            Err(StoreError::Locked(_)) if begun.elapsed() < TURN_TIMEOUT => std::thread::sleep(TURN_LOOK),
            opened => {
                break opened.with_context(|| format!("cannot open the store of {}", dir.path.display()))?;
            }
        }
    };
    let mut joiner = Joiner::new(&dir.schema, options)?;
    Log::of(&Arc::new(store)).each(&mut |offset, event| Ok(joiner.push(offset, event)?))?;
    Ok(joiner.finish())
}

/// Whether a server answers where one has left its address; one that was killed leaves it too.
fn is_served(dir: &DataDir) -> bool {
    let address = fs::read_to_string(admin_file(&dir.path)).ok().and_then(|text| text.parse().ok());
    address.is_some_and(|address| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
}

/// Hands over the log of a data directory record by record, whoever has it open.
pub fn each(dir: &DataDir, on_record: &mut OnRecord<'_>) -> Result<()> {
    let log = Log::open(dir)?;
    if let Some(address) = log.address() {
        println!("the directory is being served: reading the log from http://{address}");
    }
    log.each(on_record)
}

/// The log of a data directory, whoever has it open.
#[derive(Debug, Clone)]
pub struct Log(Source);

#[derive(Debug, Clone)]
enum Source {
    /// In this process.
    Store(Arc<Store>),
    /// A server that has it open, by the address of its admin port.
    Served(ureq::Agent, String),
}

impl Log {
    /// Opens the store, or finds the server that has it open.
    pub fn open(dir: &DataDir) -> Result<Self> {
        match dir.open_store(None) {
            Ok(store) => Ok(Self::of(&Arc::new(store))),
            Err(StoreError::Locked(path)) => {
                let address =
                    fs::read_to_string(admin_file(&dir.path)).with_context(|| StoreError::Locked(path))?;
                let agent = ureq::Agent::config_builder().timeout_global(Some(PAGE_TIMEOUT)).build();
                Ok(Self(Source::Served(agent.into(), address)))
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot open the store of {}", dir.path.display()))
            }
        }
    }

    /// That of an open store.
    pub fn of(store: &Arc<Store>) -> Self {
        Self(Source::Store(Arc::clone(store)))
    }

    /// Where it is served, if this process has not opened it.
    pub fn address(&self) -> Option<&str> {
        match &self.0 {
            Source::Store(_) => None,
            Source::Served(_, address) => Some(address),
        }
    }

    /// Some records from an offset on, about `limit` at most; none at the end.
    pub fn read(&self, from: u64, limit: usize) -> Result<Vec<(u64, Event)>> {
        let (agent, address) = match &self.0 {
            Source::Store(store) => return Ok(store.read(from, limit)?),
            Source::Served(agent, address) => (agent, address),
        };
        let url = format!("http://{address}/admin/v1/log?from={from}");
        let mut body = Vec::new();
        let mut response = agent.get(&url).call().with_context(|| format!("cannot read {url}"))?;
        response.body_mut().as_reader().take(PAGE_BYTES).read_to_end(&mut body)?;
        Ok(read_page(&body)?)
    }

    /// Hands it over record by record.
    pub(crate) fn each(&self, on_record: &mut OnRecord<'_>) -> Result<()> {
        let mut from = 0;
        loop {
            let records = self.read(from, PAGE)?;
            let Some((last, _)) = records.last() else { return Ok(()) };
            from = last + 1;
            for (offset, event) in records {
                on_record(offset, event)?;
            }
        }
    }
}

/// The file that [`announce`] writes.
fn admin_file(dir: &Path) -> PathBuf {
    dir.join(ADMIN)
}

/// Leaves the admin address in the directory until the returned value is dropped.
pub fn announce(dir: &Path, address: std::net::SocketAddr) -> Result<Announced> {
    let path = admin_file(dir);
    fs::write(&path, address.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Announced(path))
}

/// Removes the address when it is dropped.
#[derive(Debug)]
pub struct Announced(PathBuf);

impl Drop for Announced {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, "the file with the admin address stays");
        }
    }
}
