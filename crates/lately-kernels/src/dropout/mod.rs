//! Dropout whose mask is a function of (seed, position): the same call forward and backward, nothing stored.

pub mod scalar;

use crate::Real;
use crate::simd::wide;

/// Which elements are dropped. The default drops none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Dropout {
    /// Stream of masks; give every place in the model its own.
    pub seed: u64,
    /// Share of dropped elements, 0 to below 1.
    pub rate: f32,
}

impl Dropout {
    /// The mask of another place of the same step.
    #[must_use]
    pub fn at(self, place: u64) -> Self {
        Self { seed: mix64(self.seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15)), rate: self.rate }
    }
    /// Whether nothing is dropped.
    pub fn is_off(self) -> bool {
        self.rate <= 0.0
    }
    /// 0 for a dropped element, else 1 / (1 - rate): 1 where nothing is dropped.
    #[inline(always)]
    pub fn factor<R: Real>(self, index: u32) -> R {
        let threshold = (self.rate * 4_294_967_296.0) as u32;
        let kept = R::from_f32(1.0 / (1.0 - self.rate));
        if mix32(index ^ self.seed as u32).wrapping_add((self.seed >> 32) as u32) < threshold {
            R::ZERO
        } else {
            kept
        }
    }
}

/// A 32-bit mixer (public-domain constants of the "lowbias32" search): two multiplies, vectorises.
#[inline(always)]
fn mix32(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

fn mix64(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// `x[i] *= factor(start + i)`: forward on activations, backward on their gradients.
pub fn apply<R: Real>(dropout: Dropout, start: u32, x: &mut [R]) {
    if dropout.is_off() {
        return;
    }
    wide(
        #[inline(always)]
        || {
            for (i, x) in x.iter_mut().enumerate() {
                *x *= dropout.factor(start.wrapping_add(i as u32));
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_the_named_share_the_same_way_each_time() {
        let d = Dropout { seed: 7, rate: 0.1 }.at(3);
        let mut x = vec![1f32; 100_000];
        apply(d, 0, &mut x);
        let dropped = x.iter().filter(|x| **x == 0.0).count();
        assert!((9_600..10_400).contains(&dropped), "{dropped}");
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        let mut again = vec![1f32; 1_000];
        scalar::apply(d, 0, &mut again);
        assert_eq!(x[..1_000], again);
        let mut other = vec![1f32; 1_000];
        apply(d.at(4), 0, &mut other);
        assert_ne!(other, again);
    }
}
