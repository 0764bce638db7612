//! Somebody who looks at an experiment every hour, while people come and go on saving.

use lately_experiment::statistics::{BEST_CLOCK, Looked, cuped, estimate};
use lately_experiment::{Observation, Sums};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1};

use crate::crowd::{Crowd, poisson};

const DAYS: f64 = 14.0;
/// Days over which people come, where they do not come at once.
const ARRIVAL_DAYS: f64 = 10.0;
const PEOPLE: usize = 600;
/// People a variant at the first look: fewer than a report asks for.
const FIRST_LOOK: f64 = 20.0;

/// What was found over two weeks.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) ever_sequential: bool,
    pub(crate) ever_fixed: bool,
    pub(crate) last_fixed: bool,
}

/// A person comes, or saves.
struct Moment {
    at: f64,
    person: usize,
    comes: bool,
}

impl Watched {
    /// A crowd, split in two; with the past taken off or not.
    pub(crate) fn of(crowd: &Crowd, past: bool, random: &mut ChaCha8Rng) -> Self {
        let people: Vec<(usize, f64)> = (0..PEOPLE)
            .map(|_| (usize::from(random.random::<bool>()), crowd.rate(random) * crowd.pace / DAYS))
            .collect();
        let before: Vec<f64> = people.iter().map(|(_, rate)| poisson(rate * DAYS, random)).collect();
        let mut moments: Vec<Moment> = Vec::new();
        for (person, (variant, rate)) in people.iter().enumerate() {
            let came = if crowd.arrive { ARRIVAL_DAYS * random.random::<f64>() } else { 0.0 };
            moments.push(Moment { at: came, person, comes: true });
            let saves = saves(came, rate * (1.0 + crowd.effect * *variant as f64), random);
            moments.extend(saves.into_iter().map(|at| Moment { at, person, comes: false }));
        }
        moments.sort_by(|a, b| a.at.total_cmp(&b.at));
        let (mut sums, mut saved) = ([Sums::default(); 2], vec![0.0; PEOPLE]);
        let mut looked = Looked { alpha: 0.05, start: Some(BEST_CLOCK / DAYS), first: None };
        let (mut found, mut moments) = (Self::default(), moments.into_iter().peekable());
        for hour in 1..=(24.0 * DAYS) as usize {
            while let Some(Moment { person, comes, .. }) = moments.next_if(|m| m.at < hour as f64 / 24.0) {
                let sums = &mut sums[people[person].0];
                if !comes {
                    sums.remove(&Observation::mean(saved[person], before[person]));
                    saved[person] += 1.0;
                }
                sums.add(&Observation::mean(saved[person], before[person]));
            }
            if sums.iter().all(|s| s.people() >= FIRST_LOOK) {
                found.look(&sums, past, &mut looked);
            }
        }
        found
    }

    fn look(&mut self, sums: &[Sums; 2], past: bool, looked: &mut Looked) {
        let of = if past {
            cuped(&sums[0], &sums[1], looked).map(|c| c.0)
        } else {
            estimate(&sums[0], &sums[1], looked)
        };
        let Some(of) = of else { return };
        looked.first = of.anchor;
        self.last_fixed = of.difference.p < 0.05;
        self.ever_fixed |= self.last_fixed;
        self.ever_sequential |= of.difference.sequential.is_some_and(|s| s.p < 0.05);
    }
}

/// When somebody saves, in days.
fn saves(came: f64, rate: f64, random: &mut ChaCha8Rng) -> Vec<f64> {
    if rate <= 0.0 {
        return Vec::new();
    }
    let times = Exp1.sample_iter(random).scan(came, |at, gap: f64| {
        *at += gap / rate;
        Some(*at)
    });
    times.take_while(|at| *at < DAYS).collect()
}
