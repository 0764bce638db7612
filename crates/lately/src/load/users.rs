//! Who asks: users by a Zipf distribution, with histories of real lengths.

use std::str::FromStr;

use anyhow::{Result, ensure};
use rand::Rng;
use rand_distr::{Distribution, LogNormal, Zipf};
use serde::Serialize;

/// Of a log-normal distribution that is capped at 100 tokens: the mean is then 46, as over the rows of KuaiRand.
const MEDIAN_TOKENS: f64 = 36.0;
const SIGMA: f64 = 1.0;

/// How long users' histories are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// Log-normal, with a median of 36 actions and sigma 1, at most as many as the schema's sequence has tokens.
    LogNormal,
    /// All alike.
    Fixed(usize),
}

impl FromStr for History {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "log-normal" => Ok(Self::LogNormal),
            number => number
                .parse()
                .map(Self::Fixed)
                .map_err(|_| format!("`{text}` is no length: write log-normal, or a number of actions")),
        }
    }
}

impl History {
    /// The length of one user's history, at most `cap`.
    pub(crate) fn sample(self, cap: usize, random: &mut impl Rng) -> usize {
        let length = match self {
            Self::Fixed(length) => length,
            Self::LogNormal => LogNormal::new(MEDIAN_TOKENS.ln(), SIGMA)
                .map_or(0, |lengths| lengths.sample(random).round() as usize),
        };
        length.min(cap)
    }
}

/// Places of users, the most active first, drawn in proportion to 1 / (place + 1)^exponent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Users(Zipf<f64>);

impl Users {
    pub(crate) fn new(users: usize, exponent: f64) -> Result<Self> {
        ensure!(users > 0, "there are no users to ask for");
        ensure!(
            (0.0..=10.0).contains(&exponent),
            "the exponent of Zipf's law is {exponent}: it must be from 0 (all alike) to 10"
        );
        Ok(Self(Zipf::new(users as f64, exponent)?))
    }

    pub(crate) fn sample(&self, random: &mut impl Rng) -> usize {
        // It gives 1 to `users`, whole.
        self.0.sample(random) as usize - 1
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn users_come_as_often_as_zipfs_law_says() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for exponent in [0.0, 0.7, 1.0, 1.5] {
            let users = Users::new(50, exponent).unwrap();
            let mut counts = [0.0; 50];
            let draws = 200_000;
            (0..draws).for_each(|_| counts[users.sample(&mut random)] += 1.0);
            let weight = |place: usize| ((place + 1) as f64).powf(-exponent);
            let sum: f64 = (0..50).map(weight).sum();
            for (place, count) in counts.iter().enumerate() {
                let expected = f64::from(draws) * weight(place) / sum;
                assert!(
                    (count - expected).abs() < 5.0 * expected.sqrt(),
                    "{exponent} {place}: {count} of {expected}"
                );
            }
        }
        assert_eq!(Users::new(1, 1.0).unwrap().sample(&mut random), 0);
        assert!(
            Users::new(0, 1.0).is_err() && Users::new(5, -1.0).is_err() && Users::new(5, f64::NAN).is_err()
        );
    }

    #[test]
    fn histories_have_the_lengths_that_were_asked_for() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        assert_eq!("46".parse(), Ok(History::Fixed(46)));
        assert_eq!("log-normal".parse(), Ok(History::LogNormal));
        assert!("long".parse::<History>().unwrap_err().contains("log-normal, or a number"));
        assert_eq!([0, 46, 300].map(|n| History::Fixed(n).sample(256, &mut random)), [0, 46, 256]);

        let mut lengths: Vec<usize> =
            (0..20_000).map(|_| History::LogNormal.sample(100, &mut random)).collect();
        lengths.sort_unstable();
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
        assert!((45.0..47.5).contains(&mean), "{mean}");
        assert!((35..=37).contains(&lengths[10_000]), "median {}", lengths[10_000]);
        let full = lengths.iter().filter(|n| **n == 100).count() as f64 / 20_000.0;
        assert!((0.14..0.17).contains(&full), "{full} have all 100: 15 % of a log-normal lie above");
    }
}
