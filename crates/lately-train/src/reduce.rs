//! Sums the gradients of a batch's shards in their order, whoever computes them when, with fewer buffers than shards.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use lately_model::{Gradients, Model};

/// Hands out shards in order and adds what comes back in order.
pub(crate) struct Reducer {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Shards of this step.
    shards: usize,
    /// First shard that nobody has.
    next: usize,
    /// Shards that are in the sum.
    added: usize,
    sum: Gradients,
    loss: f64,
    /// Shards that came before an earlier one.
    early: BTreeMap<usize, (Gradients, f64)>,
    free: Vec<Gradients>,
    failed: bool,
}

/// One shard and the memory for its gradient; dropped without [`Claim::give`] it fails the step, so that nobody waits
/// for it.
pub(crate) struct Claim<'r> {
    reducer: &'r Reducer,
    shard: usize,
    gradients: Gradients,
    given: bool,
}

impl Reducer {
    /// With `buffers` gradients beside the sum: so many shards can be under way at once.
    pub(crate) fn new(model: &Model, buffers: usize) -> Self {
        let state = State {
            shards: 0,
            next: 0,
            added: 0,
            sum: Gradients::zeros(model),
            loss: 0.0,
            early: BTreeMap::new(),
            free: (0..buffers.max(1)).map(|_| Gradients::zeros(model)).collect(),
            failed: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a step.
    pub(crate) fn begin(&mut self, shards: usize) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        (state.shards, state.next, state.added, state.loss, state.failed) = (shards, 0, 0, 0.0, false);
    }

    /// The next shard, with a cleared gradient; waits for memory. `None` where no shard is left, or the step failed.
    ///
    /// It cannot wait for ever: shards are handed out with their memory and in order, so that the first one that is not
    /// yet in the sum always has some.
    pub(crate) fn claim(&self) -> Option<Claim<'_>> {
        let mut state = self.lock();
        loop {
            if state.failed || state.next == state.shards {
                return None;
            }
            if let Some(mut gradients) = state.free.pop() {
                let shard = state.next;
                state.next += 1;
                drop(state);
                gradients.clear();
                return Some(Claim { reducer: self, shard, gradients, given: false });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The sum of all shards and their loss, when all were given.
    pub(crate) fn end(&mut self) -> (&mut Gradients, f64) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        (&mut state.sum, state.loss)
    }
}

impl Claim<'_> {
    /// Its number within the batch.
    pub(crate) fn shard(&self) -> usize {
        self.shard
    }

    /// Where its gradient goes.
    pub(crate) fn gradients(&mut self) -> &mut Gradients {
        &mut self.gradients
    }

    /// Hands the shard in.
    pub(crate) fn give(mut self, loss: f64) {
        self.given = true;
        let mut state = self.reducer.lock();
        state.early.insert(self.shard, (std::mem::take(&mut self.gradients), loss));
        state.add_in_order();
        drop(state);
        self.reducer.changed.notify_all();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.given {
            self.reducer.lock().failed = true;
            self.reducer.changed.notify_all();
        }
    }
}

impl State {
    fn add_in_order(&mut self) {
        while let Some((mut gradients, loss)) = self.early.remove(&self.added) {
            if self.added == 0 {
                std::mem::swap(&mut self.sum, &mut gradients); // the first one is the sum so far
            } else {
                self.sum.add(&gradients);
            }
            self.loss += loss;
            self.added += 1;
            self.free.push(gradients);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::schema;
    use lately_model::{Encoder, ModelConfig};

    fn model() -> Model {
        let config = ModelConfig { encoder: Encoder::None, hidden: vec![], ..ModelConfig::default() };
        Model::new(config, &schema(), 1).unwrap()
    }

    /// 9 shards that put numbers into one place and take longer the earlier they are; the sum's bits tell the
    /// order of additions.
    fn sum(buffers: usize, threads: usize) -> (f32, f64) {
        let number = |shard: usize| 0.1f32.powi(shard as i32 % 4) * 3.3;
        let mut reducer = Reducer::new(&model(), buffers);
        for _ in 0..2 {
            reducer.begin(9); // a second step starts from nothing
            let work = || {
                while let Some(mut claim) = reducer.claim() {
                    let shard = claim.shard();
                    std::thread::sleep(std::time::Duration::from_millis(9 - shard as u64));
                    claim.gradients().iter_mut().last().unwrap().data[0] = number(shard);
                    claim.give(f64::from(number(shard)));
                }
            };
            std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        }
        let (gradients, loss) = reducer.end();
        (gradients.iter().last().unwrap().1[0], loss)
    }

    #[test]
    fn the_sum_does_not_depend_on_threads_nor_on_memory() {
        let want = (1..9).fold(3.3f32, |sum, shard| sum + 0.1f32.powi(shard % 4) * 3.3);
        for (buffers, threads) in [(1, 1), (1, 4), (2, 4), (9, 4), (3, 2)] {
            let (gradient, loss) = sum(buffers, threads);
            assert_eq!(gradient.to_bits(), want.to_bits(), "{buffers} buffers, {threads} threads");
            assert!((loss - f64::from(want)).abs() < 1e-5);
        }
    }

    #[test]
    fn a_dropped_shard_ends_the_step_for_all() {
        let mut reducer = Reducer::new(&model(), 1);
        reducer.begin(3);
        std::thread::scope(|scope| {
            let claim = reducer.claim().unwrap();
            let other = scope.spawn(|| reducer.claim().is_none()); // waits for the only buffer
            std::thread::sleep(std::time::Duration::from_millis(20));
            drop(claim);
            assert!(other.join().unwrap());
        });
    }
}
