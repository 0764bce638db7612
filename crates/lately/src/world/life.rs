//! What a person carries from one visit to the next: topics they have had too much of, and how gladly they come.
//!
//! Of a new life nothing follows, and a world in which nobody carries one is to the number as it is without this file.

use super::session::Session;

const DAY_MS: f64 = 86_400_000.0;
/// Days after which what was seen counts half.
const HALF_LIFE_DAYS: f64 = 2.0;
/// Items that everybody is taken to have seen before, over all topics alike: a first page wearies nobody.
const PRIOR: f64 = 60.0;
/// Share of what was seen up to which a topic is not too much.
const FREE: f64 = 0.15;
/// What all of the rest being one topic costs, logits.
const WEARY: f64 = 5.0;
/// How far one visit moves the eagerness.
const MOVED: f64 = 0.06;
/// Pleasure a page that neither makes nor breaks a habit: saves, 0.3 a click, -2 a hide.
const USUAL: f64 = 0.9;

/// A person's long memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// Items seen, by topic, decayed to `at_ms`.
    seen: Vec<f64>,
    at_ms: i64,
    eagerness: f64,
}

impl Life {
    /// Of somebody who has seen nothing.
    pub(super) fn new(topics: usize) -> Self {
        Self { seen: vec![0.0; topics], at_ms: 0, eagerness: 1.0 }
    }

    /// By how much more or less often than by nature they come, 0.4 to 1.6.
    pub fn eagerness(&self) -> f64 {
        self.eagerness
    }

    /// What each topic has lost, logits.
    pub(super) fn weariness(&self, time_ms: i64) -> Vec<f64> {
        let kept = self.kept(time_ms);
        let all = PRIOR + kept * self.seen.iter().sum::<f64>();
        let even = PRIOR / self.seen.len() as f64;
        let share = |seen: &f64| (even + kept * seen) / all;
        self.seen.iter().map(|seen| WEARY * (share(seen) - FREE).max(0.0)).collect()
    }

    /// After a visit.
    pub fn lived(&mut self, session: &Session<'_>, time_ms: i64) {
        let kept = self.kept(time_ms);
        self.seen.iter_mut().zip(session.looked()).for_each(|(seen, n)| *seen = kept * *seen + f64::from(*n));
        self.at_ms = time_ms;
        let felt = (session.pleasure() / USUAL).clamp(-1.0, 3.0);
        self.eagerness = (self.eagerness + MOVED * (felt - 1.0)).clamp(0.4, 1.6);
    }

    fn kept(&self, time_ms: i64) -> f64 {
        0.5f64.powf((time_ms - self.at_ms).max(0) as f64 / DAY_MS / HALF_LIFE_DAYS)
    }
}
