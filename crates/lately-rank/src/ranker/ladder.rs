//! The ladder: what is done where a stage cannot do its best. Each step down is a [`Rung`] in the response.
//!
//! Full model with a fresh sequence, a stale sequence, no sequence, only the first N by a cheap score, the last good model,
//! the user's last ranking, popularity, the order given. An exercised ranking enters at its rung as if all above had
//! failed; where that rung has nothing to offer, the next one down takes over, as it would in earnest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lately_features::{RequestContext, Token};

use super::candidates::Candidate;
use super::{Ask, Known, Ranker, Scores};
use crate::batcher::{Answer, ScoreError, Work};
use crate::error::RankError;
use crate::estimate::rows_within;
use crate::guardrails::{Outcome, Side};
use crate::request::{Rung, Variant};
use crate::retrieve::unit;
use crate::value_model;
use lately_model::probability;

/// What a model gave, of the rows of the work.
pub(super) type Logits = (Arc<Work>, Answer);

impl Ranker {
    /// What is known of the user: the sequence from the store, else what it was at the last ranking, else none.
    pub(super) fn sequence(&self, ask: &Ask, context: RequestContext, degraded: &mut Vec<Rung>) -> Known {
        let read = (self.read_sequence)(&ask.user).inspect_err(|error| {
            tracing::error!(%error, "a user sequence cannot be read");
        });
        let forced = ask.forced.filter(|rung| *rung <= Rung::NoSequence);
        let stale = || {
            let seen = self.last_known.sequence(&ask.user).filter(|_| forced != Some(Rung::NoSequence))?;
            let age = context.time_ms.saturating_sub(seen.at_ms).max(0).unsigned_abs();
            Some((seen.sequence, Some(age)))
        };
        let (model_sequence, sequence_age_ms) = match &read {
            Ok(fresh) if forced.is_none() => (fresh.clone(), None),
            _ => stale().unwrap_or_default(),
        };
        if forced.is_some() || read.is_err() {
            degraded.push(if sequence_age_ms.is_some() { Rung::StaleSequence } else { Rung::NoSequence });
        }
        if let Ok(fresh) = &read {
            self.last_known.read(&ask.user, fresh, context.time_ms);
        }
        let sequence = read.unwrap_or_else(|_| model_sequence.clone());
        Known { context, sequence, model_sequence, sequence_age_ms, user: self.store.user(&ask.user) }
    }

    /// A model's logits, `None` where another order has to do, and how long the request waited for a thread. Where the time is too short for all candidates, they are
    /// put in the order of a cheap score and the first ones are scored.
    pub(super) fn score(
        &self,
        ask: &Ask,
        known: &Known,
        tokens: Vec<Token>,
        candidates: &mut Vec<Candidate>,
        degraded: &mut Vec<Rung>,
    ) -> Result<(Option<Logits>, Duration), RankError> {
        let Some(model) = ask.model.clone() else {
            degraded.push(Rung::NoModel);
            return Ok((None, Duration::ZERO));
        };
        if ask.forced.is_some_and(|rung| rung >= Rung::CachedRanking) {
            return Ok((None, Duration::ZERO));
        }
        let rows = self.affordable(ask, tokens.len(), candidates.len());
        if rows < candidates.len() {
            self.order_cheaply(ask, known, candidates);
        }
        let work = Arc::new(Work {
            model,
            assembler: self.assembler.clone(),
            context: known.context,
            person: ask.user.hash64(),
            priority: ask.priority,
            user: known.user.clone(),
            tokens,
            candidates: candidates[..rows].iter().map(|c| c.features.clone()).collect(),
        });
        let begin = Instant::now();
        let logits = match ask.forced {
            Some(Rung::LastGoodModel) => self.by_last_good_model(ask, &work, degraded),
            _ => self.by_model(ask, work.clone(), degraded)?,
        };
        self.outcome(ask, &work, known.context.time_ms, degraded, rows < candidates.len());
        if logits.is_some() && rows < candidates.len() {
            degraded.push(Rung::FirstN);
        }
        let waited = match &logits {
            Some((_, answer)) => answer.waited,
            None if degraded.contains(&Rung::ScoreDeadline) => begin.elapsed(),
            None => Duration::ZERO,
        };
        Ok((logits, waited))
    }

    fn by_model(
        &self,
        ask: &Ask,
        work: Arc<Work>,
        degraded: &mut Vec<Rung>,
    ) -> Result<Option<Logits>, RankError> {
        match self.batcher.score(&work, ask.deadline) {
            Ok(logits) => return Ok(Some((work, logits))),
            Err(ScoreError::Overloaded { reason, retry_after }) => {
                let labels = [("reason", reason.name()), ("priority", ask.priority.name())];
                metrics::counter!("lately_rank_shed_total", &labels).increment(1);
                return Err(RankError::Overloaded { reason, retry_after });
            }
            Err(ScoreError::Closed) => return Err(RankError::Closed),
            Err(ScoreError::DeadlineExceeded) => degraded.push(Rung::ScoreDeadline),
            Err(ScoreError::Model(reason)) => {
                tracing::error!(version = work.model.version(), reason, "the model failed");
                degraded.push(Rung::ModelError);
                return Ok(self.by_last_good_model(ask, &work, degraded));
            }
        }
        Ok(None)
    }

    /// How the model did that was asked, for the guardrails; an exercise says nothing of it.
    fn outcome(&self, ask: &Ask, work: &Work, time_ms: i64, degraded: &[Rung], cut: bool) {
        if ask.forced.is_some() {
            return;
        }
        let outcome = match () {
            () if degraded.contains(&Rung::ModelError) => Outcome::Failed,
            () if cut || degraded.contains(&Rung::ScoreDeadline) => Outcome::Late,
            () => Outcome::Scored,
        };
        let side = Side { version: work.model.version().to_owned(), variant: ask.variant };
        self.guardrails.asked(&side, &ask.user, time_ms, outcome);
        let labels = [("arm", ask.variant.unwrap_or(Variant::Champion).name()), ("result", outcome.name())];
        metrics::counter!("lately_arm_rankings_total", &labels).increment(1);
    }

