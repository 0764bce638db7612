//! A made data directory: random items, users with histories, and models with random weights.

use anyhow::{Context, Result};
use lately_features::event::FeatureValues;
use lately_features::schema::FeatureKind;
use lately_features::{Action, Event, EventId, FeatureValue, Item, ItemId, Schema, User, UserId};
use lately_model::{Manifest, Model, checkpoint};
use lately_store::{Registry, Store, Version};
use lately_train::publish::{CHAMPION, publish};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::users::History;
use super::workload::{Names, PROBE};
use crate::data_dir::DataDir;
use crate::learn::champion;
use crate::wire_up::now_ms;

/// Events that are appended at once.
const BATCH: usize = 2_000;
/// Different values of a categorical feature, at most.
const VALUES: u32 = 1_000;
/// Between two actions of a history, ms.
const PAUSE_MS: i64 = 60_000;
/// Seeds of the two models.
const SEEDS: [u64; 2] = [1, 2];

/// Fills the store of an empty data directory with the named users and items.
pub(crate) fn fill(dir: &DataDir, names: &Names, history: History, random: &mut ChaCha8Rng) -> Result<()> {
    let store = dir.store()?;
    let (schema, now) = (&dir.schema, now_ms());
    let mut events = names.items.iter().map(|item| item_event(item, schema, now, random)).collect::<Vec<_>>();
    events.extend(names.users.iter().map(|user| user_event(user, schema, now, random)));
    append(&store, events)?;
    let cap = match history {
        History::LogNormal => schema.sequence.length,
        History::Fixed(_) => schema.sequence.stored,
    };
    for users in names.users.chunks(BATCH / 20) {
        let mut events = Vec::new();
        for user in users {
            let length = history.sample(cap.into(), random);
            events.extend(actions(user, length, &names.items, schema, now, random)?);
        }
        append(&store, events)?;
    }
    Ok(())
}

/// Gives the probe a whole sequence.
pub(crate) fn add_probe(dir: &DataDir, items: &[ItemId], random: &mut ChaCha8Rng) -> Result<()> {
    let length = dir.schema.sequence.length.into();
    let end = now_ms() - PROBE_AGE_MS;
    let history = actions(&UserId::new(PROBE)?, length, items, &dir.schema, end, random)?;
    append(&dir.store()?, history)
}

fn append(store: &Store, events: Vec<Event>) -> Result<()> {
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        let batch = events.by_ref().take(BATCH).collect();
        store.append(batch).context("cannot write the made data")?;
    }
    Ok(())
}

/// Age of the newest action of the probe, ms: its scores must not change while models are swapped, and the affinity inputs tell
/// actions of the last hour from older ones.
const PROBE_AGE_MS: i64 = 2 * 3_600_000;

fn item_event(item: &ItemId, schema: &Schema, time_ms: i64, random: &mut impl Rng) -> Event {
    let features = features(&schema.item_features, random);
    Event::Item(Item { item: item.clone(), time_ms, features, active: true })
}

fn user_event(user: &UserId, schema: &Schema, time_ms: i64, random: &mut impl Rng) -> Event {
    Event::User(User { user: user.clone(), time_ms, features: features(&schema.user_features, random) })
}

/// A value of every feature: embeddings of length 1, all values that a categorical one may have.
pub(crate) fn features(kinds: &[FeatureKind], random: &mut impl Rng) -> FeatureValues {
    let mut value = |kind: &FeatureKind| match kind {
        FeatureKind::Categorical { buckets, max_values, .. } => {
            let mut text = || format!("v{}", random.random_range(0..VALUES.min(*buckets)));
            FeatureValue::Texts((0..*max_values).map(|_| text()).collect())
        }
        FeatureKind::Numeric { .. } => FeatureValue::Number(StandardNormal.sample(random)),
        FeatureKind::Embedding { dim, .. } => FeatureValue::Vector(unit(usize::from(*dim), random)),
    };
    kinds.iter().map(|kind| (kind.name().to_owned(), value(kind))).collect()
}

