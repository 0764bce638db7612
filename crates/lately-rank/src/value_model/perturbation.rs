//! Small changes of the weights, to learn what each is worth: a person's weight of a head is multiplied by 1 + spread or
//! 1 - spread, by a coin that their id decides. The difference of an outcome between the two sides of a head's coin, over
//! 2 x spread, is the outcome's slope in the logarithm of that weight; the coins of the heads are independent, so one
//! population gives all slopes (simultaneous perturbation, Spall 1992).

use lately_features::UserId;
use serde::{Deserialize, Serialize};

use crate::draw;
use crate::error::RankConfigError;

/// Largest spread: beyond it is no small change.
const MAX_SPREAD: f32 = 0.5;

/// `[rank.value_model.perturbation]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerturbationConfig {
    /// By what part weights differ, 0 to 0.5. Default 0: not at all.
    pub spread: f32,
    /// Share of the people whose weights differ, 0 to 1. Default 1.
    pub share: f64,
    /// Another salt, other coins. Default empty.
    pub salt: String,
}

impl Default for PerturbationConfig {
    fn default() -> Self {
        Self { spread: 0.0, share: 1.0, salt: String::new() }
    }
}

impl PerturbationConfig {
    pub(super) fn check(&self) -> Result<(), RankConfigError> {
        if !(0.0..=1.0).contains(&self.share) {
            let name = "value_model.perturbation.share";
            return Err(RankConfigError::Share { name, share: self.share, most: 1.0 });
        }
        if !(0.0..=MAX_SPREAD).contains(&self.spread) {
            let (name, share) = ("value_model.perturbation.spread", f64::from(self.spread));
            return Err(RankConfigError::Share { name, share, most: f64::from(MAX_SPREAD) });
        }
        Ok(())
    }
}

/// The side of a person's coin for a head: 1 or -1; 0 where their weights are as configured. It depends on nothing
/// else, so that a report can make it again.
pub fn perturbation(config: &PerturbationConfig, user: &UserId, head: &str) -> i8 {
    if config.spread == 0.0 || draw::perturbed(user, &config.salt) >= config.share {
        return 0;
    }
    if draw::coin(user, &config.salt, head) { 1 } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coins_are_even_independent_sticky_and_salted() {
        let config = PerturbationConfig { spread: 0.05, share: 0.5, salt: "a".into() };
        let other = PerturbationConfig { salt: "b".into(), ..config.clone() };
        let (mut in_it, mut sum, mut product, mut across) = (0.0f64, 0.0, 0.0, 0.0);
        for i in 0..20_000 {
            let user = UserId::new(format!("u{i}")).unwrap();
            let (save, hide) = (perturbation(&config, &user, "save"), perturbation(&config, &user, "hide"));
            assert_eq!(save, perturbation(&config, &user, "save"));
            assert_eq!(save == 0, hide == 0, "a person is in it with all heads");
            in_it += f64::from(save.abs());
            sum += f64::from(save);
            product += f64::from(save * hide);
            across += f64::from(save * perturbation(&other, &user, "save"));
        }
        // Six standard deviations of 10,000 coins.
        assert!((in_it - 10_000.0).abs() < 600.0, "{in_it}");
        assert!(
            sum.abs() < 600.0 && product.abs() < 600.0 && across.abs() < 600.0,
            "{sum} {product} {across}"
        );
    }
}
