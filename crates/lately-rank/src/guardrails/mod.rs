//! Guardrails: how a new version does beside the one before it, from what a server knows anyhow.
//!
//! Two streams feed it: the ranker tells whether a model scored (`Guardrails::asked`), and the thread that follows the
//! log shows it each record: a ranking names its version, its arm and its probabilities, an action names its ranking. An
//! action counts for the version that ranked. Nothing of it is in the way of a ranking, and of people only a group and
//! hashes of request ids are kept, the latter for as long as actions are waited for.
//!
//! `rules` has what is compared, `evidence` how sure a breach must be, `sums` what is kept of a version. What is done
//! about a breach is not decided here.

mod config;
mod evidence;
mod lanes;
mod open;
mod rules;
#[cfg(test)]
mod simulation;
mod standing;
mod sums;

use std::collections::HashMap;
use std::sync::Mutex;

use lately_features::{Action, Event, Impression, Schema, UserId};

use crate::batcher::lock;
use crate::draw;
use crate::request::Variant;
use crate::value_model::ValueModel;
pub use config::GuardrailConfig;
use lanes::Lanes;
pub(crate) use lanes::Side;
use open::{Open, Shown};
use rules::Rules;
pub use rules::{Comparison, Reading};
pub use standing::{Standing, Watched};
use sums::{Column, GROUPS};

/// Places of a list that are watched: what stands further down is seldom seen.
const PLACES: usize = 20;

/// How a model did on a ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It scored all.
    Scored,
    /// It failed.
    Failed,
    /// It could not score all in time.
    Late,
}

impl Outcome {
    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scored => "scored",
            Self::Failed => "failed",
            Self::Late => "late",
        }
    }
}

/// Watches versions. Share it by `Arc`.
#[derive(Debug)]
pub struct Guardrails {
    rules: Rules,
    /// A bit for each head that an action belongs to.
    heads_of: HashMap<String, u64>,
    state: Mutex<State>,
    standing: Mutex<Standing>,
}

#[derive(Debug)]
struct State {
    lanes: Lanes,
    open: Open,
    /// The newest time of a ranking in the log: in a log that is read again it stands for now.
    log_ms: i64,
}

impl Guardrails {
    pub(crate) fn new(config: &GuardrailConfig, schema: &Schema, values: &ValueModel) -> Self {
        let heads = schema.heads.iter().map(|h| h.name.clone()).zip(values.weights().iter().copied());
        let mut heads_of = HashMap::new();
        for (at, head) in schema.heads.iter().enumerate() {
            head.actions.iter().for_each(|action| *heads_of.entry(action.clone()).or_default() |= 1 << at);
        }
        let lanes = Lanes::new(schema.heads.len(), config.watch_ms());
        let state = State { lanes, open: Open::default(), log_ms: i64::MIN };
        Self {
            rules: Rules { config: config.clone(), heads: heads.collect() },
            heads_of,
            state: Mutex::new(state),
            standing: Mutex::default(),
        }
    }

    /// The bounds.
    pub fn config(&self) -> &GuardrailConfig {
        &self.rules.config
    }

    /// A model was asked for a ranking.
    pub(crate) fn asked(&self, side: &Side, user: &UserId, time_ms: i64, outcome: Outcome) {
        if !self.rules.config.enabled {
            return;
        }
        let group = draw::group(user, GROUPS);
        let mut state = lock(&self.state);
        let Some(sums) = state.lanes.of(side, time_ms) else { return };
        sums.add(group, Column::Asked, 1.0);
        match outcome {
            Outcome::Scored => {}
            Outcome::Failed => sums.add(group, Column::Failed, 1.0),
            Outcome::Late => sums.add(group, Column::Late, 1.0),
        }
    }

    /// The next record of the log.
    pub(crate) fn observe(&self, event: &Event) {
        if !self.rules.config.enabled {
            return;
        }
        match event {
            Event::Impression(impression) => self.shown(impression),
            Event::Action(action) => self.acted(action),
            _ => {}
        }
    }

