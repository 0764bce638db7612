//! Acts on the guardrails: a champion that breaches one after its swap is rolled back, a canary's challenger is taken
//! away, and one that stays healthy is promoted.
//!
//! What is compared, and how sure a breach must be, is in `lately_rank::guardrails`; here is what is done about it. What
//! was taken back is not swapped in again by this server. Where the registry cannot be changed it is tried again at the
//! next look.

mod undo;
mod watch;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use lately_rank::Ranker;
use lately_rank::guardrails::{Comparison, Guardrails, Reading, Standing, Watched};
use lately_store::Registry;
use lately_train::publish::{CHALLENGER, CHAMPION};

use crate::config::CanaryConfig;
use crate::follow::Follower;
use crate::wire_up::now_ms;
use watch::Watch;

/// The watch over the versions that rank.
pub(crate) struct Rollout {
    follower: Arc<Follower>,
    ranker: Arc<Ranker>,
    registry: Registry,
    config: CanaryConfig,
    champion: Watch,
    canary: Option<Canary>,
}

/// A canary that runs.
#[derive(Clone, PartialEq)]
struct Canary {
    challenger: String,
    champion: String,
    since_ms: i64,
}

impl Rollout {
    pub(crate) fn new(
        follower: &Arc<Follower>,
        ranker: &Arc<Ranker>,
        registry: &Registry,
        config: &CanaryConfig,
    ) -> Self {
        Self {
            follower: Arc::clone(follower),
            ranker: Arc::clone(ranker),
            registry: registry.clone(),
            config: config.clone(),
            champion: Watch::default(),
            canary: None,
        }
    }

    fn guardrails(&self) -> &Guardrails {
        self.ranker.guardrails()
    }

    /// Compares, and acts on a breach. What fails at one of the two must not keep from the other.
    fn look(&mut self, now_ms: i64) -> Result<()> {
        let champion = self.look_at_champion(now_ms);
        let canary = self.look_at_canary(now_ms);
        let mut standing = self.guardrails().standing();
        if let Ok(watched) = &champion {
            standing.champion.clone_from(watched);
        }
        if let Ok(watched) = &canary {
            standing.canary.clone_from(watched);
        }
        self.guardrails().tell(standing);
        champion.and(canary).map(drop)
    }

    fn look_at_champion(&mut self, now_ms: i64) -> Result<Option<Watched>> {
        let Some(model) = self.follower.slot.current() else { return Ok(None) };
        let (version, length_ms) = (model.version(), self.guardrails().config().watch_ms());
        if !self.champion.serves(version) {
            let came = undo::came(&self.registry, version).unwrap_or_else(|error| {
                tracing::warn!(error = format!("{error:#}"), "how the champion came is not known");
                None
            });
            if self.champion.see(version, came, now_ms, length_ms) {
                self.guardrails().begin_watch(version, now_ms);
            }
        }
        let Some((reference, since_ms)) = self.champion.reference(now_ms, length_ms) else { return Ok(None) };
        let comparison = self.guardrails().watched(version, &reference, now_ms);
        show(CHAMPION, &comparison);
        let watched = Watched { version: version.to_owned(), reference, since_ms, comparison };
        match watched.comparison.breach() {
            Some(breach) => self.roll_back(&watched, breach).map(|()| None),
            None => Ok(Some(watched)),
        }
    }

    fn roll_back(&mut self, watched: &Watched, breach: &Reading) -> Result<()> {
        let reason = reason(watched, breach);
        if self.follower.condemn(&watched.version, &reason) {
            count(CHAMPION, breach, watched, &reason);
        }
        if undo::undo(&self.registry, &watched.version, &watched.reference, &reason)?.is_some() {
            self.champion.undo();
        }
        self.follower.follow()?;
        // It would score where the one before it fails.
        self.follower.slot.drop_former();
        Ok(())
    }

    fn look_at_canary(&mut self, now_ms: i64) -> Result<Option<Watched>> {
        let Some(canary) = self.canary_now(now_ms) else {
            self.canary = None;
            return Ok(None);
        };
        if self.canary.as_ref() != Some(&canary) {
            self.guardrails().begin_canary(&canary.challenger, &canary.champion, now_ms);
            tracing::info!(challenger = canary.challenger, champion = canary.champion, "a canary begins");
            self.canary = Some(canary.clone());
        }
        let comparison = self.guardrails().canary(&canary.challenger, &canary.champion, now_ms);
        show(CHALLENGER, &comparison);
        let Canary { challenger, champion, since_ms } = canary;
        let watched = Watched { version: challenger, reference: champion, since_ms, comparison };
        if let Some(breach) = watched.comparison.breach() {
            let reason = reason(&watched, breach);
            if self.follower.condemn(&watched.version, &reason) {
                count(CHALLENGER, breach, &watched, &reason);
            }
            self.follower.drop_challenger();
            undo::dismiss(&self.registry, &watched.version, &reason)?;
            return Ok(None);
        }
        if self.has_stood(&watched, now_ms) {
            self.promote(&watched)?;
            return Ok(None);
        }
        Ok(Some(watched))
    }

