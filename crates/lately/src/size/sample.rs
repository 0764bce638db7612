//! One request of a geometry, served for real, and the bytes of all that belongs to it.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use lately_features::{Event, Features, ItemId, UserId, codec};
use lately_rank::RankDevice;
use lately_store::Store;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::Value;

use crate::data_dir::DataDir;
use crate::load::made;
use crate::load::users::History;
use crate::load::workload::{Names, Workload};
use crate::wire_up::Server;

/// Keys of the store besides ids, bytes: the offset of a log record; what follows the user in the key of a sequence
/// entry and in that of an index entry, whose value is an offset. See the table in `lately-store/src/lib.rs`.
const OFFSET: usize = size_of::<u64>();
const SEQUENCE_KEY: usize = 1 + 2 * size_of::<u64>();
const INDEX_KEY: usize = 1 + 1 + size_of::<u64>();

/// Bytes of one of each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// JSON of a ranking: request and answer.
    pub(crate) request: usize,
    pub(crate) answer: usize,
    /// JSON of one action: request and answer.
    pub(crate) action_request: usize,
    pub(crate) action_answer: usize,
    /// Actions of a whole sequence, and the sequence in memory.
    pub(crate) entries: usize,
    pub(crate) sequence_memory: usize,
    /// Features in memory.
    pub(crate) user_memory: usize,
    pub(crate) item_memory: usize,
    pub(crate) disk: Disk,
}

/// On disk: keys and values, before compression.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Disk {
    /// What a ranking and an action leave in the log, with its index.
    pub(crate) impression: usize,
    pub(crate) action: usize,
    /// What an action adds to the user's sequence.
    pub(crate) entry: usize,
    /// Features, as log record and as view.
    pub(crate) user: usize,
    pub(crate) item: usize,
}

/// Makes a directory with the given `lately.toml` and a few users and items whose ids have `id_bytes` bytes, serves it,
/// ranks `candidates` for one user and takes one action.
pub(crate) fn take(toml: &str, candidates: usize, id_bytes: usize) -> Result<Sample> {
    let there = tempfile::Builder::new().prefix("lately-size-").tempdir()?;
    let mut dir = DataDir::create(there.path(), toml)?;
    // It is bytes that are sampled, not speed.
    dir.config.rank.device = RankDevice::Cpu;
    let id = |n: usize| format!("{n:0>id_bytes$}");
    let names = Names {
        users: vec![UserId::new(id(1))?],
        items: (0..candidates).map(|n| Ok(ItemId::new(id(n))?)).collect::<Result<_>>()?,
    };
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let stored = usize::from(dir.schema.sequence.stored);
    made::fill(&dir, &names, History::Fixed(stored), &mut random)?;
    made::a_champion(&dir)?;
    // A slow machine must not turn the answer into one without scores.
    let patient = Some(dir.config.rank.max_deadline_ms);
    let workload = Workload::new(&names, &dir.schema, 1.0, candidates, patient)?;

    let server = Server::start(&dir, "127.0.0.1:0", "127.0.0.1:0", None)?;
    let (ranking, action) = (workload.ranking(&mut random), workload.action(1, &mut random));
    let answer = post(&server, "/v1/rank", &ranking)?;
    let answered: Value = serde_json::from_str(&answer)?;
    ensure!(
        answered["degraded"] == Value::Array(Vec::new()),
        "the sample was degraded: {}",
        answered["degraded"]
    );
    server.flush_impressions();
    let cached = server.store.stats()?;
    ensure!(cached.cached_users > 0, "the sample's sequence is not in memory");
    let action_answer = post(&server, "/v1/events", &action)?;
    let memory = |f: Option<Arc<Features>>| f.map_or(0, |f| of_features(&f) + id_bytes);
    let sample = Sample {
        request: ranking.len(),
        answer: answer.len(),
        action_request: action.len(),
        action_answer: action_answer.len(),
        entries: stored,
        sequence_memory: cached.cached_bytes as usize / cached.cached_users,
        user_memory: memory(server.store.user(&names.users[0])),
        item_memory: memory(server.store.item(&names.items[0])),
        disk: on_disk(&server.store, &names.users[0])?,
    };
    server.stop()?;
    Ok(sample)
}

fn post(server: &Server, path: &str, body: &str) -> Result<String> {
    let request =
        ureq::post(format!("http://{}{path}", server.address)).header("content-type", "application/json");
    let mut answer = request.send(body).with_context(|| format!("the sample's {path}"))?;
    Ok(answer.body_mut().read_to_string()?)
}

/// Bytes on disk, by the store's own encoding of what is there.
fn on_disk(store: &Store, user: &UserId) -> Result<Disk> {
    let id = user.as_str().len();
    let (log, index) = (|bytes: usize| OFFSET + bytes, id + INDEX_KEY + OFFSET);
    let mut disk = Disk::default();
    for (_, event) in store.read(0, usize::MAX)? {
        let bytes = codec::encode(&event)?.len();
        match &event {
            Event::Impression(_) => disk.impression = log(bytes) + index,
            Event::Action(_) => disk.action = log(bytes) + index,
            Event::User(_) => disk.user = log(bytes) + index + id + bytes,
            Event::Item(item) => disk.item = log(bytes) + item.item.as_str().len() + bytes,
            Event::Forget(_) => {}
        }
    }
    ensure!(disk.impression > 0 && disk.action > 0, "the sample is not in the log");
    let sequence = store.sequence(user)?;
    let newest = sequence.entries().first().context("the sample's sequence is empty")?;
    disk.entry = id + SEQUENCE_KEY + codec::encode(newest)?.len();
    Ok(disk)
}

/// Memory of encoded features, with the reference count that they are shared by.
fn of_features(f: &Features) -> usize {
    size_of::<Features>()
        + 2 * size_of::<usize>()
        + size_of_val(&*f.categorical)
        + size_of_val(&*f.numeric)
        + size_of_val(&*f.embedding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Preset;

    #[test]
    fn bytes_are_those_of_what_was_served() {
        let toml = Preset::Nano.toml(&[]).unwrap();
        let small = take(&toml, 10, 12).unwrap();
        let large = take(&toml, 20, 12).unwrap();
        let longer = take(&toml, 10, 30).unwrap();
        // A candidate is its id, quotes and a comma.
        assert_eq!(large.request - small.request, 10 * 15);
        assert_eq!(longer.request - small.request, 18 * 11, "ten items and a user");
        // Each shown item has its id, position, score and three probabilities.
        assert!(large.disk.impression - small.disk.impression > 10 * (12 + 4 * 4), "{small:?} {large:?}");
        assert!(large.answer > small.answer + 10 * 12);
        assert!(small.disk.item.abs_diff(large.disk.item) < 32, "but for the lengths of random values");
        assert!(longer.disk.entry > small.disk.entry && small.disk.entry > 12 + SEQUENCE_KEY);
        // 8-wide vectors and 4 topics as log record and view; a sequence of 40 actions.
        assert!(small.disk.item > 2 * 4 * 8 && small.item_memory > 4 * (8 + 4 + 1));
        assert_eq!(small.entries, 40);
        assert!(small.sequence_memory > 40 * size_of::<lately_features::SequenceEntry>());
        assert!(small.user_memory > 0 && small.disk.user > 0 && small.action_answer > 0, "{small:?}");
    }
}
