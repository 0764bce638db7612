//! How much one user may ask for and do a second, so that one program run wild does not take the place of everybody.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use lately_features::UserId;

use crate::error::ApiError;
use crate::limits::Limits;

/// What a user may do at once, in seconds of the rate: a phone that was offline sends what was done meanwhile.
const BURST_SECONDS: u32 = 10;
/// Checks after which those are forgotten who are below their rate again; more users than this and those who just acted
/// are never in memory, about 50 bytes each.
const SWEEP: u32 = 1 << 14;

/// The caps of the data door.
pub(crate) struct Caps {
    pub(crate) rankings: Cap,
    pub(crate) actions: Cap,
}

impl Caps {
    pub(crate) fn new(limits: &Limits) -> Self {
        let cap = |rate| Cap::new(rate, DefaultClock::default());
        Self { rankings: cap(limits.user_rankings), actions: cap(limits.user_actions) }
    }

    /// Counts a ranking of a user.
    pub(crate) fn ranking(&self, user: &UserId) -> Result<(), ApiError> {
        self.rankings.check(user).map_err(|wait| {
            metrics::counter!("lately_user_capped_total", "type" => "ranking").increment(1);
            ApiError::too_many("this user asks for too many rankings", wait)
        })
    }

    /// Counts an action of a user; an error is when to come again.
    pub(crate) fn action(&self, user: &UserId) -> Result<(), Duration> {
        self.actions.check(user).inspect_err(|_| {
            metrics::counter!("lately_user_capped_total", "type" => "action").increment(1);
        })
    }
}

type Limiter<C> = RateLimiter<u64, DashMapStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A rate for each user, by a hash of the id.
pub(crate) struct Cap<C: Clock = DefaultClock> {
    limiter: Option<Limiter<C>>,
    clock: C,
    checks: AtomicU32,
}

impl<C: Clock + Clone> Cap<C> {
    /// `rate` a second; 0: no cap.
    fn new(rate: u32, clock: C) -> Self {
        let quota = NonZeroU32::new(rate).map(|rate| {
            let burst = NonZeroU32::new(BURST_SECONDS).unwrap_or(NonZeroU32::MIN);
            Quota::per_second(rate).allow_burst(rate.saturating_mul(burst))
        });
        let limiter = quota.map(|quota| RateLimiter::dashmap_with_clock(quota, clock.clone()));
        Self { limiter, clock, checks: AtomicU32::new(0) }
    }

    fn check(&self, user: &UserId) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        limiter.check_key(&user.hash64()).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn user(i: u32) -> UserId {
        UserId::new(format!("u{i}")).unwrap()
    }

    #[test]
    fn a_user_has_a_burst_and_then_the_rate_and_others_their_own() {
        let clock = FakeRelativeClock::default();
        let cap = Cap::new(5, clock.clone());
        for _ in 0..50 {
            assert_eq!(cap.check(&user(1)), Ok(()));
        }
        assert_eq!(cap.check(&user(1)), Err(Duration::from_millis(200)));
        assert_eq!(cap.check(&user(2)), Ok(()));
        clock.advance(Duration::from_millis(200));
        assert_eq!(cap.check(&user(1)), Ok(()));
        assert!(cap.check(&user(1)).is_err());
        let none = Cap::new(0, clock);
        assert!((0..10_000).all(|_| none.check(&user(1)).is_ok()), "0 is no cap");
    }

    #[test]
    fn users_who_are_below_their_rate_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let cap = Cap::new(5, clock.clone());
        for i in 0..10 * SWEEP {
            cap.check(&user(i)).unwrap();
            clock.advance(Duration::from_millis(1)); // 200 ms bring one check back
        }
        let known = cap.limiter.as_ref().unwrap().len();
        assert!(known <= SWEEP as usize + 201, "{known}");
    }
}
