//! The things that can be shown.

use lately_features::event::{FeatureValues, Item};
use lately_features::{Event, FeatureValue, ItemId};
use rand::RngExt;

use super::{WorldConfig, WorldError, normal, stream};

pub(super) const TOPICS: [&str; 24] = [
    "astronomy",
    "baking",
    "birds",
    "camping",
    "ceramics",
    "chess",
    "cinema",
    "coffee",
    "cycling",
    "dance",
    "drawing",
    "fashion",
    "football",
    "gardening",
    "history",
    "jazz",
    "knitting",
    "maps",
    "photography",
    "robots",
    "sailing",
    "travel",
    "woodwork",
    "yoga",
];

/// Length of an item's vector.
const DIM: usize = 32;
/// Length of the noise of a vector, next to a topic's centroid of length 1.
const NOISE: f64 = 0.6;
/// Things of one author.
const PER_AUTHOR: usize = 8;

/// One thing that can be shown.
#[derive(Debug)]
pub(super) struct Thing {
    pub(super) id: ItemId,
    pub(super) topic: usize,
    /// How good it is in itself, in logits; hidden.
    pub(super) quality: f64,
    author: usize,
    age_days: u32,
    vector: Vec<f32>,
}

impl Thing {
    pub(super) fn event(&self, time_ms: i64) -> Event {
        let text = |t: String| FeatureValue::Text(t);
        let features = FeatureValues::from([
            ("vector".to_owned(), FeatureValue::Vector(self.vector.clone())),
            ("topic".to_owned(), text(TOPICS[self.topic].to_owned())),
            ("author".to_owned(), text(format!("author-{}", self.author))),
            ("age_days".to_owned(), FeatureValue::Number(f64::from(self.age_days))),
        ]);
        Event::Item(Item { item: self.id.clone(), time_ms, features, active: true })
    }
}

/// Things go round the topics, so that each has as many; an author writes on one topic.
pub(super) fn make(config: &WorldConfig) -> Result<Vec<Thing>, WorldError> {
    let mut rng = stream(config.seed, 1, 0);
    let centroids: Vec<Vec<f64>> = (0..config.topics).map(|_| direction(&mut rng, 1.0)).collect();
    let authors = config.items / PER_AUTHOR + config.topics;
    let merits: Vec<f64> = (0..authors).map(|_| 0.25 * normal(&mut rng)).collect();
    let mut make_one = |i: usize| {
        let (topic, number) = (i % config.topics, i / config.topics);
        let author = (number / PER_AUTHOR) * config.topics + topic;
        let noise = direction(&mut rng, NOISE);
        let vector = centroids[topic].iter().zip(noise).map(|(c, n)| (c + n) as f32).collect();
        let quality = merits[author % authors] + 0.35 * normal(&mut rng);
        let age_days = rng.random_range(0..60);
        let id = ItemId::new(format!("{}-{number:03}", TOPICS[topic]))?;
        Ok(Thing { id, topic, quality, author, age_days, vector })
    };
    (0..config.items).map(&mut make_one).collect()
}

/// A random vector of about the given length.
fn direction(rng: &mut rand_chacha::ChaCha8Rng, length: f64) -> Vec<f64> {
    let scale = length / (DIM as f64).sqrt();
    (0..DIM).map(|_| scale * normal(rng)).collect()
}
