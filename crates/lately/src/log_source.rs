//! Where training and evaluation read the log: from the data directory, or, while a server has it open, from that
//! server's admin port.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lately_features::Event;
use lately_server::read_page;
use lately_store::{Store, StoreError};
use lately_train::join::Joiner;
use lately_train::{Dataset, JoinOptions};

use crate::data_dir::DataDir;

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

/// Hands over the log of a data directory record by record, whoever has it open.
pub fn each(dir: &DataDir, on_record: &mut OnRecord<'_>) -> Result<()> {
    let log = Log::open(dir)?;
    let mut from = 0;
    loop {
        let records = log.read(from, PAGE)?;
        let Some((last, _)) = records.last() else { return Ok(()) };
        from = last + 1;
        for (offset, event) in records {
            on_record(offset, event)?;
        }
    }
}

/// The log of a data directory, whoever has it open.
pub struct Log(Source);

enum Source {
    Own(Box<Store>),
    /// A server that has it open, by the address of its admin port.
    Served(ureq::Agent, String),
}

impl Log {
    /// Finds the log; it stays open while this is there.
    pub fn open(dir: &DataDir) -> Result<Self> {
        match dir.open_store(None) {
            Ok(store) => Ok(Self(Source::Own(Box::new(store)))),
            Err(StoreError::Locked(path)) => {
                let address =
                    fs::read_to_string(admin_file(&dir.path)).with_context(|| StoreError::Locked(path))?;
                println!("the directory is being served: reading the log from http://{address}");
                let config = ureq::Agent::config_builder().timeout_global(Some(PAGE_TIMEOUT)).build();
                Ok(Self(Source::Served(config.into(), address)))
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot open the store of {}", dir.path.display()))
            }
        }
    }

    /// Some records from an offset on, about `limit` at most; none at the end.
    pub fn read(&self, from: u64, limit: usize) -> Result<Vec<(u64, Event)>> {
        let (agent, address) = match &self.0 {
            Source::Own(store) => return Ok(store.read(from, limit)?),
            Source::Served(agent, address) => (agent, address),
        };
        let url = format!("http://{address}/admin/v1/log?from={from}");
        let mut body = Vec::new();
        let mut response = agent.get(&url).call().with_context(|| format!("cannot read {url}"))?;
        response.body_mut().as_reader().take(PAGE_BYTES).read_to_end(&mut body)?;
        Ok(read_page(&body)?)
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