fn unit(dim: usize, random: &mut impl Rng) -> Vec<f32> {
    let vector: Vec<f32> = (0..dim).map(|_| StandardNormal.sample(random)).collect();
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter().map(|x| x / norm).collect()
}

/// Actions of one user that end at `now`, a token each: types that feed the sequence, without a request.
fn actions(
    user: &UserId,
    length: usize,
    items: &[ItemId],
    schema: &Schema,
    now: i64,
    random: &mut impl Rng,
) -> Result<Vec<Event>> {
    let types: Vec<&str> = schema.actions.iter().filter(|a| a.sequence).map(|a| a.name.as_str()).collect();
    if types.is_empty() || items.is_empty() {
        return Ok(Vec::new());
    }
    let one = |n: usize| {
        Ok(Event::Action(Action {
            event_id: EventId::new(format!("h{n}"))?,
            user: user.clone(),
            item: items[random.random_range(0..items.len())].clone(),
            action: types[random.random_range(0..types.len())].to_owned(),
            time_ms: now - (length - n) as i64 * PAUSE_MS,
            request: None,
            surface: None,
        }))
    };
    (0..length).map(one).collect()
}

/// Sees to it that there is a champion, and another model of the same kind; returns both.
pub(crate) fn two_models(dir: &DataDir) -> Result<[Version; 2]> {
    let (registry, first) = (dir.registry()?, a_champion(dir)?);
    let (_, manifest) = checkpoint::from_bytes(&registry.load(&first)?)?;
    let second = random_model(dir, &registry, manifest.embedding_version, SEEDS[1], None)?;
    Ok([first, second])
}

/// Sees to it that there is a champion: one with random weights where there is none.
pub(crate) fn a_champion(dir: &DataDir) -> Result<Version> {
    let registry = dir.registry()?;
    if let Some(version) = champion(&registry)? {
        return Ok(version);
    }
    let table = dir.served_embedding(&registry)?;
    let vectors = table.map(|t| t.vectors.version().to_owned()).unwrap_or_default();
    random_model(dir, &registry, vectors, SEEDS[0], Some(CHAMPION))
}

fn random_model(
    dir: &DataDir,
    registry: &Registry,
    embedding_version: String,
    seed: u64,
    alias: Option<&str>,
) -> Result<Version> {
    let model = Model::new(dir.config.model.clone(), &dir.schema, seed)?;
    let manifest = Manifest { embedding_version, ..Manifest::new(&model, &dir.schema, seed) };
    Ok(publish(registry, &model, &manifest, alias)?)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::load::preset::Preset;
    use crate::load::workload::made_names;

    #[test]
    fn a_made_directory_holds_its_users_items_histories_and_two_models() {
        let there = tempfile::tempdir().unwrap();
        let dir = DataDir::create(there.path(), &Preset::Nano.toml(&[]).unwrap()).unwrap();
        let (names, mut random) = (made_names(7, 30).unwrap(), ChaCha8Rng::seed_from_u64(1));
        fill(&dir, &names, History::Fixed(12), &mut random).unwrap();
        add_probe(&dir, &names.items, &mut random).unwrap();
        let [first, second] = two_models(&dir).unwrap();
        assert_ne!(first, second);
        assert_eq!(champion(&dir.registry().unwrap()).unwrap(), Some(first.clone()));
        assert_eq!(two_models(&dir).unwrap(), [first, second], "made once");

        let known = Names::of_log(&dir).unwrap();
        assert_eq!((known.users.len(), known.items.len()), (7, 30), "the probe is nobody");
        let store = dir.store().unwrap();
        for user in &names.users {
            assert_eq!(store.sequence(user).unwrap().entries().len(), 12);
            assert!(store.user(user).is_some());
        }
        assert_eq!(store.sequence(&UserId::new(PROBE).unwrap()).unwrap().entries().len(), 20);
        let vector = &store.item(&names.items[3]).unwrap().embedding;
        assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5, "{vector:?}");
    }
}