    /// The canary that runs; since when, if it is the one of the last look.
    fn canary_now(&self, now_ms: i64) -> Option<Canary> {
        self.ranker.canary()?;
        let challenger = self.follower.challenger()?;
        let champion = self.follower.slot.current()?.version().to_owned();
        let known = self.canary.as_ref().filter(|c| c.challenger == challenger && c.champion == champion);
        let since_ms = known.map_or(now_ms, |c| c.since_ms);
        Some(Canary { challenger, champion, since_ms })
    }

    fn has_stood(&self, watched: &Watched, now_ms: i64) -> bool {
        let guardrails = self.guardrails().config();
        // Not before anything is known of what people do with what it ranks.
        let seconds = self.config.minutes.saturating_mul(60).max(2 * guardrails.maturity_seconds);
        let length_ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
        let Comparison { rankings, reference_rankings, .. } = watched.comparison;
        self.config.promote
            && now_ms - watched.since_ms >= length_ms
            && rankings >= self.config.rankings.max(guardrails.min_rankings)
            && reference_rankings >= guardrails.min_rankings
            && watched.comparison.is_within()
    }

    fn promote(&self, watched: &Watched) -> Result<()> {
        let Watched { version, reference, comparison, .. } = watched;
        if !undo::promote(&self.registry, version, reference)? {
            return Ok(());
        }
        tracing::info!(version, reference, rankings = comparison.rankings, "promoted the challenger");
        metrics::counter!("lately_canary_promotions_total").increment(1);
        self.follower.follow()?;
        self.follower.follow_challenger().map(drop)
    }
}

/// Looks every so many seconds until the sender is dropped; not at all where the guardrails are switched off.
pub(crate) fn guard(mut rollout: Rollout) -> Result<Option<(Sender<()>, JoinHandle<()>)>> {
    let config = rollout.guardrails().config();
    if !config.enabled {
        return Ok(None);
    }
    let interval = Duration::from_secs(config.look_seconds);
    let (stop, stopped) = channel();
    let thread = std::thread::Builder::new().name("guardrails".to_owned()).spawn(move || {
        while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            if let Err(error) = rollout.look(now_ms()) {
                tracing::error!(error = format!("{error:#}"), "the rollout cannot be looked at or acted on");
            }
        }
        rollout.guardrails().tell(Standing::default());
    })?;
    Ok(Some((stop, thread)))
}

/// The number, its bound and both versions.
fn reason(watched: &Watched, breach: &Reading) -> String {
    let Watched { version, reference, comparison, .. } = watched;
    let of = breach.head.as_ref().map_or_else(String::new, |head| format!(" of the head `{head}`"));
    format!(
        "guardrail `{}`{of}: {:.4} of {version:.12}, {:.4} of {reference:.12}, the bound is {:.4}; over {} rankings",
        breach.guardrail, breach.value, breach.reference, breach.bound, comparison.rankings
    )
}

fn count(arm: &'static str, breach: &Reading, watched: &Watched, reason: &str) {
    let labels = [("guardrail", breach.guardrail), ("arm", arm)];
    metrics::counter!("lately_guardrail_breaches_total", &labels).increment(1);
    let Watched { version, reference, .. } = watched;
    tracing::error!(arm, version, reference, reason, "a guardrail is breached");
}

/// The numbers as gauges.
fn show(arm: &'static str, comparison: &Comparison) {
    metrics::gauge!("lately_guardrail_rankings", "arm" => arm).set(comparison.rankings as f64);
    for reading in &comparison.readings {
        let head = reading.head.clone().unwrap_or_default();
        let labels = [("guardrail", reading.guardrail.to_owned()), ("head", head), ("arm", arm.to_owned())];
        metrics::gauge!("lately_guardrail_value", &labels).set(reading.value);
        metrics::gauge!("lately_guardrail_bound", &labels).set(reading.bound);
        metrics::gauge!("lately_guardrail_evidence", &labels).set(reading.evidence);
    }
}
