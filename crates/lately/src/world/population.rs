//! The people.

use lately_features::event::{FeatureValues, User};
use lately_features::{Event, FeatureValue, UserId};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::catalogue::TOPICS;
use super::{WorldConfig, WorldError, draw, normal, stream};

const COUNTRIES: [&str; 6] = ["BR", "DE", "IN", "JP", "KE", "US"];
/// Share of core users.
const CORE: f64 = 0.3;
/// Topics that a person likes for long.
pub(super) const LIKED: usize = 4;

/// When somebody who is not core is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// All the time.
    Always,
    /// Not before the end of the world's past.
    New,
    /// At the past's beginning, and again after its end.
    Resurrected,
}

/// One person, as they are for long.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) id: UserId,
    pub(super) number: u64,
    pub(super) core: bool,
    pub(super) arrival: Arrival,
    pub(super) visits_per_day: f64,
    /// Chance that a want lies outside the lasting tastes.
    pub(super) stray: f64,
    /// Taste for each topic, 0 to 1; sums to 1.
    pub(super) taste: Vec<f64>,
    /// Weights by which topics come to be liked.
    pub(super) popular: Vec<f64>,
    /// A topic that they would rather not see.
    pub(super) disliked: usize,
    /// How readily they act at all, in logits.
    pub(super) readiness: f64,
    country: &'static str,
    followed: Vec<usize>,
}

impl Person {
    pub(super) fn event(&self, time_ms: i64) -> Event {
        let segment = if self.core { "core" } else { "casual" };
        let followed = self.followed.iter().map(|t| TOPICS[*t].to_owned()).collect();
        let features = FeatureValues::from([
            ("country".to_owned(), FeatureValue::Text(self.country.to_owned())),
            ("segment".to_owned(), FeatureValue::Text(segment.to_owned())),
            ("followed_topics".to_owned(), FeatureValue::Texts(followed)),
        ]);
        Event::User(User { user: self.id.clone(), time_ms, features })
    }
}

pub(super) fn make(config: &WorldConfig) -> Result<Vec<Person>, WorldError> {
    (0..config.users).map(|i| person(i as u64, config, &mut stream(config.seed, 2, i as u64))).collect()
}

/// From a stream of its own, so that a world without such people is the same to the number.
fn arrival(number: u64, config: &WorldConfig, core: bool) -> Arrival {
    let draw = stream(config.seed, 0xa441, number).random::<f64>();
    match draw {
        _ if core => Arrival::Always,
        draw if draw < config.newcomers => Arrival::New,
        draw if draw < config.newcomers + config.returners => Arrival::Resurrected,
        _ => Arrival::Always,
    }
}

fn person(number: u64, config: &WorldConfig, rng: &mut ChaCha8Rng) -> Result<Person, WorldError> {
    let core = rng.random_bool(CORE);
    let visits_per_day = if core { 3.0 } else { 0.5 } * rng.random_range(0.6..1.4);
    // Topics are liked the more, the earlier they come in the list: that gives popularity something to know.
    let popular: Vec<f64> = (0..config.topics).map(|t| 1.0 / (1.0 + t as f64 / 6.0)).collect();
    let mut taste = vec![0.2 / config.topics as f64; config.topics];
    for _ in 0..LIKED {
        taste[draw(rng, &popular)] += 0.2;
    }
    let disliked = (0..config.topics).min_by(|a, b| taste[*a].total_cmp(&taste[*b]).then_with(|| b.cmp(a)));
    let mut followed: Vec<usize> = (0..config.topics).filter(|t| taste[*t] > 0.1).collect();
    // Not all that is liked is followed.
    followed.retain(|_| rng.random_bool(0.6));
    Ok(Person {
        id: UserId::new(format!("user-{number:04}"))?,
        number,
        core,
        arrival: arrival(number, config, core),
        visits_per_day,
        stray: if core { config.core_stray } else { config.casual_stray },
        taste,
        popular,
        disliked: disliked.unwrap_or(0),
        readiness: 0.3 * normal(rng),
        country: COUNTRIES[rng.random_range(0..COUNTRIES.len())],
        followed,
    })
}
