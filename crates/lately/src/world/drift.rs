//! How the world changes by itself: fashions of topics, and tastes that move on.
//!
//! Of a strength of 0 nothing changes, and all else is to the number as it is without this file.

use super::population::{LIKED, Person};
use super::{World, draw, normal, stream};

const DAY_MS: i64 = 86_400_000;
/// What a topic's fashion keeps from one day to the next: after two weeks a quarter.
const KEPT: f64 = 0.9;
/// Days after which what was is forgotten: 0.9^40 is 0.015.
const REACH: i64 = 40;
/// Standard deviation of a topic's fashion at strength 1, logits.
const FASHION: f64 = 0.6;
/// Days for which a topic is liked, at strength 1.
const LIKING_DAYS: f64 = 28.0;

/// What is different on a day.
#[derive(Debug)]
pub(super) struct Mood {
    /// By topic, logits; empty: all as ever.
    pub(super) fashion: Vec<f64>,
    /// The person's taste of the day.
    pub(super) taste: Vec<f64>,
}

impl World {
    pub(super) fn mood(&self, person: &Person, time_ms: i64) -> Mood {
        if self.config.drift <= 0.0 {
            return Mood { fashion: Vec::new(), taste: person.taste.clone() };
        }
        let day = time_ms.div_euclid(DAY_MS);
        Mood { fashion: self.fashion(day), taste: self.taste(person, day) }
    }

    /// A walk that returns to the mean, made from the last days' steps, so that no day needs the one before.
    fn fashion(&self, day: i64) -> Vec<f64> {
        let step = FASHION * self.config.drift * (1.0 - KEPT * KEPT).sqrt();
        let mut fashion = vec![0.0; self.config.topics];
        for back in 0..REACH {
            let mut rng = stream(self.config.seed, 0xfa51, (day - back) as u64);
            fashion.iter_mut().for_each(|topic| *topic += step * KEPT.powi(back as i32) * normal(&mut rng));
        }
        fashion
    }

    /// Each of the liked topics is replaced in its turn.
    fn taste(&self, person: &Person, day: i64) -> Vec<f64> {
        let days = LIKING_DAYS / self.config.drift;
        let topics = self.config.topics;
        let mut taste = vec![0.2 / topics as f64; topics];
        for place in 0..LIKED {
            let turn = ((day as f64 + days * place as f64 / LIKED as f64) / days).floor() as i64;
            let of = person.number * LIKED as u64 + place as u64;
            let mut rng = stream(self.config.seed ^ 0x7a57, 3 + of, turn as u64);
            taste[draw(&mut rng, &person.popular)] += 0.8 / LIKED as f64;
        }
        taste
    }
}