    /// A list as it was served, where a model ranked it and nothing was wrong.
    fn shown(&self, impression: &Impression) {
        let Some(version) = impression.model.as_ref().filter(|_| impression.degraded.is_empty()) else {
            return;
        };
        let heads = self.rules.heads.len();
        let whole = |i: &&lately_features::ImpressionItem| i.heads.len() == heads;
        let items: Vec<_> = impression.items.iter().take(PLACES).filter(whole).collect();
        if items.is_empty() {
            return;
        }
        let shown = Shown {
            side: Side { version: version.clone(), variant: Variant::named(impression.variant.as_deref()) },
            time_ms: impression.time_ms,
            group: draw::group(&impression.user, GROUPS),
            items: items.iter().map(|i| i.item.hash64()).collect(),
            probabilities: items.iter().flat_map(|i| i.heads.iter().copied()).collect(),
        };
        let mut state = lock(&self.state);
        state.log_ms = state.log_ms.max(shown.time_ms);
        if let Some(sums) = state.lanes.of(&shown.side, shown.time_ms) {
            sums.add(shown.group, Column::Rankings, 1.0);
            shown.probabilities.chunks_exact(heads.max(1)).for_each(|p| sums.shown(shown.group, p));
            let now_ms = state.log_ms;
            state.open.show(impression.request.hash64(), now_ms, shown);
        }
        let before_ms = state.log_ms.saturating_sub(self.rules.config.maturity_ms());
        state.close(before_ms, heads);
    }

    fn acted(&self, action: &Action) {
        let (Some(request), Some(heads)) = (&action.request, self.heads_of.get(&action.action)) else {
            return;
        };
        let mut state = lock(&self.state);
        let now_ms = state.log_ms;
        state.open.act(request.hash64(), now_ms, action.item.hash64(), *heads);
    }

    /// A version was swapped in: what is known of it as the champion is forgotten.
    pub fn begin_watch(&self, version: &str, now_ms: i64) {
        let lanes = &mut lock(&self.state).lanes;
        as_champion(version).iter().for_each(|side| lanes.begin(side, now_ms));
    }

    /// A canary begins: what is known of its arms is forgotten.
    pub fn begin_canary(&self, challenger: &str, champion: &str, now_ms: i64) {
        let lanes = &mut lock(&self.state).lanes;
        in_canary(challenger, champion).iter().for_each(|side| lanes.begin(side, now_ms));
    }

    /// The champion beside the version before it, of the time when that was the champion.
    pub fn watched(&self, version: &str, reference: &str, now_ms: i64) -> Comparison {
        self.compare(&as_champion(version), &as_champion(reference), now_ms, false)
    }

    /// The challenger of a canary beside the champion for the other people at the same time.
    pub fn canary(&self, challenger: &str, champion: &str, now_ms: i64) -> Comparison {
        let [challenger, champion] = in_canary(challenger, champion);
        self.compare(&[challenger], &[champion], now_ms, true)
    }

    fn compare(&self, new: &[Side], with: &[Side], now_ms: i64, concurrent: bool) -> Comparison {
        let heads = self.rules.heads.len();
        let mut state = lock(&self.state);
        state.close(now_ms.saturating_sub(self.rules.config.maturity_ms()), heads);
        let [rankings, reference_rankings] = [new, with].map(|sides| state.lanes.rankings(sides));
        let (new, with) = (state.lanes.sums(new), state.lanes.sums(with));
        drop(state);
        Comparison { rankings, reference_rankings, ..self.rules.compare(&new, &with, concurrent) }
    }

    /// Says what is being watched, for whoever asks.
    pub fn tell(&self, standing: Standing) {
        *lock(&self.standing) = standing;
    }

    /// What is being watched, as of the last look.
    pub fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }
}

/// The sides of a version that ranks for all people, or for those who are in no challenger's arm.
fn as_champion(version: &str) -> [Side; 2] {
    [None, Some(Variant::Champion)].map(|variant| Side { version: version.to_owned(), variant })
}

fn in_canary(challenger: &str, champion: &str) -> [Side; 2] {
    let side = |version: &str, variant| Side { version: version.to_owned(), variant: Some(variant) };
    [side(challenger, Variant::Challenger), side(champion, Variant::Champion)]
}

impl State {
    /// Counts the actions of the rankings that were opened before a time.
    fn close(&mut self, before_ms: i64, heads: usize) {
        while let Some((shown, labels)) = self.open.close(before_ms) {
            let Some(sums) = self.lanes.of(&shown.side, shown.time_ms) else { continue };
            for (probabilities, label) in shown.probabilities.chunks_exact(heads.max(1)).zip(labels) {
                sums.add(shown.group, Column::Matured, 1.0);
                for (head, p) in probabilities.iter().enumerate() {
                    sums.add(shown.group, Column::Predicted(head), f64::from(*p));
                    sums.add(shown.group, Column::Observed(head), (label >> head & 1) as f64);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
