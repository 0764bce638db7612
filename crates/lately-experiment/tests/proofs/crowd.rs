//! People whose saves are many zeros and a long tail, as they are: each has a pace and a taste of their own, which show in
//! the past as they do in the experiment.

use lately_experiment::Observation;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, Poisson};

/// What people are like.
#[derive(Clone, Copy)]
pub(crate) struct Crowd {
    /// Impressions in the two weeks, mean.
    pub(crate) pace: f64,
    /// Saves an impression, mean.
    taste: f64,
    /// Shape of the gamma distribution of a person's rate of saves: small is a long tail; infinite: all alike.
    shape: f64,
    /// Share of people who never save.
    never: f64,
    /// What the variant adds to saves, relative.
    pub(crate) effect: f64,
    /// Whether people come over days, or all at the start.
    pub(crate) arrive: bool,
}

impl Crowd {
    pub(crate) const SKEWED: Self =
        Self { pace: 40.0, taste: 0.05, shape: 0.7, never: 0.3, effect: 0.0, arrive: true };

    /// All alike, and all there from the start.
    pub(crate) const ALIKE: Self =
        Self { pace: 40.0, taste: 0.05, shape: f64::INFINITY, never: 0.0, effect: 0.0, arrive: false };

    /// The same people with an effect.
    pub(crate) fn with(self, effect: f64) -> Self {
        Self { effect, ..self }
    }

    pub(crate) fn impressions(&self) -> f64 {
        self.pace
    }

    pub(crate) fn saves_per_impression(&self) -> f64 {
        self.taste * (1.0 - self.never)
    }

    /// Saves an impression of one person.
    pub(crate) fn rate(&self, random: &mut ChaCha8Rng) -> f64 {
        if random.random::<f64>() < self.never {
            return 0.0;
        }
        let alike = self.shape.is_infinite();
        self.taste * if alike { 1.0 } else { gamma(self.shape, random) }
    }

    /// One person's saves, per person and per impression.
    pub(crate) fn person(&self, treated: bool, random: &mut ChaCha8Rng) -> (Observation, Observation) {
        let (rate, pace) = (self.rate(random), self.pace * gamma(1.5, random));
        let (per, per_before) = (poisson(pace, random), poisson(pace, random));
        let lifted = if treated { 1.0 + self.effect } else { 1.0 };
        let (of, of_before) = (poisson(rate * lifted * per, random), poisson(rate * per_before, random));
        (Observation::mean(of, of_before), Observation { of, per, of_before, per_before })
    }
}

/// With the mean 1.
fn gamma(shape: f64, random: &mut ChaCha8Rng) -> f64 {
    Gamma::new(shape, 1.0 / shape).map_or(1.0, |gamma| gamma.sample(random))
}

pub(crate) fn poisson(mean: f64, random: &mut ChaCha8Rng) -> f64 {
    Poisson::new(mean).map_or(0.0, |poisson| poisson.sample(random))
}
