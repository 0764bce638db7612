//! The exploration that is logged: a share of the lists has its first places shuffled.

/// With probability `share` the first `places` places are a uniform random permutation of the items that would stand
/// there; else, and below them, the order is the policy's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exploration {
    /// Probability of a shuffle, 0 to 1.
    pub share: f64,
    /// Places that are shuffled.
    pub places: usize,
}

impl Exploration {
    /// Probability that an item stands at a place from 0; `own` is whether the policy's own order has it there. Of an item
    /// among the first places: (1 - share) \[own\] + share / places.
    pub fn propensity(&self, place: usize, own: bool) -> f64 {
        let certain = f64::from(u8::from(own));
        if place < self.places {
            (1.0 - self.share) * certain + self.share / self.places as f64
        } else {
            certain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_an_item_are_certain_together() {
        let exploration = Exploration { share: 0.2, places: 5 };
        let of_an_item: f64 = (0..5).map(|place| exploration.propensity(place, place == 3)).sum();
        assert!((of_an_item - 1.0).abs() < 1e-12);
        assert!((exploration.propensity(3, true) - 0.84).abs() < 1e-12);
        assert_eq!((exploration.propensity(5, true), exploration.propensity(5, false)), (1.0, 0.0));
    }
}
