//! What to expect before an experiment: people, days, the smallest effect that it will find.
//!
//! n people in all find a difference d with the wished power where d = (z(1 - alpha/2) + z(power)) sigma sqrt(1/n_c + 1/n_v).
//! With the sequential interval its boundary stands in place of z(1 - alpha/2): the days are then those after which it
//! excludes 0 with that power, and often enough it does before.

use super::quantile::normal;
use super::sequential::{BEST_CLOCK, boundary};

/// Days after which a plan is given up.
const MOST_DAYS: u32 = 3_650;

/// Standard errors from 0 to an effect that is found with the wished power at one look.
pub(crate) fn needed(alpha: f64, power: f64) -> f64 {
    normal(1.0 - alpha / 2.0) + normal(power)
}

/// What is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// The metric's mean, of a person in the control.
    pub mean: f64,
    /// Its variance between people (of a ratio: of the influence), the mean of both variants': a large effect that is a
    /// factor makes the treated vary more.
    pub variance: f64,
    /// Share of the variance that CUPED leaves (1 - rho^2); 1: without.
    pub kept: f64,
    /// Probability of finding what is not there.
    pub alpha: f64,
    /// Probability of finding what is there.
    pub power: f64,
    /// Shares of people in the control and in the variant; what is left is in neither.
    pub shares: (f64, f64),
    /// Whether the sequential interval decides.
    pub sequential: bool,
}

impl Plan {
    /// People in both variants together that it takes to find a relative effect.
    pub fn users_for(&self, lift: f64) -> u64 {
        (self.of_one() / (lift * self.mean)).powi(2).ceil() as u64
    }

    /// The smallest relative effect that so many people in both variants find.
    pub fn detectable(&self, users: u64) -> f64 {
        self.of_one() / (users as f64).sqrt() / self.mean.abs()
    }

    /// Days that it takes where on each so many people are seen for the first time, in the experiment or not; the last
    /// number goes on. `None`: more than ten years.
    pub fn days_for(&self, lift: f64, new_users: &[f64]) -> Option<u32> {
        let share = self.shares.0 + self.shares.1;
        let wanted = self.users_for(lift) as f64;
        let mut users = 0.0;
        (1..=MOST_DAYS).find(|day| {
            let today = new_users.get(*day as usize - 1).or(new_users.last());
            users += share * today.copied().unwrap_or(0.0);
            users >= wanted
        })
    }

    /// The smallest absolute effect that one person would find.
    fn of_one(&self) -> f64 {
        let (control, variant) = self.shares;
        let of_control = control / (control + variant);
        let decides =
            if self.sequential { boundary(BEST_CLOCK, self.alpha) } else { normal(1.0 - self.alpha / 2.0) };
        let spread = self.variance * self.kept * (1.0 / of_control + 1.0 / (1.0 - of_control));
        (decides + normal(self.power)) * spread.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        mean: 10.0,
        variance: 100.0,
        kept: 1.0,
        alpha: 0.05,
        power: 0.8,
        shares: (0.5, 0.5),
        sequential: false,
    };

    #[test]
    fn a_plan_is_that_of_the_textbook_and_its_own_inverse() {
        // Two arms of 2 (1.96 + 0.8416)^2 sigma^2 / d^2 = 15.7 x 100 / 0.2^2 people.
        assert!((PLAN.users_for(0.02) as f64 - 2.0 * 39_244.0).abs() < 20.0, "{}", PLAN.users_for(0.02));
        assert!((PLAN.detectable(PLAN.users_for(0.02)) - 0.02).abs() < 1e-6);
        let cuped = Plan { kept: 0.5, ..PLAN };
        assert!((cuped.users_for(0.02) as f64 / PLAN.users_for(0.02) as f64 - 0.5).abs() < 1e-4);
        let uneven = Plan { shares: (0.9, 0.1), ..PLAN };
        assert!((uneven.users_for(0.02) as f64 / PLAN.users_for(0.02) as f64 - 0.25 / 0.09).abs() < 1e-3);
        assert!(Plan { sequential: true, ..PLAN }.users_for(0.02) > PLAN.users_for(0.02));
    }

    #[test]
    fn days_follow_the_curve_of_new_people() {
        assert_eq!(PLAN.days_for(0.02, &[40_000.0, 20_000.0, 10_000.0, 5_000.0]), Some(5));
        assert_eq!(PLAN.days_for(0.02, &[]), None);
        assert_eq!(Plan { shares: (0.05, 0.05), ..PLAN }.days_for(0.02, &[100_000.0]), Some(8));
    }
}
