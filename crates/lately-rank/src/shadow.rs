//! Shadow scoring: what the champion ranked is scored by the challenger too, after the answer, seen by nobody.
//!
//! It takes only what is left over: a thread hands the challenger's work to the scoring threads a tile at a time, and lets
//! the rest go as soon as anything else waits. What could not be compared is counted.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lately_model::{probability, rank_correlation};
use serde::Serialize;

use crate::batcher::{Batcher, ScoreError, Work, lock};
use crate::model_slot::{LoadedModel, ModelSlot};
use crate::request::Priority;
use crate::value_model::ValueModel;

/// Rankings that may wait for the challenger; each holds on to its features.
const QUEUE: usize = 16;
/// Candidates that are scored before the queue is looked at again.
const ROWS: usize = 128;
/// Longest that so many may take.
const TIME: Duration = Duration::from_secs(1);
/// Places at the top whose items are compared.
const TOP: usize = 3;

/// A ranking as the champion made it: all rows of the work, undegraded.
pub(crate) struct Served {
    pub(crate) work: Arc<Work>,
    /// candidates x heads.
    pub(crate) probabilities: Vec<f32>,
    pub(crate) score: Vec<f32>,
}

/// How a challenger compares with the champion on the same requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShadowSummary {
    /// Version of the champion.
    pub champion: String,
    /// Version of the challenger.
    pub challenger: String,
    /// Rankings that both scored.
    pub rankings: u64,
    /// Mean difference of a probability, without sign, one a head of the schema.
    pub probability_difference: Vec<f64>,
    /// Mean rank correlation of a ranking's scores.
    pub rank_correlation: f64,
    /// Mean share of the first three items that are the same.
    pub top_3_overlap: f64,
    /// Mean time that the challenger took for a candidate, us.
    pub us_per_candidate: f64,
}

/// The thread that compares; dropping it waits for the ranking in hand.
pub(crate) struct Shadow {
    slot: Arc<ModelSlot>,
    queue: Option<SyncSender<Served>>,
    last: Arc<Mutex<Option<ShadowSummary>>>,
    thread: Option<JoinHandle<()>>,
}

struct Comparer {
    slot: Arc<ModelSlot>,
    batcher: Arc<Batcher>,
    value_model: ValueModel,
    heads: Vec<String>,
    last: Arc<Mutex<Option<ShadowSummary>>>,
}

impl Shadow {
    /// Starts it for the challenger in `slot`.
    pub(crate) fn start(
        slot: Arc<ModelSlot>,
        batcher: Arc<Batcher>,
        value_model: ValueModel,
        heads: Vec<String>,
    ) -> std::io::Result<Self> {
        let (queue, waiting) = sync_channel(QUEUE);
        let last = Arc::default();
        let comparer =
            Comparer { slot: Arc::clone(&slot), batcher, value_model, heads, last: Arc::clone(&last) };
        let thread =
            std::thread::Builder::new().name("shadow".into()).spawn(move || comparer.run(&waiting))?;
        Ok(Self { slot, queue: Some(queue), last, thread: Some(thread) })
    }

    pub(crate) fn slot(&self) -> &ModelSlot {
        &self.slot
    }

    /// The comparison with the present champion so far.
    pub(crate) fn summary(&self) -> Option<ShadowSummary> {
        lock(&self.last).clone()
    }

    /// Hands a ranking over; never waits.
    pub(crate) fn offer(&self, served: Served) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(served) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => count("full"),
            Err(TrySendError::Disconnected(_)) => count("failed"), // the thread panicked, which was told
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        drop(self.queue.take());
        if self.thread.take().is_some_and(|t| t.join().is_err()) {
            tracing::error!("the thread of shadow scoring panicked");
        }
    }
}

impl Comparer {
    fn run(&self, waiting: &Receiver<Served>) {
        for served in waiting {
            let differs = |m: &Arc<LoadedModel>| m.version() != served.work.model.version();
            let Some(challenger) = self.slot.current().filter(differs) else { continue };
            let start = Instant::now();
            match self.score(&served.work, &challenger) {
                Ok(Some(logits)) => {
                    count("compared");
                    self.compare(&served, &challenger, logits, start.elapsed());
                }
                Ok(None) => count("busy"),
                Err(ScoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(version = challenger.version(), %error, "the challenger failed on a ranking");
                    count("failed");
                }
            }
        }
    }

