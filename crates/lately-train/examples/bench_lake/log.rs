//! The log that is joined.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use lately_features::event::FeatureValues;
use lately_features::{
    Action, Event, EventId, FeatureValue, Impression, ImpressionItem, Item, ItemId, RequestId, Schema, User,
    UserId,
};
use lately_store::{Store, StoreLimits};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Args, Failure};

/// When the day of the requests begins, ms since 1970 UTC.
pub(crate) const START_MS: i64 = 1_700_006_400_000;
const DAY_MS: f64 = 86_400_000.0;
/// Events of one batch.
const BATCH: usize = 1_000;
/// Actions of a user before the day.
const HISTORY: usize = 100;

/// What is to happen at a time.
#[derive(Clone, Copy)]
enum Plan {
    Request,
    /// On a candidate of a request.
    Act(u32, u32, &'static str),
    /// An item changes.
    Change(u32),
}

pub(crate) fn make(path: &Path, schema: &Arc<Schema>, args: &Args) -> Result<(), Failure> {
    let store = Store::open(path, schema.clone(), StoreLimits::default())?;
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut batch = Vec::new();
    let mut put = |event: Option<Event>| -> Result<(), Failure> {
        let full = event.is_none();
        batch.extend(event);
        if full || batch.len() == BATCH {
            store.append(std::mem::take(&mut batch))?;
        }
        Ok(())
    };
    for n in 0..args.items {
        put(Some(item(n, START_MS - 40 * 86_400_000, &mut random)?))?;
    }
    for n in 0..args.users {
        put(Some(user(n, &mut random)?))?;
        for k in 0..HISTORY {
            let (shown, ms) = (popular(args.items, &mut random), START_MS - (HISTORY - k) as i64 * 7_200_000);
            let kind = if k % 7 == 0 { "click" } else { "seen" };
            put(Some(act(&format!("h{n}-{k}"), n, shown, kind, ms, None)?))?;
        }
    }
    let (plans, mut shown) = (plan(args, &mut random), Vec::new());
    for (n, ((ms, _), plan)) in plans.iter().enumerate() {
        put(Some(match plan {
            Plan::Request => {
                shown.push((random.random_range(0..args.users), page(args, &mut random)));
                impression(shown.len() - 1, &shown[shown.len() - 1], START_MS + ms, &mut random)?
            }
            Plan::Act(request, candidate, kind) => {
                let (who, items) = &shown[*request as usize];
                let of = Some(*request as usize);
                act(&format!("e{n}"), *who, items[*candidate as usize], kind, START_MS + ms, of)?
            }
            Plan::Change(n) => item(*n as usize, START_MS + ms, &mut random)?,
        }))?;
    }
    put(None)
}

/// Everything of the day, by time.
fn plan(args: &Args, random: &mut ChaCha8Rng) -> BTreeMap<(i64, u32), Plan> {
    let mut plans = BTreeMap::new();
    let mut add = |ms: f64, plan| {
        plans.insert((ms as i64, plans.len() as u32), plan);
    };
    for n in 0..args.requests {
        let ms = DAY_MS * n as f64 / args.requests as f64;
        add(ms, Plan::Request);
        for k in 0..args.candidates {
            // Seconds to minutes, with a long tail.
            let slow = |random: &mut ChaCha8Rng, mean: f64| -mean * random.random::<f64>().max(1e-6).ln();
            let mut then = |share: f64, mean_ms: f64, kind| {
                if random.random_bool(share) {
                    add(
                        ms + 1.0 + k as f64 * 200.0 + slow(random, mean_ms),
                        Plan::Act(n as u32, k as u32, kind),
                    );
                }
            };
            then(if k < 20 { 1.0 } else { 0.0 }, 2_000.0, "seen");
            then(0.03, 20_000.0, "click");
            then(0.005, 120_000.0, "save");
            then(0.002, 30_000.0, "hide");
        }
    }
    for n in 0..args.items {
        add(DAY_MS * random.random::<f64>(), Plan::Change(n as u32));
    }
    plans
}

/// An item, the first ones more often.
fn popular(items: usize, random: &mut ChaCha8Rng) -> usize {
    (items as f64 * random.random::<f64>().powi(2)) as usize
}

fn page(args: &Args, random: &mut ChaCha8Rng) -> Vec<usize> {
    let (mut page, mut seen) = (Vec::new(), HashSet::new());
    while page.len() < args.candidates.min(args.items) {
        let item = popular(args.items, random);
        if seen.insert(item) {
            page.push(item);
        }
    }
    page
}

fn item_id(n: usize) -> Result<ItemId, Failure> {
    Ok(ItemId::new(format!("item-{n:08}"))?)
}

fn user_id(n: usize) -> Result<UserId, Failure> {
    Ok(UserId::new(format!("user-{n:08}"))?)
}

fn item(n: usize, time_ms: i64, random: &mut ChaCha8Rng) -> Result<Event, Failure> {
    // The vector stays as the item changes, as it does where it is made of its content.
    let mut own = ChaCha8Rng::seed_from_u64(n as u64);
    let vector = (0..32).map(|_| own.random_range(-0.3..0.3f32)).collect();
    let features = FeatureValues::from([
        ("vector".to_owned(), FeatureValue::Vector(vector)),
        ("topic".to_owned(), FeatureValue::Text(format!("t{}", n % 40))),
        ("author".to_owned(), FeatureValue::Text(format!("a{}", n % 700))),
        ("age_days".to_owned(), FeatureValue::Number(f64::from(random.random_range(0..4_000)) / 10.0)),
    ]);
    Ok(Event::Item(Item { item: item_id(n)?, time_ms, features, active: true }))
}

fn user(n: usize, random: &mut ChaCha8Rng) -> Result<Event, Failure> {
    let topics = (0..4).map(|_| format!("t{}", random.random_range(0..40))).collect();
    let features = FeatureValues::from([
        ("country".to_owned(), FeatureValue::Text(format!("c{}", n % 30))),
        (
            "segment".to_owned(),
            FeatureValue::Text(if n.is_multiple_of(3) { "core" } else { "casual" }.to_owned()),
        ),
        ("followed_topics".to_owned(), FeatureValue::Texts(topics)),
    ]);
    Ok(Event::User(User { user: user_id(n)?, time_ms: START_MS - 1, features }))
}

fn request_id(n: usize) -> Result<RequestId, Failure> {
    Ok(RequestId::new(format!(
        "{:032x}",
        (n as u128 + 1) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835 % (1 << 127)
    ))?)
}

fn act(
    event: &str,
    who: usize,
    what: usize,
    kind: &str,
    time_ms: i64,
    request: Option<usize>,
) -> Result<Event, Failure> {
    Ok(Event::Action(Action {
        event_id: EventId::new(event)?,
        user: user_id(who)?,
        item: item_id(what)?,
        action: kind.to_owned(),
        time_ms,
        request: request.map(request_id).transpose()?,
        surface: Some("home".to_owned()),
    }))
}

fn impression(
    n: usize,
    (who, page): &(usize, Vec<usize>),
    time_ms: i64,
    random: &mut ChaCha8Rng,
) -> Result<Event, Failure> {
    let mut shown = |(position, item): (usize, &usize)| {
        let heads = [0.05, 0.01, 0.004].map(|rate: f32| rate * random.random_range(0.1..3.0f32));
        let score = heads[0] + 5.0 * heads[1] - 3.0 * heads[2];
        Ok::<_, Failure>(ImpressionItem {
            item: item_id(*item)?,
            position: position as u16,
            heads: heads.to_vec(),
            score,
        })
    };
    let items = page.iter().enumerate().map(&mut shown).collect::<Result<Vec<_>, _>>()?;
    let outside =
        Impression::outside(request_id(n)?, user_id(*who)?, Some("home".to_owned()), time_ms, items);
    let model = Some("06a0c2f9e3d3f59863eea2355ae402e91d2c45b49d98b9ff8977f3ce59800444".to_owned());
    Ok(Event::Impression(Impression { model, embedding_version: Some(String::new()), ..outside }))
}