    /// The same rows by another good generation, if there is one, in the time that is left; for a challenger by the
    /// champion.
    fn by_last_good_model(&self, ask: &Ask, work: &Work, degraded: &mut Vec<Rung>) -> Option<Logits> {
        let champion = self.slot.current()?;
        let model = match champion.version() == work.model.version() {
            true => self.slot.other(champion.generation())?,
            false => champion,
        };
        let work = Arc::new(Work { model, ..work.clone() });
        match self.batcher.score(&work, ask.deadline) {
            Ok(logits) => {
                degraded.push(Rung::LastGoodModel);
                return Some((work, logits));
            }
            Err(ScoreError::DeadlineExceeded) => degraded.push(Rung::ScoreDeadline),
            // Also where the queue is full: this ranking was let in, and there are rungs below.
            Err(error) => {
                tracing::error!(version = work.model.version(), %error, "the last good model does not score")
            }
        }
        None
    }

    /// How many candidates can be scored in the time left.
    fn affordable(&self, ask: &Ask, tokens: usize, rows: usize) -> usize {
        if ask.forced == Some(Rung::FirstN) {
            return rows.div_ceil(2);
        }
        let estimate = |rows| self.batcher.estimate(rows, tokens);
        let (Some(none), Some(all)) = (estimate(0), estimate(rows)) else { return rows };
        rows_within(ask.deadline.saturating_duration_since(Instant::now()), none, all, rows)
    }

    /// By nearness to what the user liked last; those that are equally near, or all where nothing was liked, by
    /// popularity.
    fn order_cheaply(&self, ask: &Ask, known: &Known, candidates: &mut Vec<Candidate>) {
        let mut taste = Vec::new();
        for like in self.likes(ask, known) {
            taste.resize(like.len(), 0.0);
            taste.iter_mut().zip(unit(&like)).for_each(|(t, x): (&mut f32, f32)| *t += x);
        }
        let near = |c: &Candidate| {
            let embedding = c.features.as_deref().map_or(&[][..], |f| self.assembler.item_embedding(f));
            unit(embedding).zip(&taste).map(|(a, b)| a * b).sum::<f32>()
        };
        let popularity = self.popularity(candidates, known);
        let keys = candidates.iter().map(near).zip(popularity).collect();
        order(candidates, keys);
    }

    /// From logits to scores; without logits from what else is known.
    pub(super) fn value(
        &self,
        ask: &Ask,
        known: &Known,
        logits: Option<Logits>,
        candidates: &mut Vec<Candidate>,
        degraded: &mut Vec<Rung>,
    ) -> Scores {
        if let Some((work, answer)) = logits {
            let probabilities: Vec<f32> = answer.logits.into_iter().map(probability).collect();
            let weights = ask.weights();
            let rows = probabilities.chunks_exact(self.heads.len().max(1));
            let mut score: Vec<f32> = rows.map(|p| value_model::score(&weights, p)).collect();
            self.last_known.ranked(&ask.user, candidates.iter().map(|c| &c.item).zip(score.iter().copied()));
            fill(&mut score, candidates.len());
            return Scores { score, probabilities, work: Some(work) };
        }
        let (rung, score) = self.without_model(ask, known, candidates);
        degraded.push(rung);
        Scores { score, probabilities: Vec::new(), work: None }
    }

    /// The best order that needs no model.
    fn without_model(&self, ask: &Ask, known: &Known, candidates: &mut Vec<Candidate>) -> (Rung, Vec<f32>) {
        let may = |rung| ask.forced.is_none_or(|forced| forced <= rung);
        let popularity = self.popularity(candidates, known);
        if may(Rung::CachedRanking)
            && let Some(last) = self.last_known.ranking(&ask.user)
        {
            let scores: Vec<Option<f32>> = candidates.iter().map(|c| last.score(&c.item)).collect();
            let mut known: Vec<f32> = scores.iter().flatten().copied().collect();
            if !known.is_empty() {
                let keys = scores.into_iter().map(|s| s.unwrap_or(f32::NEG_INFINITY)).zip(popularity);
                order(candidates, keys.collect());
                known.sort_by(|a, b| b.total_cmp(a));
                fill(&mut known, candidates.len());
                return (Rung::CachedRanking, known);
            }
        }
        if may(Rung::Popularity) && popularity.iter().any(|p| *p > 0.0) {
            return (Rung::Popularity, popularity);
        }
        (Rung::InputOrder, vec![0.0; candidates.len()])
    }

    fn popularity(&self, candidates: &[Candidate], known: &Known) -> Vec<f32> {
        self.follower.popularity(candidates.iter().map(|c| &c.item), known.context.time_ms)
    }
}

/// Puts candidates in the order of their keys, largest first; equal ones stay as they are.
fn order(candidates: &mut Vec<Candidate>, keys: Vec<(f32, f32)>) {
    let mut keyed: Vec<_> = keys.into_iter().zip(candidates.drain(..)).collect();
    keyed.sort_by(|((a, b), _), ((c, d), _)| c.total_cmp(a).then(d.total_cmp(b)));
    candidates.extend(keyed.into_iter().map(|(_, candidate)| candidate));
}

/// Those without a score get the lowest: they come after the others, in the order in which they stand.
fn fill(score: &mut Vec<f32>, candidates: usize) {
    let lowest = score.iter().copied().reduce(f32::min).unwrap_or(0.0);
    score.resize(candidates, lowest);
}