    /// The challenger's logits; `None` where something else came to be scored.
    fn score(&self, work: &Work, challenger: &Arc<LoadedModel>) -> Result<Option<Vec<f32>>, ScoreError> {
        let mut logits = Vec::with_capacity(work.candidates.len() * challenger.heads());
        for candidates in work.candidates.chunks(ROWS) {
            if !self.batcher.is_idle() {
                return Ok(None);
            }
            let part = Work {
                model: Arc::clone(challenger),
                assembler: Arc::clone(&work.assembler),
                context: work.context,
                person: work.person,
                priority: Priority::Background,
                user: work.user.clone(),
                tokens: work.tokens.clone(),
                candidates: candidates.to_vec(),
            };
            match self.batcher.score(&Arc::new(part), Instant::now() + TIME) {
                Ok(part) => logits.extend(part.logits),
                Err(ScoreError::Overloaded { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(logits))
    }

    fn compare(&self, served: &Served, challenger: &LoadedModel, logits: Vec<f32>, took: Duration) {
        let heads = self.heads.len().max(1);
        let rows = served.score.len();
        if rows == 0 {
            return;
        }
        let probabilities: Vec<f32> = logits.into_iter().map(probability).collect();
        let score: Vec<f32> = probabilities.chunks_exact(heads).map(|p| self.value_model.score(p)).collect();
        let difference = |head: usize| {
            let column = |p: &[f32]| -> Vec<f32> { p.iter().skip(head).step_by(heads).copied().collect() };
            let (a, b) = (column(&served.probabilities), column(&probabilities));
            a.iter().zip(&b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / rows as f64
        };
        let one = ShadowSummary {
            champion: served.work.model.version().to_owned(),
            challenger: challenger.version().to_owned(),
            rankings: 1,
            probability_difference: (0..self.heads.len()).map(difference).collect(),
            rank_correlation: rank_correlation(&served.score, &score),
            top_3_overlap: overlap(&served.score, &score),
            us_per_candidate: took.as_secs_f64() * 1e6 / rows as f64,
        };
        for (head, difference) in self.heads.iter().zip(&one.probability_difference) {
            metrics::histogram!("lately_shadow_probability_difference", "head" => head.clone())
                .record(*difference);
        }
        metrics::histogram!("lately_shadow_rank_correlation").record(one.rank_correlation);
        let mut last = lock(&self.last);
        *last = Some(match last.take() {
            Some(so_far) if (&so_far.champion, &so_far.challenger) == (&one.champion, &one.challenger) => {
                so_far.and(&one)
            }
            _ => one,
        });
    }
}

impl ShadowSummary {
    /// With one more ranking.
    fn and(mut self, one: &Self) -> Self {
        self.rankings += 1;
        let share = 1.0 / self.rankings as f64;
        let mean = |m: &mut f64, x: f64| *m += (x - *m) * share;
        self.probability_difference
            .iter_mut()
            .zip(&one.probability_difference)
            .for_each(|(m, x)| mean(m, *x));
        mean(&mut self.rank_correlation, one.rank_correlation);
        mean(&mut self.top_3_overlap, one.top_3_overlap);
        mean(&mut self.us_per_candidate, one.us_per_candidate);
        self
    }
}

/// Share of the items among the first three by `a` that are so by `b`; ties by position.
fn overlap(a: &[f32], b: &[f32]) -> f64 {
    let top = |scores: &[f32]| -> Vec<usize> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|i, j| scores[*j].total_cmp(&scores[*i]));
        order.truncate(TOP);
        order
    };
    let (a, b) = (top(a), top(b));
    a.iter().filter(|i| b.contains(i)).count() as f64 / a.len().max(1) as f64
}

fn count(result: &'static str) {
    metrics::counter!("lately_shadow_rankings_total", "result" => result).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RankConfig;
    use crate::ranker::tests::{model, schema};
    use crate::value_model::ValueModelConfig;
    use lately_features::{Assembler, RequestContext};

    fn summary(correlation: f64) -> ShadowSummary {
        ShadowSummary {
            champion: "a".into(),
            challenger: "b".into(),
            rankings: 1,
            probability_difference: vec![correlation / 10.0],
            rank_correlation: correlation,
            top_3_overlap: 1.0,
            us_per_candidate: 4.0,
        }
    }

    #[test]
    fn gives_way_to_whatever_waits() {
        let schema = schema();
        let batcher = Arc::new(
            Batcher::start(&RankConfig { threads: 1, tile_rows: 16, ..RankConfig::default() }).unwrap(),
        );
        let comparer = Comparer {
            slot: Arc::new(ModelSlot::new(Arc::new(schema.clone()))),
            batcher: Arc::clone(&batcher),
            value_model: ValueModel::new(&ValueModelConfig::default(), &schema).unwrap(),
            heads: schema.heads.iter().map(|h| h.name.clone()).collect(),
            last: Arc::default(),
        };
        let [champion, challenger] = [1, 2].map(|seed| Arc::new(model(seed)));
        let work = |model: &Arc<LoadedModel>, rows| Work {
            model: Arc::clone(model),
            assembler: Arc::new(Assembler::new(&schema)),
            context: RequestContext { time_ms: 0, surface: 0, watermark: u64::MAX },
            person: 0,
            priority: Priority::Interactive,
            user: None,
            tokens: Vec::new(),
            candidates: vec![None; rows],
        };
        let later = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let live = scope.spawn(|| batcher.score(&Arc::new(work(&champion, 60_000)), later));
            while batcher.is_idle() {
                assert!(!live.is_finished(), "the live request is too short");
                std::thread::yield_now();
            }
            assert_eq!(comparer.score(&work(&champion, 500), &challenger), Ok(None));
            assert_eq!(live.join().unwrap().map(|l| l.logits.len()), Ok(60_000 * 3));
        });
        let alone = comparer.score(&work(&champion, 500), &challenger).unwrap().unwrap();
        let whole = batcher.score(&Arc::new(work(&challenger, 500)), later).unwrap();
        assert_eq!(alone, whole.logits, "in parts as in one");
    }

    #[test]
    fn means_are_over_all_rankings() {
        let all = summary(0.9).and(&summary(0.5)).and(&summary(0.1));
        assert_eq!((all.rankings, all.top_3_overlap, all.us_per_candidate), (3, 1.0, 4.0));
        assert!((all.rank_correlation - 0.5).abs() < 1e-12);
        assert!((all.probability_difference[0] - 0.05).abs() < 1e-12);
    }

    #[test]
    fn the_first_three_are_compared_as_a_set() {
        assert_eq!(overlap(&[4.0, 3.0, 2.0, 1.0], &[2.0, 3.0, 4.0, 1.0]), 1.0);
        assert_eq!(overlap(&[4.0, 3.0, 2.0, 1.0, 0.0], &[0.0, 1.0, 2.0, 3.0, 4.0]), 1.0 / 3.0);
        assert_eq!(overlap(&[1.0, 0.0], &[0.0, 1.0]), 1.0, "fewer than three are all at the top");
    }
}
