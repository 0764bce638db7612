//! When requests are sent: a Poisson process, whose times do not depend on any answer.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp};

/// One stretch of time with one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Segment {
    /// Arrivals a second, on average; 0: none.
    pub(crate) rate: f64,
    /// How long.
    pub(crate) time: Duration,
}

/// Arrivals of segments that follow one another, by time since the start of the first.
///
/// A Poisson process has no memory, so it begins anew with every segment.
#[derive(Debug)]
pub(crate) struct Arrivals {
    segments: Vec<Segment>,
    /// Index and start, s, of the segment in work.
    segment: usize,
    start: f64,
    /// Time of the last arrival, or the segment's start, s.
    at: f64,
    random: ChaCha8Rng,
}

impl Arrivals {
    pub(crate) fn new(segments: &[Segment], random: ChaCha8Rng) -> Self {
        Self { segments: segments.to_vec(), segment: 0, start: 0.0, at: 0.0, random }
    }
}

impl Iterator for Arrivals {
    /// The segment's index, and when.
    type Item = (usize, Duration);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Segment { rate, time } = *self.segments.get(self.segment)?;
            let end = self.start + time.as_secs_f64();
            // A rate that is no positive number has no arrivals.
            self.at += Exp::new(rate).map_or(f64::INFINITY, |gaps| gaps.sample(&mut self.random));
            if self.at < end {
                return Some((self.segment, Duration::from_secs_f64(self.at)));
            }
            (self.segment, self.start, self.at) = (self.segment + 1, end, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn arrivals(segments: &[Segment]) -> Vec<(usize, Duration)> {
        Arrivals::new(segments, ChaCha8Rng::seed_from_u64(4)).collect()
    }

    #[test]
    fn gaps_and_counts_have_the_mean_and_variance_of_a_poisson_process() {
        let (rate, seconds) = (200.0, 500);
        let all = arrivals(&[Segment { rate, time: Duration::from_secs(seconds) }]);
        let times: Vec<f64> = all.iter().map(|(_, at)| at.as_secs_f64()).collect();
        let gaps: Vec<f64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        let (mean, variance) = moments(&gaps);
        assert!((mean * rate - 1.0).abs() < 0.015, "mean gap {mean}");
        assert!((variance * rate * rate - 1.0).abs() < 0.05, "variance of the gaps {variance}");
        let mut counts = vec![0.0; seconds as usize];
        times.iter().for_each(|at| counts[*at as usize] += 1.0);
        let (mean, variance) = moments(&counts);
        // The variance over 500 seconds has a standard error of 6 %.
        assert!(
            (mean / rate - 1.0).abs() < 0.015 && (variance / rate - 1.0).abs() < 0.2,
            "{mean} {variance}"
        );
    }

    fn moments(x: &[f64]) -> (f64, f64) {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        (mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (x.len() - 1) as f64)
    }

    #[test]
    fn segments_follow_one_another_each_with_its_rate() {
        let second = |rate| Segment { rate, time: Duration::from_secs(10) };
        let all = arrivals(&[second(10.0), second(0.0), second(1000.0)]);
        assert!(all.is_sorted_by_key(|(_, at)| *at));
        let of = |n| all.iter().filter(move |(segment, _)| *segment == n);
        assert!((60..140).contains(&of(0).count()) && of(1).count() == 0);
        assert!((9_500..10_500).contains(&of(2).count()));
        assert!(of(2).all(|(_, at)| (20.0..30.0).contains(&at.as_secs_f64())));
    }
}
