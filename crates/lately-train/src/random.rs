//! The random numbers of training and evaluation: SplitMix64, written out here because the same seed must give the
//! same model with every version of every dependency (the `rand` crate keeps no such promise for its algorithms).

/// Constant of SplitMix64 (Steele, Lea, Flood 2014): the golden ratio in 64 bits.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream that belongs to `seed` and `words`: any change in one of them gives an unrelated stream. A draw
    /// that is named by its place (epoch, request) needs no state, so a resumed run draws the same.
    pub(crate) fn of(seed: u64, words: &[u64]) -> Self {
        Self(words.iter().fold(mix(seed), |state, word| mix(state.wrapping_add(STEP) ^ mix(*word))))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// Uniform in [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in 0..n; the bias of the multiplication is below n / 2^64.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Standard normal (Box-Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Fisher-Yates.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_apart_and_uniform() {
        assert_eq!(Random(0).next(), 0xE220_A839_7B1D_CDAF, "the published first value for seed 0");
        assert_ne!(Random::of(1, &[2]).next(), Random::of(2, &[1]).next());
        assert_ne!(Random::of(1, &[0]).next(), Random::of(1, &[0, 0]).next());
        let mut r = Random::of(7, &[]);
        let (mut sum, mut square) = (0.0, 0.0);
        for _ in 0..10_000 {
            let x = r.normal();
            (sum, square) = (sum + x, square + x * x);
        }
        assert!((sum / 1e4).abs() < 0.05 && (square / 1e4 - 1.0).abs() < 0.06);
        let mut list: Vec<usize> = (0..100).collect();
        r.shuffle(&mut list);
        assert_ne!(list, (0..100).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..100).collect::<Vec<_>>());
    }
}
